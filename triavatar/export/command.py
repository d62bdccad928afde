"""``triavatar export``: avatars as files that other programs open."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from runtime.config import check_settings
from runtime.errors import UserError
from runtime.progress import progress
from triavatar.avatar import Avatar
from triavatar.avatar_files import find_triplanes
from triavatar.export.bake import photograph
from triavatar.export.compare import mesh_agreement, rigged_agreement, splat_agreement
from triavatar.export.libraries import check_packages
from triavatar.export.maker import DISTANCE, Maker
from triavatar.export.settings import ExportSettings, Format
from triavatar.export.surface import around

CHECK_VIEWS = 24
CHECK_SIZE = 192


@dataclass
class ExportConfig:
    """Settings of ``triavatar export``."""

    removed_settings: ClassVar[dict[str, str]] = {
        f"export.{name}": instead for name, instead in ExportSettings.removed_settings.items()
    }
    avatars: tuple[Path, ...]
    """Triplane files, triplane folders or folders of generated avatars."""
    to: tuple[Format, ...] = ("glb",)
    """Files to write of each: glb or obj, a textured mesh; rigged.glb, a head that moves (52 ARKit
    morph targets, bones) with hair and clothes around it; ply, Gaussians; html, a page for any
    browser."""
    output_dir: Path = Path("exports")
    """Folder for <avatar>.<format>."""
    decoder: Path | None = None
    """Decoder folder; found by itself for files inside a triplane folder."""
    export: ExportSettings = field(default_factory=ExportSettings)
    """How finely."""
    check: bool = False
    """Say how close what was made comes to pictures of the avatar from 24 other sides."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""


def list_avatars(paths: tuple[Path, ...]) -> dict[str, Path]:
    """Triplane files by avatar name.

    Raises:
        UserError: there are none, or two have one name.
    """
    found: dict[str, Path] = {}
    for path in paths:
        for name, file in find_triplanes(path).items():
            if found.setdefault(name, file) != file:
                raise UserError(
                    f"two avatars are named {name} ({found[name]} and {file}); export them into "
                    "folders of their own, one command each."
                )
    return found


def export(config: ExportConfig) -> None:
    """Write the files of every avatar; those of earlier exports are replaced.

    Raises:
        UserError: an avatar is missing, damaged or empty, or a package is missing.
    """
    check_settings(config)
    avatars = list_avatars(config.avatars)
    if not avatars or not config.to:
        raise UserError("export needs at least one avatar and one format in --to.")
    check_packages(config.to)
    bar = progress(total=len(avatars) * len(config.to), desc="export", unit="file")
    lines = []
    with bar:
        for name, file in avatars.items():
            avatar = Avatar.load(file, decoder=config.decoder, device=config.device)
            maker = Maker(
                avatar.planes,
                avatar.decoder,
                config.export,
                lambda step, name=name: bar.set_postfix_str(f"{name}: {step}"),
            )
            for kind in dict.fromkeys(config.to):
                path = config.output_dir / f"{name}.{kind}"
                maker.write(path, name)
                lines.append(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
                bar.update()
            if config.check:
                cameras = around(CHECK_VIEWS, CHECK_SIZE, DISTANCE, shift=0.5)
                views = photograph(maker.field, cameras)
                if {"glb", "obj", "html"} & set(config.to):
                    lines.append(f"{name}, mesh: {mesh_agreement(views, maker.mesh)}")
                if "rigged.glb" in config.to:
                    lines.append(f"{name}, rigged: {rigged_agreement(views, maker.rigged)}")
                if "ply" in config.to:
                    lines.append(f"{name}, splats: {splat_agreement(views, maker.splats)}")
    print("\n".join(lines))
