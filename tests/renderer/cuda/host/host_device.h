// The kernels' primitives on the host: a block's threads are fibres of one OS thread.
//
// A fibre runs until it meets a barrier, a shuffle or a matrix product, and is resumed when all the
// threads concerned have arrived. The order in which fibres run can be reversed, so that a missing
// barrier shows as a wrong result under one order or the other. Shared memory begins as NaN, and a
// guard behind it is checked.
#pragma once
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <algorithm>
#include <tuple>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)

typedef uint16_t half_t;
using std::max;
using std::min;

constexpr unsigned FULL_WARP = 0xffffffffu;

struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

namespace host {

struct Dim {
    unsigned x, y, z;
};

constexpr size_t STACK = 128 * 1024;
constexpr size_t GUARD = 256;

// What one lane hands to its warp; two sets, so that a fast lane cannot overwrite what others read.
struct Slots {
    float values[32];
    unsigned predicates[32];
    float a[256], b[256], c[256];
};

struct Warp {
    int arrived = 0, alive = 0;
    unsigned generation = 0;
    Slots slots[2];
};

// A barrier of some of a block's threads.
struct Group {
    int arrived = 0;
    unsigned generation = 0;
};

struct Fibre {
    ucontext_t context;
    std::vector<char> stack;
    Dim thread;
    int warp;
    unsigned collectives;
    bool done, waiting_block, waiting_warp;
    Group* waiting_group;
    unsigned seen;
};

struct State {
    std::vector<Fibre> fibres;
    std::vector<Warp> warps;
    Group groups[16];
    ucontext_t scheduler;
    Fibre* current;
    Dim block, block_dim, grid_dim;
    int arrived, alive;
    unsigned generation;
    std::vector<unsigned char> memory;
    unsigned char* shared;
    void (*body)(void*);
    void* argument;
};

inline State state;

inline void yield() { swapcontext(&state.current->context, &state.scheduler); }

inline void release(int& arrived, unsigned& generation) {
    arrived = 0;
    generation++;
}

inline void block_barrier() {
    unsigned mine = state.generation;
    if (++state.arrived == state.alive) release(state.arrived, state.generation);
    while (state.generation == mine) {
        state.current->waiting_block = true;
        state.current->seen = mine;
        yield();
    }
    state.current->waiting_block = false;
}

inline void group_barrier(int number, int threads) {
    Group& group = state.groups[number];
    unsigned mine = group.generation;
    if (++group.arrived == threads) release(group.arrived, group.generation);
    while (group.generation == mine) {
        state.current->waiting_group = &group;
        state.current->seen = mine;
        yield();
    }
    state.current->waiting_group = nullptr;
}

// `last` runs once, in the lane that arrives last.
template <class Last>
inline void warp_barrier(Last last) {
    Warp& warp = state.warps[state.current->warp];
    unsigned mine = warp.generation;
    if (++warp.arrived == warp.alive) {
        last();
        release(warp.arrived, warp.generation);
    }
    while (warp.generation == mine) {
        state.current->waiting_warp = true;
        state.current->seen = mine;
        yield();
    }
    state.current->waiting_warp = false;
}

inline int lane() { return state.current->thread.x & 31; }

inline Slots& next_slots() {
    return state.warps[state.current->warp].slots[state.current->collectives++ & 1];
}

inline void entry() {
    Fibre* self = state.current;
    state.body(state.argument);
    self->done = true;
    // Threads that have left no longer count at barriers.
    Warp& warp = state.warps[self->warp];
    warp.alive--;
    state.alive--;
    if (warp.alive && warp.arrived == warp.alive) {
        fprintf(stderr, "host launch: a lane left while its warp waited\n");
        abort();
    }
    if (state.alive && state.arrived == state.alive) release(state.arrived, state.generation);
    swapcontext(&self->context, &state.scheduler);
}

inline bool runnable(const Fibre& fibre) {
    if (fibre.done) return false;
    if (fibre.waiting_block) return state.generation != fibre.seen;
    if (fibre.waiting_group) return fibre.waiting_group->generation != fibre.seen;
    if (fibre.waiting_warp) return state.warps[fibre.warp].generation != fibre.seen;
    return true;
}

inline int run_block(unsigned threads, bool reversed) {
    state.arrived = 0;
    state.alive = threads;
    state.generation = 0;
    for (Group& group : state.groups) group = Group();
    state.warps.assign((threads + 31) / 32, Warp());
    state.fibres.resize(threads);
    for (unsigned i = 0; i < threads; i++) {
        Fibre& fibre = state.fibres[i];
        fibre.stack.resize(STACK);
        fibre.thread = {i, 0, 0};
        fibre.warp = i / 32;
        fibre.collectives = 0;
        fibre.done = fibre.waiting_block = fibre.waiting_warp = false;
        fibre.waiting_group = nullptr;
        state.warps[fibre.warp].alive++;
        getcontext(&fibre.context);
        fibre.context.uc_stack.ss_sp = fibre.stack.data();
        fibre.context.uc_stack.ss_size = STACK;
        fibre.context.uc_link = nullptr;
        makecontext(&fibre.context, entry, 0);
    }
    for (bool progress = true; progress;) {
        progress = false;
        for (unsigned i = 0; i < threads; i++) {
            Fibre& fibre = state.fibres[reversed ? threads - 1 - i : i];
            if (!runnable(fibre)) continue;
            state.current = &fibre;
            swapcontext(&state.scheduler, &fibre.context);
            progress = true;
        }
    }
    return state.alive ? 1 : 0;  // some wait at a barrier that others never reach
}

template <class... A, size_t... I>
void call(void (*kernel)(A...), void** arguments, std::index_sequence<I...>) {
    kernel(*static_cast<A*>(arguments[I])...);
}

// 0: ran; 1: deadlock; 2: wrote behind its shared memory.
template <class... A>
int launch(void (*kernel)(A...), unsigned grid_x, unsigned grid_y, unsigned threads,
           unsigned shared, void** arguments, int reversed) {
    struct Bound {
        void (*kernel)(A...);
        void** arguments;
    } bound{kernel, arguments};
    state.argument = &bound;
    state.body = [](void* raw) {
        Bound* b = static_cast<Bound*>(raw);
        call(b->kernel, b->arguments, std::index_sequence_for<A...>());
    };
    state.grid_dim = {grid_x, grid_y, 1};
    state.block_dim = {threads, 1, 1};
    state.memory.resize(shared + GUARD + 128);
    state.shared = state.memory.data() + (128 - (uintptr_t)state.memory.data() % 128) % 128;
    for (unsigned y = 0; y < grid_y; y++)
        for (unsigned x = 0; x < grid_x; x++) {
            state.block = {x, y, 0};
            memset(state.shared, 0xff, shared);
            memset(state.shared + shared, 0x5a, GUARD);
            if (run_block(threads, reversed)) return 1;
            for (size_t i = 0; i < GUARD; i++)
                if (state.shared[shared + i] != 0x5a) return 2;
        }
    return 0;
}

}  // namespace host

