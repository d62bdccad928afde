"""CUDA kernels of the renderer, compiled at first use by NVRTC.

No compiler and no CUDA header is needed on the user's machine: the sources in ``kernels/`` include
nothing but each other, and NVRTC is a library that PyTorch's CUDA wheels already bring.

- :mod:`renderer.cuda.toolkit` finds NVRTC and compiles; :mod:`renderer.cuda.build` keeps the
  compiled kernels on disk; :mod:`renderer.cuda.driver` loads and launches them.
- :mod:`renderer.cuda.ops` are the operations, with the semantics of the plain ones.

Importing this package needs neither a GPU nor a driver.
"""

from renderer.cuda.availability import available, unavailable_reason

__all__ = ["available", "unavailable_reason"]
