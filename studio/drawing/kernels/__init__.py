"""Numba kernels of the studio; import this package only when something is drawn.

Legend of its files: V vertices, T triangles, K blended triangles, F fragments, H W size of the
supersampled picture.

Coordinates are pixels of the supersampled picture, samples lie at pixel centres (+0.5). Depth is
kept as 1/z, which is linear on the screen, so the nearest fragment has the largest value. Every
kernel draws one picture on one thread and releases the interpreter's lock; pictures are drawn side
by side, so no result depends on the number of threads.
"""

from studio.drawing.kernels.shade import resolve
from studio.drawing.kernels.surface import bounds, footprints, project, visible
from studio.drawing.kernels.surface_layers import Layers, Sheets, collect
from studio.drawing.kernels.texture_lookup import Drawn, Textures

__all__ = [
    "Drawn",
    "Layers",
    "Sheets",
    "Textures",
    "bounds",
    "collect",
    "footprints",
    "project",
    "resolve",
    "visible",
]
