// One optimiser step of the planes in one pass over memory: regularisers' gradients, Adam, clamp, and
// the half-precision copy that the field reads. 30 bytes move per value; separate operations move
// some 500.
#include "device.cuh"

struct PlaneStep {
    int planes, height, width;
    int quads;            // channels / 4; memory is [planes, height, width, channels]
    float rate;           // learning rate / (1 - beta1^step)
    float beta1, beta2;
    float root;           // 1 / sqrt(1 - beta2^step)
    float epsilon;
    float along_h, along_w;  // total variation: weight * 2 / number of differences
    float l1, l2;            // weight / number of values, and twice that
};

__device__ __forceinline__ float4 load4(const float* base, long long quad) {
    return __ldg((const float4*)base + quad);
}

// What the regularisers see: the value minus its reference, where there is one.
__device__ __forceinline__ float4 offset4(const float* planes, const float* reference,
                                          long long quad) {
    float4 p = load4(planes, quad);
    if (reference) {
        float4 r = load4(reference, quad);
        p.x -= r.x;
        p.y -= r.y;
        p.z -= r.z;
        p.w -= r.w;
    }
    return p;
}

// d/dd of factor / 2 * (d - neighbour)^2; no neighbour beyond the edge.
__device__ __forceinline__ void pull(float4& g, const float4& d, const float* planes,
                                     const float* reference, long long quad, bool exists,
                                     float factor) {
    if (!exists) return;
    float4 n = offset4(planes, reference, quad);
    g.x += factor * (d.x - n.x);
    g.y += factor * (d.y - n.y);
    g.z += factor * (d.z - n.z);
    g.w += factor * (d.w - n.w);
}

__device__ __forceinline__ float sign(float x) { return x > 0.0f ? 1.0f : x < 0.0f ? -1.0f : 0.0f; }

__device__ __forceinline__ float adam(float p, float d, float g, float& mean, float& square,
                                      const PlaneStep& s) {
    g += s.l1 * sign(d) + s.l2 * d;
    mean = s.beta1 * mean + (1.0f - s.beta1) * g;
    square = s.beta2 * square + (1.0f - s.beta2) * g * g;
    float moved = p - s.rate * mean / (sqrtf(square) * s.root + s.epsilon);
    return smaller(larger(moved, -1.0f), 1.0f);
}

// Each thread takes four channels of a texel. The new values go to another buffer, since neighbours'
// old ones are still being read.
extern "C" __global__ void __launch_bounds__(256)
    plane_step(const float* planes, const float* grad, const float* reference, float* mean,
               float* square, float* planes_out, half_t* half_out, PlaneStep s) {
    long long quad = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    long long total = (long long)s.planes * s.height * s.width * s.quads;
    if (quad >= total) return;
    int texel = (int)(quad / s.quads), x = texel % s.width, y = texel / s.width % s.height;
    long long row = (long long)s.width * s.quads;
    float4 p = load4(planes, quad), d = offset4(planes, reference, quad), g = load4(grad, quad);
    pull(g, d, planes, reference, quad - s.quads, x > 0, s.along_w);
    pull(g, d, planes, reference, quad + s.quads, x + 1 < s.width, s.along_w);
    pull(g, d, planes, reference, quad - row, y > 0, s.along_h);
    pull(g, d, planes, reference, quad + row, y + 1 < s.height, s.along_h);
    float4 m = ((float4*)mean)[quad], v = ((float4*)square)[quad], out;
    out.x = adam(p.x, d.x, g.x, m.x, v.x, s);
    out.y = adam(p.y, d.y, g.y, m.y, v.y, s);
    out.z = adam(p.z, d.z, g.z, m.z, v.z, s);
    out.w = adam(p.w, d.w, g.w, m.w, v.w, s);
    ((float4*)mean)[quad] = m;
    ((float4*)square)[quad] = v;
    ((float4*)planes_out)[quad] = out;
    uint2 halves;
    halves.x = to_half(out.x) | (unsigned)to_half(out.y) << 16;
    halves.y = to_half(out.z) | (unsigned)to_half(out.w) << 16;
    ((uint2*)half_out)[quad] = halves;
}