#define threadIdx (host::state.current->thread)
#define blockIdx (host::state.block)
#define blockDim (host::state.block_dim)
#define gridDim (host::state.grid_dim)
#define DYNAMIC_SHARED(name) unsigned char* name = host::state.shared
#define TRIAVATAR_HOST_KERNEL(name)                                                              \
    extern "C" int host_##name(unsigned x, unsigned y, unsigned threads, unsigned shared,        \
                               void** arguments, int reversed) {                                 \
        return host::launch(name, x, y, threads, shared, arguments, reversed);                   \
    }

inline void __syncthreads() { host::block_barrier(); }
inline void group_barrier(int number, int threads) { host::group_barrier(number, threads); }
inline void __syncwarp() {
    host::warp_barrier([] {});
}

// IEEE half, round to nearest even: _Float16 does in the compiler what cvt does on the device.
inline half_t to_half(float value) {
    _Float16 h = (_Float16)value;
    half_t bits;
    memcpy(&bits, &h, 2);
    return bits;
}
inline float to_float(half_t bits) {
    _Float16 h;
    memcpy(&h, &bits, 2);
    return (float)h;
}

inline float larger(float a, float b) { return a > b || a != a ? a : b; }
inline float smaller(float a, float b) { return a < b || a != a ? a : b; }

