// Density alone, and density with colour, of samples: positions to planes to decoder in one pass.
#include "tile.cuh"

constexpr float MAX_EXPONENT = 80.0f;

__device__ __forceinline__ float density_of(const Tile& tile, int s, const float* bias) {
    return expf(smaller(tile.out[4 * s + LOGIT] + bias[0], MAX_EXPONENT));
}

// out [S] = density, or max(decay * out, density) for decay >= 0 (the occupancy grid's refresh).
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_PER_SM)
    field_density(Source source, Planes planes, const half_t* weights, const float* bias,
                  float decay, float* out) {
    DYNAMIC_SHARED(shared);
    Tile tile = make_tile(shared);
    Place place = find_place((float*)tile.weights);
    Product product;
    density_layer<COLOR_CHANNELS>(product, tile, source, planes, weights, place, [] {});
    store_softplus(product, tile.act, place);
    copy_weights<HIDDEN, HEAD>(tile.weights, HEAD_LD, weights + W_GEOMETRY + HIDDEN, HIDDEN + HEAD);
    __syncthreads();
    head<LOGIT, LOGIT>(tile.act, tile.weights, HEAD_LD, tile.out, place);
    __syncthreads();
    for (int s = threadIdx.x; s < TILE && tile.first + s < source.count; s += THREADS) {
        float density = density_of(tile, s, bias);
        float* target = out + tile.first + s;
        *target = decay < 0.0f ? density : larger(*target * decay, density);
    }
}

// density_out [S], color_out [S, 3].
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_PER_SM)
    field_forward(Source source, Planes planes, const half_t* weights, const float* bias,
                  float* density_out, float* color_out) {
    DYNAMIC_SHARED(shared);
    Tile tile = make_tile(shared);
    Place place = find_place((float*)tile.weights);
    Product product;
    density_layer<0>(product, tile, source, planes, weights, place, [] {});
    store_softplus(product, tile.act, place);
    copy_weights<HIDDEN, HIDDEN + HEAD>(tile.weights, GEOMETRY_LD, weights + W_GEOMETRY,
                                        HIDDEN + HEAD);
    __syncthreads();

    product.clear();
    multiply<HIDDEN, HIDDEN, false>(product, tile.act, ACT_LD, place.row, tile.weights, GEOMETRY_LD,
                                    place.column);
    // The features are still needed for colour, so the logit waits in a register until they are not.
    float logit = 0.0f;
    float* logits = (float*)tile.points;  // the positions are spent
    head<LOGIT, LOGIT>(tile.act, tile.weights + HIDDEN, GEOMETRY_LD, logits, place);
    __syncthreads();
    if (threadIdx.x < TILE) logit = logits[4 * threadIdx.x + LOGIT];
    encode_color(tile.features, source, tile.first, tile.act);
    copy_weights<COLOR_IN, HIDDEN>(tile.weights, W_LD, weights + W_COLOR, HIDDEN);
    __syncthreads();
    multiply<COLOR_IN, HIDDEN, false>(product, tile.act, ACT_LD, place.row, tile.weights, W_LD,
                                      place.column);
    __syncthreads();
    store_relu(product, tile.act, place);
    copy_weights<HIDDEN, HIDDEN>(tile.weights, W_LD, weights + W_HIDDEN, HIDDEN);
    __syncthreads();
    product.clear();
    multiply<HIDDEN, HIDDEN, false>(product, tile.act, ACT_LD, place.row, tile.weights, W_LD,
                                    place.column);
    __syncthreads();
    store_relu(product, tile.act, place);
    copy_weights<HIDDEN, HEAD>(tile.weights, HEAD_LD, weights + W_OUT, HEAD);
    __syncthreads();
    head<0, 2>(tile.act, tile.weights, HEAD_LD, tile.out, place);
    __syncthreads();
    if (threadIdx.x < TILE && tile.first + threadIdx.x < source.count) {
        long long at = tile.first + threadIdx.x;
        density_out[at] = expf(smaller(logit + bias[0], MAX_EXPONENT));
        for (int c = 0; c < 3; c++) {
            float x = tile.out[4 * threadIdx.x + c];
            color_out[3 * at + c] = 1.0f / (1.0f + __expf(-x));
        }
    }
}
