// Gradients of density and colour to the planes, and what the decoder's gradients are made of.
//
// Nothing but the outputs is kept from the forward pass: the tile is computed again. Of its
// activations the way back needs one bit per ReLU and softplus' value, which stay in registers. A
// sample's gradients are divided by their largest before they become halves and multiplied back in
// fp32 when they leave, so no loss scaling is needed whatever their size. Colour's and log density's
// may lie many orders of magnitude apart; each has a scale of its own, and they meet in fp32.
#include "gradients.cuh"

constexpr float GRADIENT_EXPONENT = 15.0f;
constexpr int COLOR_GRADS = round16(COLOR_ENCODED);  // directions get no gradient
constexpr int DENSITY_GRADS = round16(DENSITY_ENCODED);
// A narrow decoder has more encodings than one pass over its width covers.
constexpr int PASSES = (COLOR_GRADS + HIDDEN - 1) / HIDDEN;
static_assert(RESIDENT || HIDDEN * HEAD_LD <= TILE * ACT_LD,
              "the output's weights fit over the activations");
static_assert(DENSITY_GRADS <= HIDDEN, "density's encodings fit in one pass");

// gradients [S, 4]: of the three colour outputs before the sigmoid and of log density; `largest_out`
// [2] grows to the largest magnitudes of colour's and of log density's.
extern "C" __global__ void __launch_bounds__(128)
    head_gradients(const float* density, const float* color, const float* grad_density,
                   const float* grad_color, float* gradients, float* largest_out, int count) {
    int s = blockIdx.x * blockDim.x + threadIdx.x;
    float of_color = 0.0f, of_logit = 0.0f;
    if (s < count) {
        for (int c = 0; c < 3; c++) {
            float y = color[3 * s + c];
            float value = grad_color[3 * s + c] * y * (1.0f - y);
            gradients[4 * s + c] = value;
            of_color = larger(of_color, fabsf(value));
        }
        // exp's derivative at an exponent clamped to +-15, from exp itself.
        float low = expf(-GRADIENT_EXPONENT), high = expf(GRADIENT_EXPONENT);
        float value = grad_density[s] * smaller(larger(density[s], low), high);
        gradients[4 * s + LOGIT] = value;
        of_logit = fabsf(value);
    }
    for (int delta = 16; delta > 0; delta /= 2) {
        of_color = larger(of_color, __shfl_xor_sync(FULL_WARP, of_color, delta));
        of_logit = larger(of_logit, __shfl_xor_sync(FULL_WARP, of_logit, delta));
    }
    // Floats without a sign order like their bits, and NaN comes behind infinity.
    if ((threadIdx.x & 31) == 0) {
        atomicMax((int*)largest_out, __float_as_int(of_color));
        atomicMax((int*)largest_out + 1, __float_as_int(of_logit));
    }
}

// The geometry layer's own columns: with the head's beside them, or a copy without.
constexpr int GEOMETRY_OWN_LD = RESIDENT ? GEOMETRY_LD : W_LD;

