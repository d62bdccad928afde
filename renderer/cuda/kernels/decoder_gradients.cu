// Gradients of the packed weights: layer inputs (transposed) times gradients of layer outputs, summed
// over samples. A block sums 128 rows of one layer over a slice of the samples in registers and adds
// the result to global memory once, at its end.
#include "workspace.cuh"

constexpr int STRIP = 128;    // rows of the weights that a block takes
constexpr int STEP = 32;      // samples per round
constexpr int BLOCK = 256;    // 4 warps along the rows, 2 along the columns
constexpr int WIDE = (HIDDEN + HEAD) / 16;
constexpr int FRAGMENTS = (WIDE + 1) / 2;  // of a warp, along the columns
constexpr int INPUT_LD = STRIP + 8;
constexpr int GRAD_LD = HIDDEN + HEAD + 8;

// On sm_70 an operand holds every value twice and takes twice the registers.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 750
constexpr int BLOCKS = 1;
#else
constexpr int BLOCKS = 2;
#endif

struct Layer {
    int input, rows, grad, columns, weights;
};

__device__ __forceinline__ constexpr int strips(int rows) { return (rows + STRIP - 1) / STRIP; }

// The layer and first row of a block's strip.
__device__ __forceinline__ Layer find_layer(int strip, int& row) {
    constexpr int HIDDEN_STRIPS = strips(HIDDEN);
    if (strip < strips(DENSITY_IN)) {
        row = strip * STRIP;
        return {IN_DENSITY, DENSITY_IN, GRAD_DENSITY, HIDDEN, W_DENSITY};
    }
    strip -= strips(DENSITY_IN);
    if (strip < strips(COLOR_IN)) {
        row = strip * STRIP;
        return {IN_COLOR, COLOR_IN, GRAD_COLOR, HIDDEN, W_COLOR};
    }
    strip -= strips(COLOR_IN);
    row = strip % HIDDEN_STRIPS * STRIP;
    if (strip < HIDDEN_STRIPS)
        return {IN_GEOMETRY, HIDDEN, GRAD_COLOR, HIDDEN + HEAD, W_GEOMETRY};
    if (strip < 2 * HIDDEN_STRIPS) return {IN_HIDDEN, HIDDEN, GRAD_HIDDEN, HIDDEN, W_HIDDEN};
    return {IN_OUT, HIDDEN, GRAD_HEAD, HEAD, W_OUT};
}

constexpr int STRIPS = (DENSITY_IN + STRIP - 1) / STRIP + (COLOR_IN + STRIP - 1) / STRIP +
                       3 * ((HIDDEN + STRIP - 1) / STRIP);
static_assert(STRIPS == EXPECTED_STRIPS, "layout.py disagrees with decoder_gradients.cu");
static_assert(2 * STEP * (INPUT_LD + GRAD_LD) == EXPECTED_GRADIENT_BYTES,
              "layout.py disagrees with decoder_gradients.cu");

// STEP rows of `columns` halves, 16 bytes at a time.
__device__ __forceinline__ void copy_rows(half_t* shared, int ld, const half_t* source, int stride,
                                          int columns) {
    int vectors = columns / 8;
#pragma unroll 1
    for (int item = threadIdx.x; item < STEP * vectors; item += BLOCK) {
        int row = item / vectors, c = item % vectors * 8;
        *(uint4*)(shared + row * ld + c) =
            __ldg((const uint4*)(source + (long long)row * stride + c));
    }
}

// samples: rows of the workspace, a multiple of STEP; largest [2]: what colour's and log density's
// gradients were divided by there; out: fp32, laid out like the weights, added to.
// Grid: slices of the samples x strips of the weights.
extern "C" __global__ void __launch_bounds__(BLOCK, BLOCKS)
    decoder_gradients(const half_t* inputs, const half_t* layer_grads, const float* largest,
                      int samples, float* out) {
    DYNAMIC_SHARED(shared);
    half_t* input = (half_t*)shared;
    half_t* grad = input + STEP * INPUT_LD;
    int first_row;
    Layer layer = find_layer(blockIdx.y, first_row);
    int rows = min(STRIP, layer.rows - first_row);

    int warp = threadIdx.x / 32, row = warp / 2 * 32, column = warp % 2 * FRAGMENTS * 16;
    Accumulator sum[2][FRAGMENTS];
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int j = 0; j < FRAGMENTS; j++)
#pragma unroll
            for (int e = 0; e < 8; e++) sum[i][j].value[e] = 0.0f;

#pragma unroll 1
    for (int s = blockIdx.x * STEP; s < samples; s += gridDim.x * STEP) {
        copy_rows(input, INPUT_LD, inputs + (long long)s * INPUTS + layer.input + first_row, INPUTS,
                  rows);
        copy_rows(grad, GRAD_LD, layer_grads + (long long)s * GRADIENTS + layer.grad, GRADIENTS,
                  layer.columns);
        __syncthreads();
#pragma unroll 1
        for (int k = 0; k < STEP; k += 16) {
            Operand a[2];
#pragma unroll
            for (int i = 0; i < 2; i++)
                if (row + 16 * i < rows)
                    load_a<true>(a[i], input + k * INPUT_LD + row + 16 * i, INPUT_LD);
#pragma unroll
            for (int j = 0; j < FRAGMENTS; j++) {
                if (column + 16 * j >= layer.columns) break;
                Operand b;
                load_b<false>(b, grad + k * GRAD_LD + column + 16 * j, GRAD_LD);
#pragma unroll
                for (int i = 0; i < 2; i++)
                    if (row + 16 * i < rows) multiply_add<true, false>(sum[i][j], a[i], b);
            }
        }
        __syncthreads();
    }

    // Which entry of a 16 x 16 result each of this lane's values is; see layers.cuh.
    Accumulator table;
    float* scratch = (float*)shared;
    scratch[threadIdx.x] = (float)threadIdx.x;
    __syncthreads();
    load_accumulator(table, scratch);

    float of_color = largest[0], of_logit = largest[1], merged = larger(of_color, of_logit);
    float* target = out + layer.weights + (long long)first_row * layer.columns;
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int j = 0; j < FRAGMENTS; j++) {
            if (row + 16 * i >= rows || column + 16 * j >= layer.columns) continue;
#pragma unroll
            for (int e = 0; e < 8; e++) {
                int entry = (int)table.value[e];
                int at_row = row + 16 * i + entry / 16, at_column = column + 16 * j + entry % 16;
                float scale = layer.grad == GRAD_DENSITY ? merged
                              : at_column < HIDDEN       ? of_color
                                                         : of_logit;
                atomicAdd(target + at_row * layer.columns + at_column,
                          sum[i][j].value[e] * scale);
            }
        }
}
