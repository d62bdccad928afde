"""Triplanes, their decoder, and rendering them: any view, on CPU and GPU.

Legend: B batch, C channels, H W plane or picture size, N views, R rays.

=====================  ==========================================================================
name                   what it is
=====================  ==========================================================================
``load_triplane``      file → planes [3, C, H, W] in [-1, 1]
``save_triplane``      the reverse; ``.safetensors`` or the published ``.npy``
``TriplaneDecoder``    features [S, C] and directions [S, 3] → density [S] and colour [S, 3]
``load_decoder``       folder → decoder, frozen
``FittedSet``          a folder of triplanes that share a decoder
``Cameras``            N pinhole cameras: c2w [N, 4, 4], fx fy cx cy [N], width, height
``orbit_cameras``      a full turn around the head
``RenderSettings``     how rays are marched
``build_occupancy``    planes [3, C, H, W] → grid of the cells that hold matter
``render_rays``        R rays → ``Rendered``; differentiable to planes and decoder
``render_image``       the first camera → ``Rendered`` with color [H, W, 3]
``render_images``      N cameras → ``Rendered`` with color [N, H, W, 3]
``Rendered``           color, opacity and depth
=====================  ==========================================================================

Example:
    >>> from renderer import build_occupancy, load_decoder, load_triplane
    >>> from renderer import orbit_cameras, render_images
    >>> planes, decoder = load_triplane("anna.safetensors"), load_decoder("decoder")
    >>> views = render_images(planes, decoder, orbit_cameras(8, size=256))
    >>> views.color.shape, views.opacity.shape
    (torch.Size([8, 256, 256, 3]), torch.Size([8, 256, 256]))
"""

from typing import TYPE_CHECKING

from runtime import lazy_names

if TYPE_CHECKING:
    from captures.cameras import Cameras, orbit_cameras
    from renderer.decoder import TriplaneDecoder
    from renderer.fitted_set import FittedSet, load_decoder
    from renderer.render import (
        RenderSettings,
        build_occupancy,
        render_image,
        render_images,
        render_rays,
    )
    from renderer.samples import Rendered
    from renderer.triplane import load_triplane, save_triplane

__all__ = [
    "Cameras",
    "FittedSet",
    "RenderSettings",
    "Rendered",
    "TriplaneDecoder",
    "build_occupancy",
    "load_decoder",
    "load_triplane",
    "orbit_cameras",
    "render_image",
    "render_images",
    "render_rays",
    "save_triplane",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Cameras": "captures.cameras",
        "orbit_cameras": "captures.cameras",
        "TriplaneDecoder": "renderer.decoder",
        "FittedSet": "renderer.fitted_set",
        "load_decoder": "renderer.fitted_set",
        "RenderSettings": "renderer.render",
        "build_occupancy": "renderer.render",
        "render_image": "renderer.render",
        "render_images": "renderer.render",
        "render_rays": "renderer.render",
        "Rendered": "renderer.samples",
        "load_triplane": "renderer.triplane",
        "save_triplane": "renderer.triplane",
    },
)