// planes_grad: fp32, laid out like the planes, added to; or null. inputs, layer_grads: one row for
// each sample from `begin` (rounded up to whole tiles), or null when the decoder is frozen. `tiles`:
// how many from there on.
extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, BLOCKS_PER_SM)
    field_backward(Source source, Planes planes, const half_t* weights, const float* gradients,
                   const float* largest_in, float* planes_grad, half_t* inputs_out,
                   half_t* layer_grads_out, int begin, int tiles) {
    DYNAMIC_SHARED(shared);
    unsigned char* own = tile_memory<BACKWARD_TILE>(shared);
    Tile tile = make_tile(shared, own);
    half_t* head_grad = (half_t*)(own + AT_HEAD_GRAD);
    float* feature_grad =
        (float*)(RESIDENT ? own + AT_FEATURE_GRAD : shared + DENSITY_WEIGHT_BYTES);
    ScaleTable scales = {head_grad};
    load_resident(tile.weights, weights);
    Place place = find_place((float*)tile.act);
    for_each_tile(tiles, [&](int index) {
        tile.first = begin + index * TILE;
        load_head_gradients(gradients, tile.first, source.count, head_grad);
        half_t* inputs = nullptr;
        half_t* layer_grads = nullptr;
        if (layer_grads_out) {
            inputs = inputs_out + (long long)index * TILE * INPUTS;
            layer_grads = layer_grads_out + (long long)index * TILE * GRADIENTS;
        }

        // Forward again.
        Product product;
        Held softplus_value;
        Mask first_mask, second_mask;
        density_layer<0>(product, tile, source, planes, weights, place, [&] {
            if (inputs) save<DENSITY_IN>(inputs + IN_DENSITY, INPUTS, tile.act);
        });
    #pragma unroll
        for (int i = 0; i < ROWS; i++)
    #pragma unroll
            for (int j = 0; j < COLUMNS; j++)
    #pragma unroll
                for (int e = 0; e < 8; e++)
                    product.part[i][j].value[e] = softplus(product.part[i][j].value[e]);
        hold(softplus_value, product);
        store_held<HIDDEN>(softplus_value, tile.act, place, 0);
        const half_t* here = weights_of<HIDDEN, HIDDEN, GEOMETRY_OWN_LD>(
            tile.weights + R_GEOMETRY, tile.weights, weights + W_GEOMETRY, HIDDEN + HEAD);
        tile_barrier();
        if (inputs) save<HIDDEN>(inputs + IN_GEOMETRY, INPUTS, tile.act);
        product.clear();
        multiply<HIDDEN, HIDDEN, false>(product, tile.act, ACT_LD, place.row, here, GEOMETRY_OWN_LD,
                                        place.column);
        tile_barrier();
        encode_color(tile.features, source, tile.first, tile.act);
        here = weights_of<COLOR_IN, HIDDEN, W_LD>(tile.weights + R_COLOR, tile.weights,
                                                  weights + W_COLOR, HIDDEN);
        tile_barrier();
        if (inputs) save<COLOR_IN>(inputs + IN_COLOR, INPUTS, tile.act);
        multiply<COLOR_IN, HIDDEN, false>(product, tile.act, ACT_LD, place.row, here, W_LD,
                                          place.column);
        tile_barrier();
        first_mask.set(product);
        store_relu(product, tile.act, place);
        const half_t* hidden = weights_of<HIDDEN, HIDDEN, W_LD>(
            tile.weights + R_HIDDEN, tile.weights, weights + W_HIDDEN, HIDDEN);
        tile_barrier();
        if (inputs) save<HIDDEN>(inputs + IN_HIDDEN, INPUTS, tile.act);
        product.clear();
        multiply<HIDDEN, HIDDEN, false>(product, tile.act, ACT_LD, place.row, hidden, W_LD,
                                        place.column);
        second_mask.set(product);
        tile_barrier();
        if (inputs) {  // the last layer's input serves the decoder's gradient alone
            store_relu(product, tile.act, place);
            tile_barrier();
            save<HIDDEN>(inputs + IN_OUT, INPUTS, tile.act);
            tile_barrier();
        }

        // And back: colour output, second and first hidden layer. The output's few weights go where the
        // activations were, so the hidden layer's can stay for its own way back.
        here = weights_of<HIDDEN, HEAD, HEAD_LD>(tile.weights + R_OUT, tile.act, weights + W_OUT, HEAD);
        tile_barrier();
        product.clear();
        multiply<HEAD, HIDDEN, true>(product, head_grad, HEAD_LD, place.row, here, HEAD_LD,
                                     place.column);
        if (layer_grads)
            save_head(layer_grads + GRAD_HEAD, head_grad, scales, largest_in);
        tile_barrier();
        store_masked(product, second_mask, tile.act, place);
        tile_barrier();
        if (layer_grads)
            save_scaled<HIDDEN, &Scales::color>(layer_grads + GRAD_HIDDEN, tile.act, scales,
                                                largest_in[0]);
        product.clear();
        multiply<HIDDEN, HIDDEN, true>(product, tile.act, ACT_LD, place.row, hidden, W_LD,
                                       place.column);
        tile_barrier();
        store_masked(product, first_mask, tile.act, place);
        here = weights_of<HIDDEN, HIDDEN + HEAD, GEOMETRY_LD>(tile.weights + R_GEOMETRY, tile.weights,
                                                              weights + W_GEOMETRY, HIDDEN + HEAD);
        tile_barrier();
        if (layer_grads)
            save_scaled<HIDDEN, &Scales::color>(layer_grads + GRAD_COLOR, tile.act, scales,
                                                largest_in[0]);

        // Density's hidden layer hears from colour and from log density; softplus' slope is
        // 1 - exp(-softplus). Its gradient waits in registers while the colour encodings take theirs.
        product.clear();
        multiply<HIDDEN, HIDDEN, true>(product, tile.act, ACT_LD, place.row, here, GEOMETRY_LD,
                                       place.column);
        rescale(product, scales, place);
        multiply<HEAD, HIDDEN, true>(product, head_grad, HEAD_LD, place.row, here + HIDDEN,
                                     GEOMETRY_LD, place.column);
    #pragma unroll
        for (int i = 0; i < ROWS; i++)
    #pragma unroll
            for (int j = 0; j < COLUMNS; j++)
    #pragma unroll
                for (int e = 0; e < 8; e++)
                    product.part[i][j].value[e] *=
                        1.0f - __expf(-to_float(held_half(softplus_value, i, j, e)));
        hold(softplus_value, product);
        const Held& density_grad = softplus_value;
        tile_barrier();

        if (planes_grad) {
            here = weights_of<COLOR_GRADS, HIDDEN, W_LD>(tile.weights + R_COLOR, tile.weights,
                                                         weights + W_COLOR, HIDDEN);
            tile_barrier();
            Held color_grad[PASSES];
    #pragma unroll
            for (int pass = 0; pass < PASSES; pass++) {
                product.clear();
                multiply<HIDDEN, COLOR_GRADS, true>(product, tile.act, ACT_LD, place.row, here, W_LD,
                                                    place.column + pass * HIDDEN);
                hold(color_grad[pass], product);
            }
            tile_barrier();
    #pragma unroll
            for (int pass = 0; pass < PASSES; pass++)
                store_held<COLOR_GRADS>(color_grad[pass], tile.act, place, pass);
            tile_barrier();
            encoding_backward<0, COLOR_CHANNELS, &Scales::color>(tile.features, tile.act, scales,
                                                                 feature_grad);
            here = weights_of<DENSITY_GRADS, HIDDEN, W_LD>(tile.weights + R_DENSITY, tile.weights,
                                                           weights + W_DENSITY, HIDDEN);
            tile_barrier();
        }
        store_held<HIDDEN>(density_grad, tile.act, place, 0);
        tile_barrier();
        if (layer_grads)
            save_scaled<HIDDEN, &Scales::merged>(layer_grads + GRAD_DENSITY, tile.act, scales,
                                                 larger(largest_in[0], largest_in[1]));
        if (planes_grad) {
            product.clear();
            multiply<HIDDEN, DENSITY_GRADS, true>(product, tile.act, ACT_LD, place.row, here, W_LD,
                                                  place.column);
            hold(softplus_value, product);
            tile_barrier();
            store_held<DENSITY_GRADS>(softplus_value, tile.act, place, 0);
            tile_barrier();
            encoding_backward<COLOR_CHANNELS, DENSITY_CHANNELS, &Scales::merged>(
                tile.features, tile.act, scales, feature_grad);
            tile_barrier();
            scatter(planes, tile.points, feature_grad, scales, planes_grad);
        }
    });
}
