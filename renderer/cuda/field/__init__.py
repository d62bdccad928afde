"""The field on the GPU: density and colour of samples, and which cut of the kernels is fastest."""
