// What the backward pass holds, masks, scales and hands on; see field_backward.cu.
#pragma once
#include "tile.cuh"
#include "workspace.cuh"

// Below the smallest normal number a reciprocal overflows: such a gradient does not count. One that
// is not finite does, and leaves nothing finite.
__device__ __forceinline__ bool vanishes(float scale) { return scale <= 1e-37f; }
__device__ __forceinline__ float reciprocal(float scale) {
    return vanishes(scale) ? 0.0f : 1.0f / scale;
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
    for (int item = tile_thread(); item < TILE * (WIDTH / 8); item += THREADS) {
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
    for (int item = tile_thread(); item < TILE * (WIDTH / 2); item += THREADS) {
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
    for (int s = tile_thread(); s < TILE; s += THREADS) {
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
    for (int item = tile_thread(); item < TILE * HEAD; item += THREADS) {
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
