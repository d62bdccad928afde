// Sizes of one specialisation: the decoder's shape, the tile, and what shared memory holds.
//
// The folded decoder (see renderer/cuda/packing.py), S samples of a tile:
//   h  = softplus(density_in [S, DENSITY_IN] * W_DENSITY)
//   head = h * W_GEOMETRY's last 16 columns; column LOGIT is log density
//   a1 = relu(h * W_GEOMETRY + color_in [S, COLOR_IN] * W_COLOR)
//   a2 = relu(a1 * W_HIDDEN),  rgb = sigmoid(a2 * W_OUT)
// density_in and color_in end in a constant 1, which carries the biases, and are zero beyond it.
#pragma once
#include "device.cuh"

__device__ constexpr int round16(int n) { return (n + 15) / 16 * 16; }
__device__ constexpr int largest(int a, int b) { return a > b ? a : b; }

constexpr int ENCODED = 1 + 2 * FREQUENCIES;
constexpr int DENSITY_CHANNELS = CHANNELS - COLOR_CHANNELS;
constexpr int DENSITY_ENCODED = DENSITY_CHANNELS * ENCODED;
constexpr int DENSITY_IN = round16(DENSITY_ENCODED + 1);
constexpr int COLOR_ENCODED = COLOR_CHANNELS * ENCODED;
constexpr int COLOR_IN = round16(COLOR_ENCODED + 3 * ENCODED + 1);
constexpr int HEAD = 16;   // the narrow outputs are padded to one fragment
constexpr int LOGIT = 3;   // column of log density, behind red, green and blue

// The packed weights, row major [in][out], one after the other.
constexpr int W_DENSITY = 0;
constexpr int W_GEOMETRY = W_DENSITY + DENSITY_IN * HIDDEN;
constexpr int W_COLOR = W_GEOMETRY + HIDDEN * (HIDDEN + HEAD);
constexpr int W_HIDDEN = W_COLOR + COLOR_IN * HIDDEN;
constexpr int W_OUT = W_HIDDEN + HIDDEN * HIDDEN;

// A warp owns 32 rows (samples) and WARP_COLUMNS columns of every layer's output: with two row
// fragments each weight fragment that is read serves two products, which keeps shared memory's
// bandwidth below the tensor cores'.
constexpr int ROWS = 2;
constexpr int COLUMNS = WARP_COLUMNS / 16;
constexpr int WARPS_ACROSS = HIDDEN / WARP_COLUMNS;
constexpr int WARPS = TILE / 32 * WARPS_ACROSS;
constexpr int THREADS = WARPS * 32;  // of a tile

// A block has one tile, whose weights it copies in layer by layer, and ends with it; or, RESIDENT, it
// keeps all weights in shared memory while GROUPS groups of its threads each take tile after tile. The
// groups wait for their own threads alone: one gathers while another multiplies.
constexpr int BLOCK_THREADS = THREADS * GROUPS;
static_assert(RESIDENT || GROUPS == 1, "a block that copies weights has one tile");

__device__ __forceinline__ int tile_thread() {
    return GROUPS == 1 ? (int)threadIdx.x : (int)threadIdx.x % THREADS;
}
__device__ __forceinline__ int tile_group() { return GROUPS == 1 ? 0 : (int)threadIdx.x / THREADS; }
__device__ __forceinline__ void tile_barrier() {
    if (GROUPS == 1)
        __syncthreads();
    else
        group_barrier(1 + tile_group(), THREADS);
}

// Rows in shared memory are 8 halves (16 bytes) longer than their content: the rows of a fragment
// then start in different banks.
constexpr int SKEW = 8;
constexpr int ACT_LD = largest(largest(DENSITY_IN, COLOR_IN), HIDDEN) + SKEW;
constexpr int W_LD = HIDDEN + SKEW;
constexpr int GEOMETRY_LD = HIDDEN + HEAD + SKEW;
constexpr int HEAD_LD = HEAD + SKEW;
constexpr int FEATURE_LD = CHANNELS + SKEW;
constexpr int FEATURE_GRAD_LD = CHANNELS + 4;  // floats

constexpr int DENSITY_WEIGHT_BYTES = 2 * DENSITY_IN * W_LD;
constexpr int FEATURE_GRAD_BYTES = 4 * TILE * FEATURE_GRAD_LD;
constexpr int STREAMED_BYTES =
    largest(largest(2 * largest(DENSITY_IN, largest(COLOR_IN, HIDDEN)) * W_LD,
                    2 * HIDDEN * GEOMETRY_LD),
            DENSITY_WEIGHT_BYTES + FEATURE_GRAD_BYTES);

// Where all weights lie when they stay, in halves.
constexpr int R_DENSITY = 0;
constexpr int R_GEOMETRY = R_DENSITY + DENSITY_IN * W_LD;
constexpr int R_COLOR = R_GEOMETRY + HIDDEN * GEOMETRY_LD;
constexpr int R_HIDDEN = R_COLOR + COLOR_IN * W_LD;
constexpr int R_OUT = R_HIDDEN + HIDDEN * W_LD;
constexpr int RESIDENT_BYTES = 2 * (R_OUT + HIDDEN * HEAD_LD);

// Offsets in shared memory. Weights come first: fragments must start at multiples of 32 bytes. Behind
// them each tile has its own place, with these offsets.
constexpr int AT_TILES = ((RESIDENT ? RESIDENT_BYTES : STREAMED_BYTES) + 127) / 128 * 128;
constexpr int AT_ACT = 0;
constexpr int AT_FEATURES = AT_ACT + 2 * TILE * ACT_LD;
constexpr int AT_POINTS = AT_FEATURES + 2 * TILE * FEATURE_LD;
constexpr int FORWARD_TILE = AT_POINTS + 16 * TILE;
constexpr int AT_HEAD_GRAD = FORWARD_TILE;
constexpr int AT_FEATURE_GRAD = AT_HEAD_GRAD + 2 * TILE * HEAD_LD;
// Without a place of their own the features' gradients lie beside the last weights used.
constexpr int BACKWARD_TILE = AT_FEATURE_GRAD + (RESIDENT ? FEATURE_GRAD_BYTES : 0);
constexpr int FORWARD_BYTES = AT_TILES + GROUPS * FORWARD_TILE;
constexpr int BACKWARD_BYTES = AT_TILES + GROUPS * BACKWARD_TILE;
// The outputs take the features' place, which are spent by then.
constexpr int AT_OUT = AT_FEATURES;

static_assert(FORWARD_TILE % 128 == 0 && BACKWARD_TILE % 128 == 0, "tiles stay aligned");

static_assert(CHANNELS % 4 == 0 && COLOR_CHANNELS % 4 == 0, "texels are read four channels at a time");
static_assert(HIDDEN % WARP_COLUMNS == 0 && TILE % 32 == 0, "warps tile the layer");
static_assert(2 * FEATURE_LD >= 16, "outputs fit in the features' place");
static_assert(FORWARD_BYTES == EXPECTED_FORWARD_BYTES, "layout.py disagrees with layout.cuh");
static_assert(BACKWARD_BYTES == EXPECTED_BACKWARD_BYTES, "layout.py disagrees with layout.cuh");
static_assert(W_OUT + HIDDEN * HEAD == EXPECTED_WEIGHTS, "layout.py disagrees with layout.cuh");
