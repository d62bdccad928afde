"""Renderer kernels for the CPU, compiled at first use by numba (an optional package).

Nothing here is imported unless it is asked for, see :mod:`renderer.backend`.
"""
