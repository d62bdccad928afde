// A block's tile of samples, and the start that every kernel of the field shares.
#pragma once
#include "encode.cuh"
#include "layers.cuh"

struct Tile {
    half_t* weights;
    half_t* act;
    half_t* features;
    Point* points;
    float* out;  // [TILE, 4]: red, green, blue, log density
    int first;   // index of its first sample
};

__device__ __forceinline__ Tile make_tile(unsigned char* shared, int begin = 0) {
    return {(half_t*)(shared + AT_WEIGHTS),
            (half_t*)(shared + AT_ACT),
            (half_t*)(shared + AT_FEATURES),
            (Point*)(shared + AT_POINTS),
            (float*)(shared + AT_OUT),
            begin + (int)blockIdx.x * TILE};
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
    copy_weights<DENSITY_IN, HIDDEN>(tile.weights, W_LD, weights + W_DENSITY, HIDDEN);
    __syncthreads();
    gather<FIRST_CHANNEL>(planes, tile.points, tile.features);
    __syncthreads();
    encode_density(tile.features, tile.act);
    __syncthreads();
    while_encoded();
    product.clear();
    multiply<DENSITY_IN, HIDDEN, false>(product, tile.act, ACT_LD, place.row, tile.weights, W_LD,
                                        place.column);
    __syncthreads();
}
