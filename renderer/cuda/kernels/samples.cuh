// Where samples lie and what the planes hold there, and the way back for gradients.
#pragma once
#include "layout.cuh"

// Samples given in one of three ways: on a lattice (axes), as points, or as distances along rays.
struct Source {
    const float* points;      // [S, 3], or null
    const float* origins;     // [R, 3]
    const float* directions;  // [R, 3], or null for density alone
    const int* ray;           // [S]
    const float* t;           // [S]
    const int* triplane;      // [R] triplane of each ray, or null: 0
    const float* axes;        // [3, cells] coordinates of a lattice, or null
    int cells;
    int count;                // S
};

// texels: half, [B, 3, H, W, CHANNELS]: the channels of a texel lie together, so that neighbouring
// lanes read neighbouring bytes.
struct Planes {
    const half_t* texels;
    int height;
    int width;
};

struct Point {
    float x, y, z;
    int triplane;
};

__device__ __forceinline__ Point locate(const Source& source, int index) {
    if (source.axes) {
        int n = source.cells;
        return {source.axes[index / (n * n)], source.axes[n + index / n % n],
                source.axes[2 * n + index % n], 0};
    }
    int ray = source.ray ? source.ray[index] : 0;
    int triplane = source.triplane ? source.triplane[ray] : 0;
    if (source.points) {
        const float* p = source.points + 3 * (long long)index;
        return {p[0], p[1], p[2], triplane};
    }
    const float* o = source.origins + 3 * ray;
    const float* d = source.directions + 3 * ray;
    float t = source.t[index];
    // Rounded like the plain renderer's positions.
    return {__fadd_rn(o[0], __fmul_rn(t, d[0])), __fadd_rn(o[1], __fmul_rn(t, d[1])),
            __fadd_rn(o[2], __fmul_rn(t, d[2])), triplane};
}

// The four texels around a point of one plane. Corner k is (k & 1) along W, (k >> 1) along H.
struct Cell {
    int texel;            // index of corner 0
    int along_w, along_h; // to the neighbours; 0 at the far edge, where their weight is 0
    float fx, fy;
};

__device__ __forceinline__ Cell find_cell(const Planes& planes, const Point& point, int plane) {
    // Planes are (x, y), (x, z), (y, z); the first coordinate runs along W.
    float u = plane == 2 ? point.y : point.x;
    float v = plane == 0 ? point.y : point.z;
    float x = fminf(fmaxf((u + 1.0f) * 0.5f * (planes.width - 1), 0.0f), planes.width - 1.0f);
    float y = fminf(fmaxf((v + 1.0f) * 0.5f * (planes.height - 1), 0.0f), planes.height - 1.0f);
    int x0 = (int)x, y0 = (int)y;
    Cell cell;
    cell.texel = ((point.triplane * 3 + plane) * planes.height + y0) * planes.width + x0;
    cell.along_w = x0 + 1 < planes.width ? 1 : 0;
    cell.along_h = y0 + 1 < planes.height ? planes.width : 0;
    cell.fx = x - x0;
    cell.fy = y - y0;
    return cell;
}

__device__ __forceinline__ float corner_weight(const Cell& cell, int corner) {
    return (corner & 1 ? cell.fx : 1.0f - cell.fx) * (corner & 2 ? cell.fy : 1.0f - cell.fy);
}

__device__ __forceinline__ int corner_texel(const Cell& cell, int corner) {
    return cell.texel + (corner & 1 ? cell.along_w : 0) + (corner & 2 ? cell.along_h : 0);
}

// Positions of the tile's samples to shared memory; beyond the last sample, the box's centre.
__device__ __forceinline__ void place_points(const Source& source, int first, Point* points) {
    for (int s = tile_thread(); s < TILE; s += THREADS) {
        Point centre = {0.0f, 0.0f, 0.0f, 0};
        points[s] = first + s < source.count ? locate(source, first + s) : centre;
    }
}

// 16 bytes at a time where the channel counts allow, else 8.
constexpr int VECTOR = CHANNELS % 8 == 0 && COLOR_CHANNELS % 8 == 0 ? 8 : 4;

__device__ __forceinline__ void load_texel(unsigned (&words)[VECTOR / 2], const half_t* source) {
    if (VECTOR == 8) {
        uint4 v = __ldg((const uint4*)source);
        words[0] = v.x;
        words[1] = v.y;
        words[VECTOR / 2 - 2] = v.z;
        words[VECTOR / 2 - 1] = v.w;
    } else {
        uint2 v = __ldg((const uint2*)source);
        words[0] = v.x;
        words[1] = v.y;
    }
}

