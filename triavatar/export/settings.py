"""Settings of an export: what it makes, and how finely."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from renderer.render import RenderSettings
from runtime.errors import UserError
from triavatar.export.mesh import METRES_PER_UNIT

Format = Literal["glb", "obj", "ply", "html"]
FORMATS: tuple[Format, ...] = ("glb", "obj", "ply", "html")


@dataclass
class MeshSettings:
    """The textured mesh, for glb, obj and html."""

    triangles: int = 40000
    """Triangles left after simplification, at most."""
    resolution: int = 256
    """Cells along one side of the box in which the surface is looked for."""
    texture: int = 2048
    """Side of the texture in texels, a power of two."""
    unlit: bool = False
    """GLB: show colours as they are (KHR_materials_unlit) instead of lighting them."""


@dataclass
class SplatSettings:
    """The avatar as Gaussians, for ply."""

    count: int = 60000
    """Gaussians, at most."""
    steps: int = 100
    """Steps of tuning, each on two pictures; 0 for none."""
    compressed: bool = False
    """Write <avatar>.compressed.ply too, about a quarter as large."""


@dataclass
class ExportSettings:
    """Settings of an avatar's files."""

    mesh: MeshSettings = field(default_factory=MeshSettings)
    """The textured mesh, for glb, obj and html."""
    splats: SplatSettings = field(default_factory=SplatSettings)
    """The avatar as Gaussians, for ply."""
    metres_per_unit: float = METRES_PER_UNIT
    """Size of a world unit in the files: by default, a head of 1.02 units from chin to crown, as
    the studio frames them, becomes 0.225 m high."""
    views: int = 24
    """Pictures of the avatar, from all around, that textures and splats are tuned to."""
    view_size: int = 256
    """Width and height of those pictures in pixels."""
    march: RenderSettings = field(default_factory=lambda: RenderSettings(steps=512))
    """How rays are marched."""

    def check(self) -> None:
        """Refuse values that nothing can be made with (UserError)."""
        mesh = self.mesh
        if mesh.triangles < 100:
            raise UserError(f"mesh.triangles is {mesh.triangles}; a head takes at least 100.")
        if not 32 <= mesh.resolution <= 512:
            raise UserError(f"mesh.resolution is {mesh.resolution}; it must be from 32 to 512.")
        if not 64 <= mesh.texture <= 8192 or mesh.texture & (mesh.texture - 1):
            raise UserError(
                f"mesh.texture is {mesh.texture}; it must be a power of two from 64 to 8192."
            )
        if not 100 <= self.splats.count <= 10**6 or self.splats.steps < 0:
            raise UserError("splats.count must be from 100 to 1,000,000 and splats.steps ≥ 0.")
        if self.metres_per_unit <= 0:
            raise UserError(f"metres_per_unit is {self.metres_per_unit}; it must be positive.")
        if self.views < 8 or self.view_size < 32:
            raise UserError("exports need views ≥ 8 and view_size ≥ 32.")


def format_of(path: Path) -> Format:
    """The format that a file's suffix names.

    Raises:
        UserError: none of :data:`FORMATS`.
    """
    suffix = path.suffix.lower().lstrip(".")
    for known in FORMATS:
        if suffix == known:
            return known
    raise UserError(
        f"{path}: avatars are exported as {', '.join('.' + known for known in FORMATS)}; give "
        "the file one of these suffixes."
    )
