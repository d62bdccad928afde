"""``triavatar fit``: everything that is known of one person to one avatar, in one command."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from captures.selection import SetConvention
from likeness.settings import LikenessSettings
from likeness.several.fit_views import SeveralSettings
from photos.portraits import PortraitSettings
from runtime.config import check_settings, own_first
from runtime.described import read_described
from runtime.errors import UserError
from runtime.files import check_file, file_hash
from runtime.progress import progress
from triavatar.avatar import RECORD, AvatarRecord
from triavatar.bundles.bundle import find_bundle
from triavatar.export.libraries import check_packages
from triavatar.export.settings import Format
from triavatar.fit.captured import CaptureSettings, kind_of
from triavatar.pipeline import AvatarPipeline
from triavatar.render_avatar import ViewConfig
from triavatar.written.folder import write_avatar

STEPS = 5
MOST_SOURCE = 2**32
"""Bytes of a file that a person is fitted to."""


@own_first
@dataclass(kw_only=True)
class FitConfig(SetConvention):
    """Settings of ``triavatar fit``."""

    pictures: tuple[Path, ...] = ()
    """Of one person: several pictures, a folder of them, a video, a textured mesh (.glb, .obj,
    .ply), a folder with transforms.json or a COLMAP model, or a subject of a multi-view set."""
    name: str | None = None
    """Name of the avatar; that of the folder or of the first file without it."""
    model: str | None = None
    """Model with likeness: folder that `triavatar bundle` wrote, or its id on the hub; without it
    the one that comes with the project."""
    output_dir: Path = Path("avatars")
    """Folder of avatars, the one of `generate` too."""
    capture: CaptureSettings = field(default_factory=CaptureSettings)
    """How videos, meshes and captures are read."""
    portrait: PortraitSettings = field(default_factory=lambda: PortraitSettings(max_turn=90.0))
    """How pictures without cameras are framed and cut out."""
    likeness: LikenessSettings = field(default_factory=LikenessSettings)
    """How the first picture's likeness is found, from which the fit starts."""
    several: SeveralSettings = field(default_factory=SeveralSettings)
    """How planes are fitted to all pictures."""
    views: ViewConfig = field(default_factory=ViewConfig)
    """What to render of the avatar."""
    export: tuple[Format, ...] = ()
    """Files for other programs beside the views: glb, obj, ply, html."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""


def fit(config: FitConfig) -> None:
    """Make one avatar of everything that is known of a person.

    Raises:
        UserError: nothing can be read, no picture can be used, or the model knows no people.
    """
    check_settings(config)
    check_packages(config.export)
    kind_of(config.pictures)
    name = _name(config)
    source = _fingerprint(config.pictures)
    beside = config.output_dir / "avatars" / name
    if _made(config.output_dir, name, source):
        print(f"{beside} is made of these pictures already")
        return
    portrait = replace(config.portrait, max_turn=90.0)
    pipeline = AvatarPipeline.from_bundle(
        find_bundle(config.model), portrait=portrait, device=config.device
    )
    bar = progress(total=STEPS, desc=f"fit {name}", unit="step")
    try:
        avatar = pipeline.fit(
            config.pictures,
            name=name,
            capture=config.capture,
            convention=config.convention,
            likeness=config.likeness,
            several=config.several,
            tell=lambda step: (bar.set_postfix_str(step), bar.update(1)),
        )
    finally:
        bar.close()
    avatar.record["source_sha256"] = source
    write_avatar(config.output_dir, avatar, config.views, config.export)
    for warning in avatar.record["warnings"]:
        print(warning)
    found = avatar.record["fit"]
    shown = sum(found["psnr"]) / len(found["psnr"])
    print(
        f"{name}: {len(found['pictures'])} pictures, shown at {shown:.1f} dB, in {beside}; "
        f"to look at it: triavatar view {config.output_dir}"
    )


def _made(folder: Path, name: str, source: str) -> bool:
    """Whether the avatar is there, made of the same files."""
    record = folder / "avatars" / name / RECORD
    triplane = folder / "triplanes" / f"{name}.safetensors"
    if not (record.is_file() and triplane.is_file()):
        return False
    known = read_described(AvatarRecord, record).model_extra or {}
    if known.get("source_sha256") != source:
        raise UserError(
            f"{record.parent} is the avatar of something else; name this one with --name, or "
            "choose another --output_dir."
        )
    return True


def _name(config: FitConfig) -> str:
    first = config.pictures[0]
    name = config.name or (first.stem if first.is_file() else first.resolve().name)
    if not re.fullmatch(r"[^/\\.][^/\\]*", name):
        raise UserError(f"'{name}' can't name an avatar; give another one with --name.")
    return name


def _fingerprint(paths: tuple[Path, ...]) -> str:
    """SHA-256 of the names and the content of all files."""
    digest = hashlib.sha256()
    for path in paths:
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in files:
            check_file(file, MOST_SOURCE)
            digest.update(f"{file.name} {file_hash(file)}\n".encode())
    return digest.hexdigest()
