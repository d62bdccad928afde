"""Settings of an export: what it makes, and how finely."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from renderer.render import RenderSettings
from runtime.config import setting
from runtime.errors import UserError
from triavatar.export.mesh import METRES_PER_UNIT

Format = Literal["glb", "rigged.glb", "obj", "ply", "html"]
FORMATS: tuple[Format, ...] = ("glb", "rigged.glb", "obj", "ply", "html")


@dataclass
class MeshSettings:
    """The textured mesh, for glb, obj and html."""

    triangles: int = setting(40000, at_least=100, at_most=10**7)
    """Triangles left after simplification, at most."""
    resolution: int = setting(256, at_least=32, at_most=512)
    """Cells along one side of the box in which the surface is looked for."""
    smoothing: int = setting(8, at_least=0, at_most=100)
    """Rounds of Taubin's smoothing, which takes the lattice's steps away and keeps the volume."""
    texture: int = setting(2048, at_least=64, at_most=8192)
    """Side of the texture in texels, a power of two."""
    unlit: bool = False
    """GLB: show colours as they are (KHR_materials_unlit) instead of lighting them."""

    def check(self) -> None:
        """Refuse a texture without mip levels (UserError)."""
        if self.texture & (self.texture - 1):
            raise UserError(f"mesh.texture is {self.texture}; it must be a power of two.")


@dataclass
class SplatSettings:
    """The avatar as Gaussians, for ply."""

    count: int = setting(60000, at_least=100, at_most=10**6)
    """Gaussians, at most."""
    steps: int = setting(100, at_least=0, at_most=10**5)
    """Steps of tuning, each on two pictures; 0 for none."""
    compressed: bool = False
    """Write <avatar>.compressed.ply too, about a quarter as large."""


@dataclass
class ExportSettings:
    """Settings of an avatar's files."""

    removed_settings: ClassVar[dict[str, str]] = {
        "rigged": "name the format rigged.glb beside or in place of glb, e.g. --to rigged.glb"
    }
    mesh: MeshSettings = field(default_factory=MeshSettings)
    """The textured mesh, for glb, obj and html."""
    splats: SplatSettings = field(default_factory=SplatSettings)
    """The avatar as Gaussians, for ply."""
    metres_per_unit: float = setting(METRES_PER_UNIT, above=0)
    """Size of a world unit in the files: by default, a head of 1.02 units from chin to crown, as
    the studio frames them, becomes 0.225 m high."""
    head_model: Path | None = None
    """Head model for rigged.glb: folder that `triavatar train-rig` wrote, or a model with
    the part rig; the shipped one without."""
    views: int = setting(24, at_least=8, at_most=1000)
    """Pictures of the avatar, from all around, that textures and splats are tuned to."""
    view_size: int = setting(256, at_least=32, at_most=4096)
    """Width and height of those pictures in pixels."""
    march: RenderSettings = field(
        default_factory=lambda: RenderSettings(steps=384, color_threshold=1e-3)
    )
    """How rays are marched."""


def format_of(path: Path) -> Format:
    """The format that a file's suffix names.

    Raises:
        UserError: none of :data:`FORMATS`.
    """
    # The longest first: what ends with .rigged.glb ends with .glb, too.
    for known in sorted(FORMATS, key=len, reverse=True):
        if path.name.lower().endswith(f".{known}"):
            return known
    raise UserError(
        f"{path}: avatars are exported as {', '.join('.' + known for known in FORMATS)}; give "
        "the file one of these suffixes."
    )
