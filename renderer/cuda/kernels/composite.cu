// Compositing, one warp per ray, 32 samples at a time, and its backward pass.
//
// tau_i = min(sigma_i * step, 100), T_i = exp(-sum of tau before i), w_i = T_i * (1 - exp(-tau_i)),
// and w_i = 0 from the first sample with T_i < stop on, so a warp leaves its ray there. A density that
// is NaN makes everything behind it NaN.
#include "warp.cuh"

// exp(-100) is far below fp32's resolution next to 1.
constexpr float MAX_OPTICAL_DEPTH = 100.0f;

struct Contribution {
    float tau;            // capped optical depth of the sample
    float transmittance;  // before the sample
    float weight;
    bool counts;          // the sample exists and light still reaches it
};

// The warp's samples begin + base + lane; `depth` is the optical depth before them.
__device__ __forceinline__ Contribution contribution(const float* density, int index, int end,
                                                     float step, float stop, float& depth) {
    int lane = threadIdx.x & 31;
    Contribution c;
    c.tau = index < end ? smaller(density[index] * step, MAX_OPTICAL_DEPTH) : 0.0f;
    float running = warp_running_sum(c.tau, lane);
    float before = __shfl_up_sync(FULL_WARP, running, 1);
    c.transmittance = expf(-(depth + (lane ? before : 0.0f)));
    c.counts = index < end && !(c.transmittance < stop);
    c.weight = c.counts ? c.transmittance * -expm1f(-c.tau) : 0.0f;
    depth += __shfl_sync(FULL_WARP, running, 31);
    return c;
}

// kept [R]: how many samples of each ray have no transmittance < stop; they are the ray's first.
extern "C" __global__ void __launch_bounds__(128)
    count_visible(const float* density, const int* offsets, float step, float stop, int* kept,
                  int rays) {
    int ray = (blockIdx.x * blockDim.x + threadIdx.x) / 32;
    if (ray >= rays) return;
    int begin = offsets[ray], end = offsets[ray + 1], total = 0;
    float depth = 0.0f;
    for (int base = begin; base < end; base += 32) {
        int index = base + (threadIdx.x & 31);
        Contribution c = contribution(density, index, end, step, stop, depth);
        total += __popc(__ballot_sync(FULL_WARP, c.counts));
        if (expf(-depth) < stop) break;
    }
    if ((threadIdx.x & 31) == 0) kept[ray] = total;
}

// Copies each ray's first samples to their new places.
extern "C" __global__ void __launch_bounds__(128)
    keep_visible(const float* t, const int* offsets, const int* new_offsets, int* ray_out,
                 float* t_out, int rays) {
    int ray = (blockIdx.x * blockDim.x + threadIdx.x) / 32;
    if (ray >= rays) return;
    int from = offsets[ray], to = new_offsets[ray], count = new_offsets[ray + 1] - to;
    for (int i = threadIdx.x & 31; i < count; i += 32) {
        ray_out[to + i] = ray;
        t_out[to + i] = t[from + i];
    }
}

