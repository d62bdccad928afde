// Gradients of density and colour to the planes, and what the decoder's gradients are made of.
//
// Nothing but the outputs is kept from the forward pass: the tile is computed again. Of its
// activations the way back needs one bit per ReLU and softplus' value, which stay in registers. A
// sample's gradients are divided by their largest before they become halves and multiplied back in
// fp32 when they leave, so no loss scaling is needed whatever their size. Colour's and log density's
// may lie many orders of magnitude apart; each has a scale of its own, and they meet in fp32.
#include "tile.cuh"
#include "workspace.cuh"

constexpr float GRADIENT_EXPONENT = 15.0f;
constexpr int COLOR_GRADS = round16(COLOR_ENCODED);  // directions get no gradient
constexpr int DENSITY_GRADS = round16(DENSITY_ENCODED);
// A narrow decoder has more encodings than one pass over its width covers.
constexpr int PASSES = (COLOR_GRADS + HIDDEN - 1) / HIDDEN;
static_assert(HIDDEN * HEAD_LD <= TILE * ACT_LD, "the output's weights fit over the activations");
static_assert(DENSITY_GRADS <= HIDDEN, "density's encodings fit in one pass");

// Below the smallest normal number a reciprocal overflows: such a gradient does not count. One that
// is not finite does, and leaves nothing finite.
__device__ __forceinline__ bool vanishes(float scale) { return scale <= 1e-37f; }
__device__ __forceinline__ float reciprocal(float scale) {
    return vanishes(scale) ? 0.0f : 1.0f / scale;
}

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

// A product's values as pairs of halves: half the registers while other layers run.
struct Held {
    unsigned pair[ROWS][COLUMNS][4];
};

__device__ __forceinline__ void hold(Held& held, const Product& product) {
#pragma unroll
    for (int i = 0; i < ROWS; i++)
#pragma unroll
        for (int j = 0; j < COLUMNS; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                held.pair[i][j][e] =
                    to_finite_half(product.part[i][j].value[2 * e]) |
                    (unsigned)to_finite_half(product.part[i][j].value[2 * e + 1]) << 16;
                settle(held.pair[i][j][e]);
            }
}

__device__ __forceinline__ half_t held_half(const Held& held, int i, int j, int e) {
    unsigned pair = held.pair[i][j][e / 2];
    return (half_t)(e & 1 ? pair >> 16 : pair & 0xffffu);
}

// To columns `column` ... of the activations, as far as they lie below LIMIT.
template <int LIMIT>
__device__ __forceinline__ void store_held(const Held& held, half_t* act, const Place& place,
                                           int pass) {
    for_each_value(place, ACT_LD, [&](int i, int j, int e, int at) {
        if (LIMIT % HIDDEN == 0 || pass * HIDDEN + place.column + 16 * j < LIMIT)
            act[at + pass * HIDDEN] = held_half(held, i, j, e);
    });
}

// Which values of a layer's output ReLU lets through.
struct Mask {
    unsigned bits[ROWS];

    __device__ __forceinline__ void set(const Product& product) {
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
            bits[i] = 0;
#pragma unroll
            for (int j = 0; j < COLUMNS; j++)
#pragma unroll
                for (int e = 0; e < 8; e++)
                    bits[i] |= (product.part[i][j].value[e] > 0.0f ? 1u : 0u) << (8 * j + e);
            settle(bits[i]);
        }
    }
};

__device__ __forceinline__ void store_masked(const Product& product, const Mask& mask, half_t* act,
                                             const Place& place) {
    for_each_value(place, ACT_LD, [&](int i, int j, int e, int at) {
        bool passes = mask.bits[i] >> (8 * j + e) & 1u;
        act[at] = passes ? to_finite_half(product.part[i][j].value[e]) : (half_t)0;
    });
}

// WIDTH columns of the tile to global memory, 16 bytes at a time.
template <int WIDTH>
__device__ __forceinline__ void save(half_t* target, int stride, const half_t* act) {
#pragma unroll 2
    for (int item = threadIdx.x; item < TILE * (WIDTH / 8); item += THREADS) {
        int s = item / (WIDTH / 8), c = item % (WIDTH / 8) * 8;
        *(uint4*)(target + (long long)s * stride + c) = *(const uint4*)(act + s * ACT_LD + c);
    }
}

// The same for gradients, whose rows share one scale there: each row's own over the largest.
template <int WIDTH, float Scales::*SCALE>
__device__ __forceinline__ void save_scaled(half_t* target, const half_t* act,
                                            const ScaleTable& scales, float largest) {
    float factor = reciprocal(largest);
#pragma unroll 2
    for (int item = threadIdx.x; item < TILE * (WIDTH / 2); item += THREADS) {
        int s = item / (WIDTH / 2), c = item % (WIDTH / 2) * 2;
        float ratio = scales[s].*SCALE * factor;
        unsigned pair = *(const unsigned*)(act + s * ACT_LD + c);
        *(unsigned*)(target + (long long)s * GRADIENTS + c) =
            to_half(to_float((half_t)(pair & 0xffffu)) * ratio) |
            (unsigned)to_half(to_float((half_t)(pair >> 16)) * ratio) << 16;
    }
}

