// One layer of the decoder for a tile of samples, on tensor cores.
//
// Activations stay in shared memory and are overwritten layer by layer: all warps finish reading
// before any writes. Where weights do not stay, a layer's are copied in just before it is used (they
// come from L2, less than 1 KB per sample), so the same code fits into 64 KB and lets several blocks
// share a larger multiprocessor, one computing while another waits.
#pragma once
#include "layout.cuh"

struct Place {
    int warp;
    int row;        // first of the warp's 32 rows
    int column;     // first of the warp's columns
    int entry[8];   // which entry (16 * row + column) of a 16 x 16 result this lane's values are
};

// The hardware does not say which lane holds which entry of a result; loading a table of entry
// numbers tells. `scratch` is 1 KB of shared memory. Ends with all threads past a barrier.
__device__ __forceinline__ Place find_place(float* scratch) {
    for (int i = tile_thread(); i < 256; i += THREADS) scratch[i] = (float)i;
    tile_barrier();
    Accumulator table;
    load_accumulator(table, scratch);
    Place place;
    place.warp = tile_thread() / 32;
    place.row = place.warp / WARPS_ACROSS * 32;
    place.column = place.warp % WARPS_ACROSS * WARP_COLUMNS;
#pragma unroll
    for (int e = 0; e < 8; e++) place.entry[e] = (int)table.value[e];
    tile_barrier();
    return place;
}

// IN x OUT weights to shared memory, rows `stride` apart in global memory and `ld` here, by `step`
// threads of which this is number `thread`.
template <int IN, int OUT>
__device__ __forceinline__ void copy_by(int thread, int step, half_t* shared, int ld,
                                        const half_t* source, int stride) {
    constexpr int VECTORS = OUT / 8;
#pragma unroll 4
    for (int item = thread; item < IN * VECTORS; item += step) {
        int row = item / VECTORS, column = item % VECTORS * 8;
        *(uint4*)(shared + row * ld + column) =
            __ldg((const uint4*)(source + row * stride + column));
    }
}

// By the tile's threads.
template <int IN, int OUT>
__device__ __forceinline__ void copy_weights(half_t* shared, int ld, const half_t* source,
                                             int stride) {
    copy_by<IN, OUT>(tile_thread(), THREADS, shared, ld, source, stride);
}

// By all threads of the block.
template <int IN, int OUT>
__device__ __forceinline__ void copy_block(half_t* shared, int ld, const half_t* source) {
    copy_by<IN, OUT>((int)threadIdx.x, BLOCK_THREADS, shared, ld, source, OUT);
}

// The weights of one layer in shared memory, rows LD apart: where they stay, or copied to `place`.
template <int IN, int OUT, int LD>
__device__ __forceinline__ half_t* weights_of(half_t* resident, half_t* place, const half_t* source,
                                              int stride) {
    if (RESIDENT) return resident;
    copy_weights<IN, OUT>(place, LD, source, stride);
    return place;
}

struct Product {
    Accumulator part[ROWS][COLUMNS];

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int i = 0; i < ROWS; i++)
#pragma unroll
            for (int j = 0; j < COLUMNS; j++)
#pragma unroll
                for (int e = 0; e < 8; e++) part[i][j].value[e] = 0.0f;
    }
};

// out [32, WARP_COLUMNS] += act [32, INNER] * weights, at columns from `column` on that lie below
// LIMIT. TRANSPOSED multiplies by the transpose of the stored [in][out], as gradients need it.
template <int INNER, int LIMIT, bool TRANSPOSED>
__device__ __forceinline__ void multiply(Product& out, const half_t* act, int act_ld, int row,
                                         const half_t* weights, int ld, int column) {
    __syncwarp();  // fragments take the whole warp, and a copying loop may have split it
#pragma unroll 1
    for (int k = 0; k < INNER; k += 16) {
        Operand a[ROWS];
#pragma unroll
        for (int i = 0; i < ROWS; i++)
            load_a<false>(a[i], act + (row + 16 * i) * act_ld + k, act_ld);
#pragma unroll
        for (int j = 0; j < COLUMNS; j++) {
            int n = column + 16 * j;
            if (LIMIT % WARP_COLUMNS != 0 && n >= LIMIT) break;
            Operand b;
            load_b<TRANSPOSED>(b, TRANSPOSED ? weights + n * ld + k : weights + k * ld + n, ld);
#pragma unroll
            for (int i = 0; i < ROWS; i++) multiply_add<false, TRANSPOSED>(out.part[i][j], a[i], b);
        }
    }
}

// The narrow outputs: act [TILE, HIDDEN] * weights [HIDDEN, 16]; columns FIRST ... LAST go to
// out [TILE, 4] as floats.
template <int FIRST, int LAST>
__device__ __forceinline__ void head(const half_t* act, const half_t* weights, int ld, float* out,
                                     const Place& place) {
    __syncwarp();
    for (int strip = place.warp; strip < TILE / 16; strip += WARPS) {
        Accumulator sum;
#pragma unroll
        for (int e = 0; e < 8; e++) sum.value[e] = 0.0f;
#pragma unroll 1
        for (int k = 0; k < HIDDEN; k += 16) {
            Operand a, b;
            load_a<false>(a, act + strip * 16 * ACT_LD + k, ACT_LD);
            load_b<false>(b, weights + k * ld, ld);
            multiply_add<false, false>(sum, a, b);
        }
#pragma unroll
        for (int e = 0; e < 8; e++) {
            int row = place.entry[e] / 16, column = place.entry[e] % 16;
            if (column >= FIRST && column <= LAST) out[(strip * 16 + row) * 4 + column] = sum.value[e];
        }
    }
}

// Calls visit(i, j, e, offset) for each value this lane holds; `offset` is where it belongs in the
// tile's activations.
template <class Visit>
__device__ __forceinline__ void for_each_value(const Place& place, int row_ld, Visit visit) {
#pragma unroll
    for (int e = 0; e < 8; e++) {
        int corner = (place.row + place.entry[e] / 16) * row_ld + place.column + place.entry[e] % 16;
#pragma unroll
        for (int i = 0; i < ROWS; i++)
#pragma unroll
            for (int j = 0; j < COLUMNS; j++) visit(i, j, e, corner + 16 * i * row_ld + 16 * j);
    }
}

// log(1 + exp(x)), without overflow.
__device__ __forceinline__ float softplus(float x) {
    return fmaxf(x, 0.0f) + __logf(1.0f + __expf(-fabsf(x)));
}

// A half is at most 65504; NaN stays NaN.
__device__ __forceinline__ half_t to_finite_half(float x) {
    return to_half(smaller(larger(x, -65504.0f), 65504.0f));
}

__device__ __forceinline__ void store_softplus(const Product& product, half_t* act,
                                               const Place& place) {
    for_each_value(place, ACT_LD, [&](int i, int j, int e, int at) {
        act[at] = to_finite_half(softplus(product.part[i][j].value[e]));
    });
}

__device__ __forceinline__ void store_relu(const Product& product, half_t* act, const Place& place) {
    for_each_value(place, ACT_LD, [&](int i, int j, int e, int at) {
        act[at] = to_finite_half(larger(product.part[i][j].value[e], 0.0f));
    });
}