// color [S, 3]; background [3] (background_stride 0) or [R, 3] (3).
extern "C" __global__ void __launch_bounds__(128)
    composite_forward(const float* density, const float* color, const float* t, const int* offsets,
                      const float* background, int background_stride, float step, float stop,
                      float* color_out, float* opacity_out, float* depth_out, int rays) {
    int ray = (blockIdx.x * blockDim.x + threadIdx.x) / 32;
    if (ray >= rays) return;
    int begin = offsets[ray], end = offsets[ray + 1];
    float optical = 0.0f, opacity = 0.0f, distance = 0.0f, r = 0.0f, g = 0.0f, b = 0.0f;
    for (int base = begin; base < end; base += 32) {
        int index = base + (threadIdx.x & 31);
        Contribution c = contribution(density, index, end, step, stop, optical);
        if (c.counts) {
            opacity += c.weight;
            distance += c.weight * t[index];
            r += c.weight * color[3 * index];
            g += c.weight * color[3 * index + 1];
            b += c.weight * color[3 * index + 2];
        }
        if (expf(-optical) < stop) break;
    }
    opacity = warp_sum(opacity);
    distance = warp_sum(distance);
    r = warp_sum(r);
    g = warp_sum(g);
    b = warp_sum(b);
    if ((threadIdx.x & 31) == 0) {
        const float* behind = background + ray * background_stride;
        color_out[3 * ray] = r + (1.0f - opacity) * behind[0];
        color_out[3 * ray + 1] = g + (1.0f - opacity) * behind[1];
        color_out[3 * ray + 2] = b + (1.0f - opacity) * behind[2];
        opacity_out[ray] = opacity;
        depth_out[ray] = distance / fmaxf(opacity, 1e-8f);
    }
}

// Gradients of density [S] and color [S, 3]; every entry is written. Two passes over the ray: a
// sample's density also dims all that lies behind it, so the first pass sums what each weight's
// gradient contributes in total, and the second subtracts what lies in front.
extern "C" __global__ void __launch_bounds__(128)
    composite_backward(const float* density, const float* color, const float* t,
                       const int* offsets, const float* background, int background_stride,
                       float step, float stop, const float* opacity_in, const float* depth_in,
                       const float* grad_color, const float* grad_opacity, const float* grad_depth,
                       float* density_out, float* color_out, int rays) {
    int ray = (blockIdx.x * blockDim.x + threadIdx.x) / 32;
    if (ray >= rays) return;
    int lane = threadIdx.x & 31, begin = offsets[ray], end = offsets[ray + 1];
    float gr = grad_color[3 * ray], gg = grad_color[3 * ray + 1], gb = grad_color[3 * ray + 2];
    const float* behind = background + ray * background_stride;
    // depth = distance / max(opacity, 1e-8)
    float opacity = opacity_in[ray];
    float for_distance = grad_depth[ray] / fmaxf(opacity, 1e-8f);
    float for_opacity = grad_opacity[ray] - gr * behind[0] - gg * behind[1] - gb * behind[2];
    if (opacity > 1e-8f) for_opacity -= for_distance * depth_in[ray];

    float total = 0.0f;
    for (int pass = 0; pass < 2; pass++) {
        float optical = 0.0f, in_front = 0.0f;
        bool dark = false;
        for (int base = begin; base < end; base += 32) {
            int index = base + lane;
            if (dark) {  // nothing behind contributes; its gradients are zero
                if (pass == 0) break;
                if (index < end) {
                    density_out[index] = 0.0f;
                    color_out[3 * index] = color_out[3 * index + 1] = 0.0f;
                    color_out[3 * index + 2] = 0.0f;
                }
                continue;
            }
            Contribution c = contribution(density, index, end, step, stop, optical);
            dark = expf(-optical) < stop;
            float for_weight = 0.0f;
            if (c.counts)
                for_weight = for_opacity + for_distance * t[index] + gr * color[3 * index] +
                             gg * color[3 * index + 1] + gb * color[3 * index + 2];
            float product = for_weight * c.weight;
            if (pass == 0) {
                total += product;
                continue;
            }
            float running = in_front + warp_running_sum(product, lane);
            if (index < end) {
                float for_tau = for_weight * c.transmittance * expf(-c.tau) - (total - running);
                bool capped = density[index] * step > MAX_OPTICAL_DEPTH;
                density_out[index] = c.counts && !capped ? for_tau * step : 0.0f;
                color_out[3 * index] = c.weight * gr;
                color_out[3 * index + 1] = c.weight * gg;
                color_out[3 * index + 2] = c.weight * gb;
            }
            in_front = __shfl_sync(FULL_WARP, running, 31);
        }
        if (pass == 0) total = warp_sum(total);
    }
}
