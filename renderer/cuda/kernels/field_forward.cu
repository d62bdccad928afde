// Density alone, and density with colour, of samples: positions to planes to decoder in one pass.
#include "tile.cuh"

constexpr float MAX_EXPONENT = 80.0f;

__device__ __forceinline__ float density_of(const Tile& tile, int s, const float* bias) {
    return expf(smaller(tile.out[4 * s + LOGIT] + bias[0], MAX_EXPONENT));
}

// What the head's layer is read from: a copy of its 16 columns, or the layer before's last ones.
constexpr int LOGIT_LD = RESIDENT ? GEOMETRY_LD : HEAD_LD;

// out [S] = density, or max(decay * out, density) for decay >= 0 (the occupancy grid's refresh).
extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, BLOCKS_PER_SM)
    field_density(Source source, Planes planes, const half_t* weights, const float* bias,
                  float decay, float* out) {
    DYNAMIC_SHARED(shared);
    Tile tile = make_tile(shared, tile_memory<FORWARD_TILE>(shared));
    load_resident(tile.weights, weights);
    Place place = find_place((float*)tile.act);
    for_each_tile((source.count + TILE - 1) / TILE, [&](int index) {
        tile.first = index * TILE;
        Product product;
        density_layer<COLOR_CHANNELS>(product, tile, source, planes, weights, place, [] {});
        store_softplus(product, tile.act, place);
        const half_t* logit_weights = weights_of<HIDDEN, HEAD, HEAD_LD>(
            tile.weights + R_GEOMETRY + HIDDEN, tile.weights, weights + W_GEOMETRY + HIDDEN,
            HIDDEN + HEAD);
        tile_barrier();
        head<LOGIT, LOGIT>(tile.act, logit_weights, LOGIT_LD, tile.out, place);
        tile_barrier();
        for (int s = tile_thread(); s < TILE && tile.first + s < source.count; s += THREADS) {
            float density = density_of(tile, s, bias);
            float* target = out + tile.first + s;
            *target = decay < 0.0f ? density : larger(*target * decay, density);
        }
    });
}

// density_out [S], color_out [S, 3].
extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, BLOCKS_PER_SM)
    field_forward(Source source, Planes planes, const half_t* weights, const float* bias,
                  float* density_out, float* color_out) {
    DYNAMIC_SHARED(shared);
    Tile tile = make_tile(shared, tile_memory<FORWARD_TILE>(shared));
    load_resident(tile.weights, weights);
    Place place = find_place((float*)tile.act);
    for_each_tile((source.count + TILE - 1) / TILE, [&](int index) {
        tile.first = index * TILE;
        Product product;
        density_layer<0>(product, tile, source, planes, weights, place, [] {});
        store_softplus(product, tile.act, place);
        const half_t* here = weights_of<HIDDEN, HIDDEN + HEAD, GEOMETRY_LD>(
            tile.weights + R_GEOMETRY, tile.weights, weights + W_GEOMETRY, HIDDEN + HEAD);
        tile_barrier();

        product.clear();
        multiply<HIDDEN, HIDDEN, false>(product, tile.act, ACT_LD, place.row, here, GEOMETRY_LD,
                                        place.column);
        // The features are still needed for colour, so the logit waits in a register until they are
        // not.
        float logit = 0.0f;
        float* logits = (float*)tile.points;  // the positions are spent
        head<LOGIT, LOGIT>(tile.act, here + HIDDEN, GEOMETRY_LD, logits, place);
        tile_barrier();
        if (tile_thread() < TILE) logit = logits[4 * tile_thread() + LOGIT];
        encode_color(tile.features, source, tile.first, tile.act);
        here = weights_of<COLOR_IN, HIDDEN, W_LD>(tile.weights + R_COLOR, tile.weights,
                                                  weights + W_COLOR, HIDDEN);
        tile_barrier();
        multiply<COLOR_IN, HIDDEN, false>(product, tile.act, ACT_LD, place.row, here, W_LD,
                                          place.column);
        tile_barrier();
        store_relu(product, tile.act, place);
        here = weights_of<HIDDEN, HIDDEN, W_LD>(tile.weights + R_HIDDEN, tile.weights,
                                                weights + W_HIDDEN, HIDDEN);
        tile_barrier();
        product.clear();
        multiply<HIDDEN, HIDDEN, false>(product, tile.act, ACT_LD, place.row, here, W_LD,
                                        place.column);
        tile_barrier();
        store_relu(product, tile.act, place);
        here = weights_of<HIDDEN, HEAD, HEAD_LD>(tile.weights + R_OUT, tile.weights,
                                                 weights + W_OUT, HEAD);
        tile_barrier();
        head<0, 2>(tile.act, here, HEAD_LD, tile.out, place);
        tile_barrier();
        if (tile_thread() < TILE && tile.first + tile_thread() < source.count) {
            long long at = tile.first + tile_thread();
            density_out[at] = expf(smaller(logit + bias[0], MAX_EXPONENT));
            for (int c = 0; c < 3; c++) {
                float x = tile.out[4 * tile_thread() + c];
                color_out[3 * at + c] = 1.0f / (1.0f + __expf(-x));
            }
        }
    });
}