inline void settle(unsigned&) {}

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline void __sincosf(float x, float* s, float* c) {
    *s = sinf(x);
    *c = cosf(x);
}
inline float __fdividef(float a, float b) { return a / b; }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __float_as_int(float x) {
    int bits;
    memcpy(&bits, &x, 4);
    return bits;
}
template <class T>
inline T __ldg(const T* p) {
    return *p;
}

inline float atomicAdd(float* target, float value) {
    float old = *target;
    *target = old + value;
    return old;
}
inline int atomicMax(int* target, int value) {
    int old = *target;
    *target = std::max(old, value);
    return old;
}
inline void reduce_add(float* target, float a, float b, float c, float d) {
    if ((uintptr_t)target % 16) {
        fprintf(stderr, "host launch: unaligned vector reduction\n");
        abort();
    }
    target[0] += a;
    target[1] += b;
    target[2] += c;
    target[3] += d;
}

inline void reduce_add(float* target, float a) { *target += a; }

inline float host_exchange(float value, int source) {
    host::Slots& slots = host::next_slots();
    slots.values[host::lane()] = value;
    host::warp_barrier([] {});
    return slots.values[source];
}
inline float __shfl_sync(unsigned, float value, int source) { return host_exchange(value, source); }
inline float __shfl_xor_sync(unsigned, float value, int mask) {
    return host_exchange(value, host::lane() ^ mask);
}
inline float __shfl_up_sync(unsigned, float value, int delta) {
    int source = host::lane() - delta;
    return host_exchange(value, source < 0 ? host::lane() : source);
}
inline unsigned __ballot_sync(unsigned, bool predicate) {
    host::Slots& slots = host::next_slots();
    slots.predicates[host::lane()] = predicate;
    host::warp_barrier([] {});
    unsigned bits = 0;
    for (int i = 0; i < 32; i++) bits |= (unsigned)(slots.predicates[i] != 0) << i;
    return bits;
}

// Fragments: element e of lane l is entry 8 * l + e of the row-major 16 x 16 matrix, permuted so that
// code which assumes a simple layout fails.
inline int host_entry(int lane, int element) { return (8 * lane + element) * 37 % 256; }

struct Operand {
    float value[8];
};
struct Accumulator {
    float value[8];
};

inline void host_aligned(const void* p, int stride) {
    if ((uintptr_t)p % 32 || stride % 8) {
        fprintf(stderr, "host launch: matrix fragment not aligned\n");
        abort();
    }
}

template <bool TRANSPOSED>
inline void load_a(Operand& f, const half_t* source, int stride) {
    host_aligned(source, stride);
    for (int e = 0; e < 8; e++) {
        int i = host_entry(host::lane(), e), row = i / 16, column = i % 16;
        f.value[e] = to_float(TRANSPOSED ? source[column * stride + row]
                                         : source[row * stride + column]);
    }
}
template <bool TRANSPOSED>
inline void load_b(Operand& f, const half_t* source, int stride) {
    load_a<TRANSPOSED>(f, source, stride);
}
template <bool A_TRANSPOSED, bool B_TRANSPOSED>
inline void multiply_add(Accumulator& c, const Operand& a, const Operand& b) {
    host::Slots& slots = host::next_slots();
    int lane = host::lane();
    for (int e = 0; e < 8; e++) {
        int i = host_entry(lane, e);
        slots.a[i] = a.value[e];
        slots.b[i] = b.value[e];
        slots.c[i] = c.value[e];
    }
    host::warp_barrier([&slots] {
        for (int i = 0; i < 16; i++)
            for (int k = 0; k < 16; k++)
                for (int j = 0; j < 16; j++)
                    slots.c[16 * i + j] += slots.a[16 * i + k] * slots.b[16 * k + j];
    });
    for (int e = 0; e < 8; e++) c.value[e] = slots.c[host_entry(lane, e)];
}
inline void load_accumulator(Accumulator& c, const float* source) {
    host_aligned(source, 16);
    for (int e = 0; e < 8; e++) c.value[e] = source[host_entry(host::lane(), e)];
}
