// Frequency encoding of the tile's features and directions, and its gradient.
//
// x, sin x, cos x, sin 2x, cos 2x, ...: each octave follows from the one before by the double-angle
// formulas, so there is one sine and one cosine per value. Their fast forms are exact to 2^-21 on the
// small arguments here, well below the halves they end as.
#pragma once
#include "samples.cuh"

// `part` values apart lie the encodings of one value.
__device__ __forceinline__ void encode_value(half_t* out, int part, float x) {
    out[0] = to_half(x);
    float sine, cosine;
    __sincosf(x, &sine, &cosine);
#pragma unroll
    for (int k = 0; k < FREQUENCIES; k++) {
        out[(1 + 2 * k) * part] = to_half(sine);
        out[(2 + 2 * k) * part] = to_half(cosine);
        float doubled = 2.0f * sine * cosine;
        cosine = 1.0f - 2.0f * sine * sine;
        sine = doubled;
    }
}

// d loss / d x from the gradients of x's encodings.
__device__ __forceinline__ float encode_gradient(const half_t* grad, int part, float x) {
    float sine, cosine, total = to_float(grad[0]);
    __sincosf(x, &sine, &cosine);
    float factor = 1.0f;
#pragma unroll
    for (int k = 0; k < FREQUENCIES; k++) {
        total += factor * (to_float(grad[(1 + 2 * k) * part]) * cosine -
                           to_float(grad[(2 + 2 * k) * part]) * sine);
        float doubled = 2.0f * sine * cosine;
        cosine = 1.0f - 2.0f * sine * sine;
        sine = doubled;
        factor *= 2.0f;
    }
    return total;
}

// Columns USED ... WIDTH of the tile: the constant 1, then zeros.
template <int USED, int WIDTH>
__device__ __forceinline__ void pad(half_t* act) {
#pragma unroll 1
    for (int item = tile_thread(); item < TILE * (WIDTH - USED); item += THREADS) {
        int s = item / (WIDTH - USED), c = item % (WIDTH - USED);
        act[s * ACT_LD + USED + c] = to_half(c == 0 ? 1.0f : 0.0f);
    }
}

__device__ __forceinline__ void encode_density(const half_t* features, half_t* act) {
#pragma unroll 1
    for (int item = tile_thread(); item < TILE * DENSITY_CHANNELS; item += THREADS) {
        int s = item / DENSITY_CHANNELS, c = item % DENSITY_CHANNELS;
        float x = to_float(features[s * FEATURE_LD + COLOR_CHANNELS + c]);
        encode_value(act + s * ACT_LD + c, DENSITY_CHANNELS, x);
    }
    pad<DENSITY_ENCODED, DENSITY_IN>(act);
}

__device__ __forceinline__ void encode_color(const half_t* features, const Source& source, int first,
                                             half_t* act) {
#pragma unroll 1
    for (int item = tile_thread(); item < TILE * COLOR_CHANNELS; item += THREADS) {
        int s = item / COLOR_CHANNELS, c = item % COLOR_CHANNELS;
        encode_value(act + s * ACT_LD + c, COLOR_CHANNELS,
                     to_float(features[s * FEATURE_LD + c]));
    }
#pragma unroll 1
    for (int item = tile_thread(); item < TILE * 3; item += THREADS) {
        int s = item / 3, axis = item % 3;
        float x = first + s < source.count
                      ? source.directions[3 * source.ray[first + s] + axis]
                      : 0.0f;
        encode_value(act + s * ACT_LD + COLOR_ENCODED + axis, 3, x);
    }
    pad<COLOR_ENCODED + 3 * ENCODED, COLOR_IN>(act);
}

// Gradients of channels FIRST ... FIRST + COUNT from those of their encodings and their scale.
template <int FIRST, int COUNT, float Scales::*SCALE>
__device__ __forceinline__ void encoding_backward(const half_t* features, const half_t* act,
                                                  const ScaleTable& scales, float* feature_grad) {
#pragma unroll 1
    for (int item = tile_thread(); item < TILE * COUNT; item += THREADS) {
        int s = item / COUNT, c = item % COUNT;
        float x = to_float(features[s * FEATURE_LD + FIRST + c]);
        feature_grad[s * FEATURE_GRAD_LD + FIRST + c] =
            scales[s].*SCALE * encode_gradient(act + s * ACT_LD + c, COUNT, x);
    }
}
