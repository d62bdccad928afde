// A block's tile of samples, and the start that every kernel of the field shares.
#pragma once
#include "encode.cuh"
#include "layers.cuh"

struct Tile {
    half_t* weights;  // all of them, or room for a layer's
    half_t* act;
    half_t* features;
    Point* points;
    float* out;  // [TILE, 4]: red, green, blue, log density
    int first;   // index of its first sample
};

// The place of this thread's tile, BYTES apart, in shared memory.
template <int BYTES>
__device__ __forceinline__ unsigned char* tile_memory(unsigned char* shared) {
    return shared + AT_TILES + tile_group() * BYTES;
}

__device__ __forceinline__ Tile make_tile(unsigned char* shared, unsigned char* own) {
    return {(half_t*)shared,
            (half_t*)(own + AT_ACT),
            (half_t*)(own + AT_FEATURES),
            (Point*)(own + AT_POINTS),
            (float*)(own + AT_OUT),
            0};
}

// Weights that stay, once for the block.
__device__ __forceinline__ void load_resident(half_t* shared, const half_t* weights) {
    if (!RESIDENT) return;
    copy_block<DENSITY_IN, HIDDEN>(shared + R_DENSITY, W_LD, weights + W_DENSITY);
    copy_block<HIDDEN, HIDDEN + HEAD>(shared + R_GEOMETRY, GEOMETRY_LD, weights + W_GEOMETRY);
    copy_block<COLOR_IN, HIDDEN>(shared + R_COLOR, W_LD, weights + W_COLOR);
    copy_block<HIDDEN, HIDDEN>(shared + R_HIDDEN, W_LD, weights + W_HIDDEN);
    copy_block<HIDDEN, HEAD>(shared + R_OUT, HEAD_LD, weights + W_OUT);
    __syncthreads();
}

// Calls work(index) for each of this thread's tiles, of `count` in the launch.
template <class Work>
__device__ __forceinline__ void for_each_tile(int count, Work work) {
    if (RESIDENT) {
#pragma unroll 1
        for (int index = (int)blockIdx.x * GROUPS + tile_group(); index < count;
             index += (int)gridDim.x * GROUPS) {
            work(index);
            tile_barrier();
        }
    } else {
        work((int)blockIdx.x);
    }
}

// The density network's first layer, before its softplus, from channels FIRST_CHANNEL ... CHANNELS
// of the planes. `while_encoded` may read the layer's input. Ends behind a barrier: weights and
// activations are free to be overwritten.
template <int FIRST_CHANNEL, class WhileEncoded>
__device__ __forceinline__ void density_layer(Product& product, const Tile& tile,
                                              const Source& source, const Planes& planes,
                                              const half_t* weights, const Place& place,
                                              WhileEncoded while_encoded) {
    place_points(source, tile.first, tile.points);
    const half_t* here = weights_of<DENSITY_IN, HIDDEN, W_LD>(
        tile.weights + R_DENSITY, tile.weights, weights + W_DENSITY, HIDDEN);
    tile_barrier();
    gather<FIRST_CHANNEL>(planes, tile.points, tile.features);
    tile_barrier();
    encode_density(tile.features, tile.act);
    tile_barrier();
    while_encoded();
    product.clear();
    multiply<DENSITY_IN, HIDDEN, false>(product, tile.act, ACT_LD, place.row, here, W_LD,
                                        place.column);
    tile_barrier();
}
