// Ray marching over an occupancy bitfield: count, (scan in between), write.
//
// One warp per ray looks at 32 lattice points at a time: the ballot of those in occupied cells gives
// both the count and, by the bits below a lane's own, where that lane writes, so the samples come out
// near to far with no atomics and the same on every run. Thread per ray would leave a training step's
// 8192 rays far short of filling a GPU and diverge besides.
#include "device.cuh"

struct Rays {
    const float* origins;     // [R, 3]
    const float* directions;  // [R, 3], unit
    const float* jitter;      // [R] in [0, 1), or null: 0.5
    const int* triplane;      // [R] which grid, or null: 0
    int count;                // R
};

struct Lattice {
    float step;  // world units
    float near;  // no sample is closer
    float tiny;  // directions' components below this count as this
    int steps;   // lattice points of a ray
    int cells;   // G, along one side of the grid; bits are (x, y, z), x slowest
};

struct Ray {
    float origin[3];
    float direction[3];
    float first;
    float leave;
};

// No fused multiply-add below: the plain renderer rounds after each operation, and the same rounding
// is what makes every sample comparable to its own.
__device__ __forceinline__ Ray enter_box(const Rays& rays, const Lattice& lattice, int index) {
    Ray ray;
    float entry = -3e38f, leave = 3e38f;
    for (int axis = 0; axis < 3; axis++) {
        float o = rays.origins[3 * index + axis];
        float d = rays.directions[3 * index + axis];
        float safe = fabsf(d) < lattice.tiny ? lattice.tiny : d;
        float a = __fdiv_rn(__fsub_rn(-1.0f, o), safe);
        float b = __fdiv_rn(__fsub_rn(1.0f, o), safe);
        entry = larger(entry, smaller(a, b));  // NaN, a ray that is none, meets nothing
        leave = smaller(leave, larger(a, b));
        ray.origin[axis] = o;
        ray.direction[axis] = d;
    }
    float u = rays.jitter ? rays.jitter[index] : 0.5f;
    ray.first = __fadd_rn(larger(entry, lattice.near), __fmul_rn(u, lattice.step));
    ray.leave = leave;
    return ray;
}

__device__ __forceinline__ float lattice_point(const Ray& ray, const Lattice& lattice, int i) {
    return __fadd_rn(ray.first, __fmul_rn((float)i, lattice.step));
}

__device__ __forceinline__ bool occupied(const Ray& ray, const Lattice& lattice, float t,
                                         const unsigned* bits) {
    int cell = 0;
    float half_cells = 0.5f * lattice.cells;
    for (int axis = 0; axis < 3; axis++) {
        float p = __fadd_rn(ray.origin[axis], __fmul_rn(t, ray.direction[axis]));
        int index = (int)__fmul_rn(__fadd_rn(p, 1.0f), half_cells);
        index = min(max(index, 0), lattice.cells - 1);
        cell = cell * lattice.cells + index;
    }
    return bits[cell >> 5] >> (cell & 31) & 1u;
}

// Walks a ray; with WRITE stores ray and t of each sample from `start` on. Returns their number.
template <bool WRITE>
__device__ __forceinline__ int walk(const Rays& rays, const Lattice& lattice, const unsigned* bits,
                                    int index, int start, int* ray_out, float* t_out) {
    int lane = threadIdx.x & 31;
    Ray ray = enter_box(rays, lattice, index);
    int words = (lattice.cells * lattice.cells * lattice.cells + 31) / 32;
    if (rays.triplane) bits += (long long)rays.triplane[index] * words;
    int found = 0;
    for (int base = 0; base < lattice.steps; base += 32) {
        int i = base + lane;
        float t = lattice_point(ray, lattice, i);
        bool inside = i < lattice.steps && t < ray.leave;
        unsigned walking = __ballot_sync(FULL_WARP, inside);
        if (!walking) break;
        bool hit = inside && occupied(ray, lattice, t, bits);
        unsigned hits = __ballot_sync(FULL_WARP, hit);
        if (WRITE && hit) {
            int slot = start + found + __popc(hits & ((1u << lane) - 1u));
            ray_out[slot] = index;
            t_out[slot] = t;
        }
        found += __popc(hits);
    }
    return found;
}

extern "C" __global__ void __launch_bounds__(128)
    march_count(Rays rays, Lattice lattice, const unsigned* bits, int* counts) {
    int index = (blockIdx.x * blockDim.x + threadIdx.x) / 32;
    if (index >= rays.count) return;
    int found = walk<false>(rays, lattice, bits, index, 0, nullptr, nullptr);
    if ((threadIdx.x & 31) == 0) counts[index] = found;
}

// offsets: first sample of each ray, [R + 1].
extern "C" __global__ void __launch_bounds__(128)
    march_write(Rays rays, Lattice lattice, const unsigned* bits, const int* offsets, int* ray_out,
                float* t_out) {
    int index = (blockIdx.x * blockDim.x + threadIdx.x) / 32;
    if (index >= rays.count || offsets[index] == offsets[index + 1]) return;
    walk<true>(rays, lattice, bits, index, offsets[index], ray_out, t_out);
}

// [count] bytes, zero or not, to bits; the last word is filled with zeros.
extern "C" __global__ void __launch_bounds__(128)
    pack_bits(const unsigned char* bytes, unsigned* bits, int count) {
    int index = blockIdx.x * blockDim.x + threadIdx.x;
    unsigned word = __ballot_sync(FULL_WARP, index < count && bytes[index]);
    if ((threadIdx.x & 31) == 0 && index < count) bits[index >> 5] = word;
}
