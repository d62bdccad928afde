"""Kernels that numba compiles: marching, look-ups, the decoder's layers, compositing.

Importing this package lets numba compile anew what it can't read back from its cache: its index
and code are pickles, and what a full disk or a crash leaves of them fails in many ways.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

from numba.core.caching import IndexDataCacheFile


def _or_nothing(read: Callable[..., Any], nothing: Callable[[], Any]) -> Callable[..., Any]:
    @wraps(read)
    def reading(*arguments: Any) -> Any:
        try:
            return read(*arguments)
        except MemoryError:
            raise
        except Exception:
            return nothing()

    return reading


IndexDataCacheFile._load_index = _or_nothing(IndexDataCacheFile._load_index, dict)
IndexDataCacheFile.load = _or_nothing(IndexDataCacheFile.load, lambda: None)
