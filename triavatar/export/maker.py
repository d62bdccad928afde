"""From a triplane to files: every piece is made once, when the first file needs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

from torch import Tensor

from renderer.decoder import TriplaneDecoder
from runtime.config import check_settings
from triavatar.export.atlas import unwrap
from triavatar.export.bake import Views, bake, correct, photograph
from triavatar.export.field import Field
from triavatar.export.gaussians.ply import write_ply
from triavatar.export.gaussians.splats import Splats, place_splats, tune
from triavatar.export.glb import write_glb, write_obj
from triavatar.export.mesh import Mesh, Placement, place
from triavatar.export.page import write_page
from triavatar.export.settings import ExportSettings, Format, format_of
from triavatar.export.surface import around, extract_surface, simplify, smooth, with_normals
from triavatar.rig.head_model import find_head_model
from triavatar.rig.head_texture import head_texture
from triavatar.rig.moving import MovingAvatar, part_of, shell_faces, with_skirt
from triavatar.rig.poser import rig_head
from triavatar.rig.rigged_glb import write_rigged_glb

DISTANCE = 3.9
"""From the cameras of the tuning pictures to the box's centre: the bust fills them."""


def _ignore(step: str) -> None:
    """Tell nobody."""


class Maker:
    """Makes what the files of one avatar hold.

    Args:
        planes: [3, C, H, W].
        decoder: the decoder they belong to, on the same device.
        settings: how finely.
        tell: called with the name of each piece that is begun.

    Raises:
        UserError: the avatar is empty.
    """

    def __init__(
        self,
        planes: Tensor,
        decoder: TriplaneDecoder,
        settings: ExportSettings | None = None,
        tell: Callable[[str], None] = _ignore,
    ):
        self.settings = settings or ExportSettings()
        check_settings(self.settings)
        self.tell = tell
        self.field = Field.of(planes.float(), decoder, self.settings.march)

    @cached_property
    def surface(self) -> Mesh:
        """The surface with normals, simplified, in world units."""
        self.tell("surface")
        settings = self.settings.mesh
        found = smooth(extract_surface(self.field, settings.resolution), settings.smoothing)
        return with_normals(simplify(found, settings.triangles), self.field)

    @cached_property
    def placement(self) -> Placement:
        """Return where files put the avatar."""
        return place(self.surface.vertices, self.settings.metres_per_unit)

    @cached_property
    def views(self) -> Views:
        """The pictures that textures and splats are tuned to."""
        self.tell("pictures")
        cameras = around(self.settings.views, self.settings.view_size, DISTANCE)
        return photograph(self.field, cameras)

    @cached_property
    def mesh(self) -> Mesh:
        """The surface with its texture, in world units."""
        surface = self.surface
        self.tell("unwrapping")
        unwrapped = unwrap(surface, self.settings.mesh.texture)
        self.tell("texture")
        baked = bake(unwrapped, self.field, self.settings.mesh.texture)
        views = self.views
        self.tell("texture")
        return correct(baked, views)

    @cached_property
    def splats(self) -> Splats:
        """The avatar as Gaussians, in world units."""
        settings, views = self.settings.splats, self.views
        self.tell("splats")
        placed = place_splats(self.field, views, settings.count)
        return tune(placed, views, settings.steps)

    @cached_property
    def moving(self) -> MovingAvatar:
        """The head model laid under the avatar, and what is left of its surface around it."""
        model = find_head_model(self.settings.head_model)
        surface = self.surface
        self.tell("rig")
        return MovingAvatar.of(rig_head(model, self.field), surface)

    @cached_property
    def rigged(self) -> tuple[Mesh, Mesh]:
        """The head that moves, and hair and clothes around it, in world units, textured."""
        moving, mesh = self.moving, self.mesh
        self.tell("rig")
        size = max(self.settings.mesh.texture // 2, 64)
        texture = head_texture(moving, self.field, self.views, size)
        shell = part_of(mesh, shell_faces(moving.head, mesh))
        model = moving.head.model
        head = Mesh(moving.head.points[model.source], model.faces, None, model.uv, texture)
        return head, with_skirt(shell, moving.head.registered.skin)

    def _write_rigged(self, path: Path, title: str) -> None:
        head, shell = self.rigged
        assert head.texture is not None
        given = (self.moving.head, head.texture, shell, self.placement, title)
        write_rigged_glb(path, *given, self.settings.mesh.unlit)

    def write(self, path: Path, title: str | None = None) -> None:
        """Write one file; its suffix decides what.

        Args:
            path: .glb, .rigged.glb, .obj (with .mtl and .jpg beside it), .ply or .html.
            title: of what is in it; the file's name without suffix by default.

        Raises:
            UserError: the avatar has no surface, the suffix is unknown, or a package is missing.
        """
        kind: Format = format_of(path)
        title = title or path.name[: -len(kind) - 1]
        if kind == "rigged.glb":
            self._write_rigged(path, title)
        elif kind == "glb":
            write_glb(path, self.placement.mesh(self.mesh), title, self.settings.mesh.unlit)
        elif kind == "obj":
            write_obj(path, self.placement.mesh(self.mesh), title)
        elif kind == "ply":
            write_ply(path, self.splats, self.placement, self.settings.splats.compressed)
        else:
            write_page(path, self.mesh, title)


def take_away(
    folder: Path,
    planes: Tensor,
    decoder: TriplaneDecoder,
    formats: Sequence[Format] = ("glb", "ply", "html"),
    settings: ExportSettings | None = None,
    title: str | None = None,
) -> list[Path]:
    """Write ``avatar.glb``, ``avatar.ply`` and ``avatar.html`` (or others) into a folder.

    Args:
        folder: made when missing.
        planes, decoder, settings: see :class:`Maker`.
        formats: which files.
        title: of what is in them; the folder's name without.

    Returns:
        The files.

    Raises:
        UserError: the avatar has no surface, or a package is missing.
    """
    files = [folder / f"avatar.{kind}" for kind in formats]
    if files:
        maker = Maker(planes, decoder, settings)
        for file in files:
            maker.write(file, title or folder.name)
    return files
