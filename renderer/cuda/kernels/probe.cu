// The least a kernel can do: whether compiler and driver get along is seen with it.
#include "device.cuh"

extern "C" __global__ void probe(int* out) { out[threadIdx.x] = (int)threadIdx.x + 1; }