// Each sample's output gradients, colour's and log density's over their scales, and those.
__device__ __forceinline__ void load_head_gradients(const float* gradients, int first, int count,
                                                    half_t* head_grad) {
    ScaleTable scales = {head_grad};
    for (int s = threadIdx.x; s < TILE; s += THREADS) {
        float4 g = first + s < count ? ((const float4*)gradients)[first + s]
                                     : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        float color = larger(larger(fabsf(g.x), fabsf(g.y)), fabsf(g.z));
        float merged = larger(color, fabsf(g.w));
        float per_color = reciprocal(color), per_merged = reciprocal(merged);
        color = vanishes(color) ? 0.0f : color;
        merged = vanishes(merged) ? 0.0f : merged;
        scales[s] = {color, merged, g.w * per_merged, color * per_merged};
        half_t* row = head_grad + s * HEAD_LD;
        row[0] = to_half(g.x * per_color);
        row[1] = to_half(g.y * per_color);
        row[2] = to_half(g.z * per_color);
        row[LOGIT] = to_half(scales[s].logit);
        for (int c = LOGIT + 1; c < HEAD; c++) row[c] = 0;
    }
}

// The output layers' gradients for the decoder's: colour's from the tile, log density's from fp32.
__device__ __forceinline__ void save_head(half_t* target, const half_t* head_grad,
                                          const ScaleTable& scales, const float* largest) {
    float per_color = reciprocal(largest[0]), per_logit = reciprocal(largest[1]);
    for (int item = threadIdx.x; item < TILE * HEAD; item += THREADS) {
        int s = item / HEAD, c = item % HEAD;
        float value = c == LOGIT
                          ? scales[s].logit * (scales[s].merged * per_logit)
                          : to_float(head_grad[s * HEAD_LD + c]) * (scales[s].color * per_color);
        target[(long long)s * GRADIENTS + c] = to_half(value);
    }
}

// From colour's scale to the merged one.
__device__ __forceinline__ void rescale(Product& product, const ScaleTable& scales,
                                        const Place& place) {
#pragma unroll
    for (int i = 0; i < ROWS; i++)
#pragma unroll
        for (int e = 0; e < 8; e++) {
            float ratio = scales[place.row + 16 * i + place.entry[e] / 16].ratio;
#pragma unroll
            for (int j = 0; j < COLUMNS; j++) product.part[i][j].value[e] *= ratio;
        }
}

