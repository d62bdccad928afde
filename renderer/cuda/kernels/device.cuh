// The primitives the kernels are written with.
//
// Everything the CUDA headers would give for half precision and matrix fragments is a few lines of
// PTX here, the same on sm_70 ... sm_120, so that the only thing needed at run time is NVRTC itself.
// The tests compile the kernels for the host by putting another implementation of this list in
// host_device.h.
#pragma once

#ifdef TRIAVATAR_HOST
#include "host_device.h"
#else

// The 16 bits of an IEEE half.
typedef unsigned short half_t;

constexpr unsigned FULL_WARP = 0xffffffffu;

#define DYNAMIC_SHARED(name) extern __shared__ __align__(128) unsigned char name[]

__device__ __forceinline__ half_t to_half(float value) {
    half_t bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}

__device__ __forceinline__ float to_float(half_t bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}

// The larger and the smaller of two, and NaN if either is: fmaxf and fminf return the other one, and
// what is broken would pass for a number.
__device__ __forceinline__ float larger(float a, float b) {
#if __CUDA_ARCH__ >= 800
    float value;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(value) : "f"(a), "f"(b));
    return value;
#else
    return a > b || a != a ? a : b;
#endif
}

__device__ __forceinline__ float smaller(float a, float b) {
#if __CUDA_ARCH__ >= 800
    float value;
    asm("min.NaN.f32 %0, %1, %2;" : "=f"(value) : "f"(a), "f"(b));
    return value;
#else
    return a < b || a != a ? a : b;
#endif
}

// Makes the compiler compute a value here; else it may keep the many values it is made of until it is
// used.
__device__ __forceinline__ void settle(unsigned& value) { asm volatile("" : "+r"(value)); }

// Waits for `threads` threads, whole warps, that call it with this number (1 ... 15).
__device__ __forceinline__ void group_barrier(int number, int threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(number), "r"(threads) : "memory");
}

// Adds four neighbouring floats in global memory, 16-byte aligned; one transaction on sm_90.
__device__ __forceinline__ void reduce_add(float* target, float a, float b, float c, float d) {
#if __CUDA_ARCH__ >= 900
    asm volatile("red.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(target), "f"(a), "f"(b),
                 "f"(c), "f"(d)
                 : "memory");
#else
    atomicAdd(target, a);
    atomicAdd(target + 1, b);
    atomicAdd(target + 2, c);
    atomicAdd(target + 3, d);
#endif
}

__device__ __forceinline__ void reduce_add(float* target, float a) { atomicAdd(target, a); }

// A warp's 16 x 16 operands and result. Which lane holds which element is the hardware's business;
// `positions` finds it out where a kernel has to know.
struct Operand {
    unsigned bits[8];
};
struct Accumulator {
    float value[8];
};

#define TRIAVATAR_LOAD(kind, layout)                                                               \
    asm volatile("wmma.load." kind ".sync.aligned." layout                                         \
                 ".m16n16k16.shared.f16 {%0, %1, %2, %3, %4, %5, %6, %7}, [%8], %9;"               \
                 : "=r"(f.bits[0]), "=r"(f.bits[1]), "=r"(f.bits[2]), "=r"(f.bits[3]),             \
                   "=r"(f.bits[4]), "=r"(f.bits[5]), "=r"(f.bits[6]), "=r"(f.bits[7])              \
                 : "r"(address), "r"(stride)                                                       \
                 : "memory")

// A (16 rows x 16 inner) from shared memory; TRANSPOSED: stored as inner x rows.
template <bool TRANSPOSED>
__device__ __forceinline__ void load_a(Operand& f, const half_t* source, int stride) {
    unsigned address = (unsigned)__cvta_generic_to_shared(source);
    if (TRANSPOSED)
        TRIAVATAR_LOAD("a", "col");
    else
        TRIAVATAR_LOAD("a", "row");
}

// B (16 inner x 16 columns) from shared memory; TRANSPOSED: stored as columns x inner.
template <bool TRANSPOSED>
__device__ __forceinline__ void load_b(Operand& f, const half_t* source, int stride) {
    unsigned address = (unsigned)__cvta_generic_to_shared(source);
    if (TRANSPOSED)
        TRIAVATAR_LOAD("b", "col");
    else
        TRIAVATAR_LOAD("b", "row");
}

#define TRIAVATAR_MULTIPLY(layouts)                                                                \
    asm volatile("wmma.mma.sync.aligned." layouts                                                  \
                 ".m16n16k16.f32.f32 {%0, %1, %2, %3, %4, %5, %6, %7}, "                           \
                 "{%8, %9, %10, %11, %12, %13, %14, %15}, "                                        \
                 "{%16, %17, %18, %19, %20, %21, %22, %23}, {%0, %1, %2, %3, %4, %5, %6, %7};"     \
                 : "+f"(c.value[0]), "+f"(c.value[1]), "+f"(c.value[2]), "+f"(c.value[3]),         \
                   "+f"(c.value[4]), "+f"(c.value[5]), "+f"(c.value[6]), "+f"(c.value[7])          \
                 : "r"(a.bits[0]), "r"(a.bits[1]), "r"(a.bits[2]), "r"(a.bits[3]),                 \
                   "r"(a.bits[4]), "r"(a.bits[5]), "r"(a.bits[6]), "r"(a.bits[7]),                 \
                   "r"(b.bits[0]), "r"(b.bits[1]), "r"(b.bits[2]), "r"(b.bits[3]),                 \
                   "r"(b.bits[4]), "r"(b.bits[5]), "r"(b.bits[6]), "r"(b.bits[7]))

// c += a * b on tensor cores, fp32 sums. The flags repeat how a and b were loaded.
template <bool A_TRANSPOSED, bool B_TRANSPOSED>
__device__ __forceinline__ void multiply_add(Accumulator& c, const Operand& a, const Operand& b) {
    if (A_TRANSPOSED && B_TRANSPOSED)
        TRIAVATAR_MULTIPLY("col.col");
    else if (A_TRANSPOSED)
        TRIAVATAR_MULTIPLY("col.row");
    else if (B_TRANSPOSED)
        TRIAVATAR_MULTIPLY("row.col");
    else
        TRIAVATAR_MULTIPLY("row.row");
}

// A 16 x 16 fp32 matrix (row major, stride 16) from shared memory.
__device__ __forceinline__ void load_accumulator(Accumulator& c, const float* source) {
    unsigned address = (unsigned)__cvta_generic_to_shared(source);
    asm volatile("wmma.load.c.sync.aligned.row.m16n16k16.shared.f32 "
                 "{%0, %1, %2, %3, %4, %5, %6, %7}, [%8], %9;"
                 : "=f"(c.value[0]), "=f"(c.value[1]), "=f"(c.value[2]), "=f"(c.value[3]),
                   "=f"(c.value[4]), "=f"(c.value[5]), "=f"(c.value[6]), "=f"(c.value[7])
                 : "r"(address), "r"(16)
                 : "memory");
}

#endif
