"""3D head avatars from one portrait.

Example:
    >>> from triavatar import AvatarPipeline
    >>> pipeline = AvatarPipeline.from_pretrained()
    >>> avatar = pipeline("me.jpg")
    >>> avatar.picture(azimuth=30).save("side.png")
    >>> avatar.turntable("me.mp4", size=256)
    >>> avatar.save("me")

``AvatarPipeline`` makes avatars, ``Avatar`` is one (a triplane with its decoder: render, turn,
save, load, export), ``Bundle`` is the folder a model lies in. What renders is in ``renderer``.
"""

from typing import TYPE_CHECKING

from runtime import lazy_names
from runtime.errors import UserError
from runtime.version import VERSION as __version__

if TYPE_CHECKING:
    from diffusion.sampling.sampler_config import SamplingConfig
    from likeness.settings import LikenessSettings
    from triavatar.avatar import Avatar
    from triavatar.bundles.bundle import Bundle
    from triavatar.pipeline import AvatarPipeline

__all__ = [
    "Avatar",
    "AvatarPipeline",
    "Bundle",
    "LikenessSettings",
    "SamplingConfig",
    "UserError",
    "__version__",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Avatar": "triavatar.avatar",
        "AvatarPipeline": "triavatar.pipeline",
        "LikenessSettings": "likeness.settings",
        "Bundle": "triavatar.bundles.bundle",
        "SamplingConfig": "diffusion.sampling.sampler_config",
    },
)