// planes_grad: fp32, laid out like the planes, added to; or null. inputs, layer_grads: one row for
// each sample from `begin` (rounded up to whole tiles), or null when the decoder is frozen.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_PER_SM)
    field_backward(Source source, Planes planes, const half_t* weights, const float* gradients,
                   const float* largest_in, float* planes_grad, half_t* inputs, half_t* layer_grads,
                   int begin) {
    DYNAMIC_SHARED(shared);
    Tile tile = make_tile(shared, begin);
    half_t* head_grad = (half_t*)(shared + AT_HEAD_GRAD);
    ScaleTable scales = {head_grad};
    Place place = find_place((float*)tile.weights);
    load_head_gradients(gradients, tile.first, source.count, head_grad);
    if (layer_grads) {
        inputs += (long long)blockIdx.x * TILE * INPUTS;
        layer_grads += (long long)blockIdx.x * TILE * GRADIENTS;
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
    copy_weights<HIDDEN, HIDDEN>(tile.weights, W_LD, weights + W_GEOMETRY, HIDDEN + HEAD);
    __syncthreads();
    if (inputs) save<HIDDEN>(inputs + IN_GEOMETRY, INPUTS, tile.act);
    product.clear();
    multiply<HIDDEN, HIDDEN, false>(product, tile.act, ACT_LD, place.row, tile.weights, W_LD,
                                    place.column);
    __syncthreads();
    encode_color(tile.features, source, tile.first, tile.act);
    copy_weights<COLOR_IN, HIDDEN>(tile.weights, W_LD, weights + W_COLOR, HIDDEN);
    __syncthreads();
    if (inputs) save<COLOR_IN>(inputs + IN_COLOR, INPUTS, tile.act);
    multiply<COLOR_IN, HIDDEN, false>(product, tile.act, ACT_LD, place.row, tile.weights, W_LD,
                                      place.column);
    __syncthreads();
    first_mask.set(product);
    store_relu(product, tile.act, place);
    copy_weights<HIDDEN, HIDDEN>(tile.weights, W_LD, weights + W_HIDDEN, HIDDEN);
    __syncthreads();
    if (inputs) save<HIDDEN>(inputs + IN_HIDDEN, INPUTS, tile.act);
    product.clear();
    multiply<HIDDEN, HIDDEN, false>(product, tile.act, ACT_LD, place.row, tile.weights, W_LD,
                                    place.column);
    second_mask.set(product);
    __syncthreads();
    if (inputs) {  // the last layer's input serves the decoder's gradient alone
        store_relu(product, tile.act, place);
        __syncthreads();
        save<HIDDEN>(inputs + IN_OUT, INPUTS, tile.act);
        __syncthreads();
    }

    // And back: colour output, second and first hidden layer. The output's few weights go where the
    // activations were, so the hidden layer's can stay for its own way back.
    copy_weights<HIDDEN, HEAD>(tile.act, HEAD_LD, weights + W_OUT, HEAD);
    __syncthreads();
    product.clear();
    multiply<HEAD, HIDDEN, true>(product, head_grad, HEAD_LD, place.row, tile.act, HEAD_LD,
                                 place.column);
    if (layer_grads)
        save_head(layer_grads + GRAD_HEAD, head_grad, scales, largest_in);
    __syncthreads();
    store_masked(product, second_mask, tile.act, place);
    __syncthreads();
    if (layer_grads)
        save_scaled<HIDDEN, &Scales::color>(layer_grads + GRAD_HIDDEN, tile.act, scales,
                                            largest_in[0]);
    product.clear();
    multiply<HIDDEN, HIDDEN, true>(product, tile.act, ACT_LD, place.row, tile.weights, W_LD,
                                   place.column);
    __syncthreads();
    store_masked(product, first_mask, tile.act, place);
    copy_weights<HIDDEN, HIDDEN + HEAD>(tile.weights, GEOMETRY_LD, weights + W_GEOMETRY,
                                        HIDDEN + HEAD);
    __syncthreads();
    if (layer_grads)
        save_scaled<HIDDEN, &Scales::color>(layer_grads + GRAD_COLOR, tile.act, scales,
                                            largest_in[0]);

    // Density's hidden layer hears from colour and from log density; softplus' slope is
    // 1 - exp(-softplus). Its gradient waits in registers while the colour encodings take theirs.
    product.clear();
    multiply<HIDDEN, HIDDEN, true>(product, tile.act, ACT_LD, place.row, tile.weights, GEOMETRY_LD,
                                   place.column);
    rescale(product, scales, place);
    multiply<HEAD, HIDDEN, true>(product, head_grad, HEAD_LD, place.row, tile.weights + HIDDEN,
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
    __syncthreads();

    float* feature_grad = (float*)(shared + AT_FEATURE_GRAD);
    if (planes_grad) {
        copy_weights<COLOR_GRADS, HIDDEN>(tile.weights, W_LD, weights + W_COLOR, HIDDEN);
        __syncthreads();
        Held color_grad[PASSES];
#pragma unroll
        for (int pass = 0; pass < PASSES; pass++) {
            product.clear();
            multiply<HIDDEN, COLOR_GRADS, true>(product, tile.act, ACT_LD, place.row, tile.weights,
                                                W_LD, place.column + pass * HIDDEN);
            hold(color_grad[pass], product);
        }
        __syncthreads();
#pragma unroll
        for (int pass = 0; pass < PASSES; pass++)
            store_held<COLOR_GRADS>(color_grad[pass], tile.act, place, pass);
        __syncthreads();
        encoding_backward<0, COLOR_CHANNELS, &Scales::color>(tile.features, tile.act, scales,
                                                             feature_grad);
        copy_weights<DENSITY_GRADS, HIDDEN>(tile.weights, W_LD, weights + W_DENSITY, HIDDEN);
        __syncthreads();
    }
    store_held<HIDDEN>(density_grad, tile.act, place, 0);
    __syncthreads();
    if (layer_grads)
        save_scaled<HIDDEN, &Scales::merged>(layer_grads + GRAD_DENSITY, tile.act, scales,
                                             larger(largest_in[0], largest_in[1]));
    if (planes_grad) {
        product.clear();
        multiply<HIDDEN, DENSITY_GRADS, true>(product, tile.act, ACT_LD, place.row, tile.weights,
                                              W_LD, place.column);
        hold(softplus_value, product);
        __syncthreads();
        store_held<DENSITY_GRADS>(softplus_value, tile.act, place, 0);
        __syncthreads();
        encoding_backward<COLOR_CHANNELS, DENSITY_CHANNELS, &Scales::merged>(
            tile.features, tile.act, scales, feature_grad);
        __syncthreads();
        scatter(planes, tile.points, feature_grad, scales, planes_grad);
    }
}
