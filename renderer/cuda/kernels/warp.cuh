// Sums over the lanes of a warp.
#pragma once
#include "device.cuh"

// Sum over all lanes, in every lane.
__device__ __forceinline__ float warp_sum(float value) {
    for (int delta = 16; delta > 0; delta /= 2) value += __shfl_xor_sync(FULL_WARP, value, delta);
    return value;
}

// Sum over this lane and those before it.
__device__ __forceinline__ float warp_running_sum(float value, int lane) {
    for (int delta = 1; delta < 32; delta *= 2) {
        float before = __shfl_up_sync(FULL_WARP, value, delta);
        if (lane >= delta) value += before;
    }
    return value;
}