// Features of the tile's samples, channels FIRST ... CHANNELS, mean over the planes. Each thread
// takes VECTOR channels of a sample; its twelve loads do not depend on each other, which is what
// hides their latency.
template <int FIRST>
__device__ __forceinline__ void gather(const Planes& planes, const Point* points, half_t* features) {
    constexpr int PARTS = (CHANNELS - FIRST) / VECTOR;
    for (int item = tile_thread(); item < TILE * PARTS; item += THREADS) {
        int s = item / PARTS, channel = FIRST + item % PARTS * VECTOR;
        Point point = points[s];
        float sum[VECTOR];
#pragma unroll
        for (int c = 0; c < VECTOR; c++) sum[c] = 0.0f;
#pragma unroll 1
        for (int plane = 0; plane < 3; plane++) {
            Cell cell = find_cell(planes, point, plane);
#pragma unroll
            for (int corner = 0; corner < 4; corner++) {
                unsigned words[VECTOR / 2];
                long long at = (long long)corner_texel(cell, corner) * CHANNELS + channel;
                load_texel(words, planes.texels + at);
                float weight = corner_weight(cell, corner);
#pragma unroll
                for (int w = 0; w < VECTOR / 2; w++) {
                    sum[2 * w] += weight * to_float((half_t)(words[w] & 0xffffu));
                    sum[2 * w + 1] += weight * to_float((half_t)(words[w] >> 16));
                }
            }
        }
        half_t* out = features + s * FEATURE_LD + channel;
#pragma unroll
        for (int w = 0; w < VECTOR / 2; w++)
            *(unsigned*)(out + 2 * w) = to_half(sum[2 * w] * (1.0f / 3.0f)) |
                                        (unsigned)to_half(sum[2 * w + 1] * (1.0f / 3.0f)) << 16;
    }
}

// What a sample's gradients were divided by, in its row of the tile.
struct Scales {
    float color;   // of the colour network's gradients
    float merged;  // of density's hidden layer, which hears from both
    float logit;   // log density's gradient over `merged`
    float ratio;   // color over merged
};

// One for each sample, in the gap behind its output gradients.
struct ScaleTable {
    half_t* rows;
    __device__ __forceinline__ Scales& operator[](int s) const {
        return *(Scales*)(rows + s * HEAD_LD + HEAD);
    }
};
static_assert(sizeof(Scales) == 2 * SKEW, "the scales fill the gap");

// Adds the features' gradients to the planes' (fp32, laid out like the planes). A warp takes a run
// of samples. Along a ray neighbouring samples mostly share their texels: sums stay in registers until
// the cell changes, which saves most of the reductions. A lane holds SCATTER_WIDTH neighbouring
// channels of one corner: four where four floats can be added at once, or one, and then neighbouring
// lanes add to neighbouring floats.
constexpr int SCATTER_PARTS = CHANNELS / SCATTER_WIDTH;
constexpr int LANE_ITEMS = (4 * SCATTER_PARTS + 31) / 32;
static_assert(SCATTER_WIDTH == 4 || SCATTER_WIDTH == 1, "reductions of one float or of four");

struct Pending {
    float sum[LANE_ITEMS][SCATTER_WIDTH];
    Cell cell;

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int i = 0; i < LANE_ITEMS; i++)
#pragma unroll
            for (int c = 0; c < SCATTER_WIDTH; c++) sum[i][c] = 0.0f;
    }
};

__device__ __forceinline__ void read(float (&out)[4], const float* source) {
    float4 v = *(const float4*)source;
    out[0] = v.x, out[1] = v.y, out[2] = v.z, out[3] = v.w;
}
__device__ __forceinline__ void read(float (&out)[1], const float* source) { out[0] = *source; }

__device__ __forceinline__ void reduce(float* target, const float (&sum)[4]) {
    reduce_add(target, sum[0], sum[1], sum[2], sum[3]);
}
__device__ __forceinline__ void reduce(float* target, const float (&sum)[1]) {
    reduce_add(target, sum[0]);
}

__device__ __forceinline__ void flush(Pending& pending, float* grad, int lane) {
#pragma unroll
    for (int i = 0; i < LANE_ITEMS; i++) {
        int item = lane + 32 * i, corner = item / SCATTER_PARTS;
        if (corner >= 4) break;
        long long at = (long long)corner_texel(pending.cell, corner) * CHANNELS +
                       item % SCATTER_PARTS * SCATTER_WIDTH;
        reduce(grad + at, pending.sum[i]);
    }
    pending.clear();
}

__device__ __forceinline__ void scatter(const Planes& planes, const Point* points,
                                        const float* feature_grad, const ScaleTable& scales,
                                        float* grad) {
    constexpr int RUN = TILE / WARPS;
    int lane = tile_thread() & 31, first = tile_thread() / 32 * RUN;
#pragma unroll 1
    for (int plane = 0; plane < 3; plane++) {
        Pending pending;
        pending.cell.texel = -1;
        pending.clear();
        for (int s = first; s < first + RUN; s++) {
            if (scales[s].merged == 0.0f) continue;
            Cell cell = find_cell(planes, points[s], plane);
            if (cell.texel != pending.cell.texel) {
                if (pending.cell.texel >= 0) flush(pending, grad, lane);
                pending.cell = cell;
            }
#pragma unroll
            for (int i = 0; i < LANE_ITEMS; i++) {
                int item = lane + 32 * i, corner = item / SCATTER_PARTS;
                if (corner >= 4) break;
                float g[SCATTER_WIDTH];
                read(g, feature_grad + s * FEATURE_GRAD_LD + item % SCATTER_PARTS * SCATTER_WIDTH);
                float weight = (1.0f / 3.0f) * corner_weight(cell, corner);
#pragma unroll
                for (int c = 0; c < SCATTER_WIDTH; c++) pending.sum[i][c] += weight * g[c];
            }
        }
        if (pending.cell.texel >= 0) flush(pending, grad, lane);
    }
}
