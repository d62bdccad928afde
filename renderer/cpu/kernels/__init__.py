"""Kernels that numba compiles: marching, look-ups, the decoder's layers, compositing."""
