"""``triavatar generate``: portraits to avatars."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from captures.multiview import MultiViewSet, select_names
from likeness.settings import LikenessSettings
from photos.portraits import PortraitSettings
from renderer.fitted_set import FittedSet
from runtime.errors import PartialFailure, UserError
from runtime.files import file_hash, read_json
from runtime.picture_files import name_pictures, read_picture
from runtime.progress import progress
from runtime.runs import RunFolder
from triavatar.avatar import RECORD, Avatar
from triavatar.bundles.bundle import find_bundle
from triavatar.pipeline import AvatarPipeline
from triavatar.portrait_diffusion import SamplingConfig
from triavatar.render_avatar import ViewConfig, write_views
from triavatar.sheets import Cell, Row, draw_sheet, save_picture

RESUMABLE = {"resumable": True}


@dataclass
class GenerateConfig:
    """Settings of ``triavatar generate``."""

    portraits: tuple[Path, ...] = field(default=(), metadata=RESUMABLE)
    """Photographs of faces, or square portraits, transparent or on white, with the head as in the
    data; files or folders of them."""
    model: str | None = None
    """Model: folder that `triavatar bundle` wrote, or its id on the hub; without it the one that
    comes with the project."""
    output_dir: Path = Path("avatars")
    """Run folder: triplanes/<name>.safetensors and avatars/<name>/; more portraits may follow."""
    vae: str | None = None
    """In place of --model: AutoencoderKL the base model was trained with, folder or hub id."""
    base: Path | None = None
    """In place of --model: run folder of train-base, or its snapshots/model."""
    upsampler: Path | None = None
    """In place of --model: run folder of train-upsampler, or its snapshots/model."""
    decoder: Path | None = None
    """In place of --model: run folder of fit-decoder or fit-triplanes, or its decoder/."""
    prepare: bool = True
    """Find, frame and cut out the face of portraits that have a background, as the subcommand
    portrait does; otherwise all portraits are taken as they are."""
    portrait: PortraitSettings = field(default_factory=PortraitSettings)
    """How photographs become portraits."""
    root: Path | None = None
    """Multi-view set whose frontal pictures are the portraits, in place of photographs."""
    convention: str | None = None
    """Camera convention of a set without dataset.json."""
    txt_file: Path | None = field(default=None, metadata=RESUMABLE)
    """Text file with one subject of the set per line; all without it."""
    start_idx: int = field(default=0, metadata=RESUMABLE)
    """First portrait of the list."""
    end_idx: int | None = field(default=None, metadata=RESUMABLE)
    """One past the last portrait of the list."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    """How the two diffusion models are sampled."""
    likeness: LikenessSettings = field(default_factory=LikenessSettings)
    """How a likeness is found, where the model has one: --likeness off, guide or full."""
    views: ViewConfig = field(default_factory=ViewConfig)
    """What to render of every avatar."""
    seed: int = 0
    """Names the noise; each portrait has its own."""
    device: str = field(default="auto", metadata=RESUMABLE)
    """auto, cpu, cuda or cuda:N."""


def load_pipeline(config: GenerateConfig) -> AvatarPipeline:
    """Load the model that the settings name.

    Raises:
        UserError: it is missing or damaged, or both a model and parts of one are given.
    """
    given = {"vae": config.vae, "base": config.base}
    given |= {"upsampler": config.upsampler, "decoder": config.decoder}
    parts: dict[str, Path | str] = {k: v for k, v in given.items() if v is not None}
    how = {"portrait": config.portrait, "sampling": config.sampling, "device": config.device}
    if not parts:
        return AvatarPipeline.from_bundle(find_bundle(config.model), **how)
    if config.model is not None:
        raise UserError(f"give either --model or --{next(iter(parts))}, not both.")
    return AvatarPipeline.from_parts(parts, **how)


def list_portraits(config: GenerateConfig) -> dict[str, Path]:
    """Return the picture files of the portraits asked for, by the avatars' names.

    Raises:
        UserError: none or both sources are given, or two portraits have one name.
    """
    if (config.root is None) == (not config.portraits):
        raise UserError(
            "generate needs photographs (triavatar generate PHOTO), or a set with --root, one of "
            "the two."
        )
    if config.root is not None:
        dataset = MultiViewSet(config.root, config.convention)
        names = select_names(dataset.names, config.txt_file, config.start_idx, config.end_idx)
        return {name: config.root / name / "img_proc_fg_000000.png" for name in names}
    found = list(name_pictures(config.portraits).items())[config.start_idx : config.end_idx]
    if not found:
        raise UserError("no portraits are left between --start_idx and --end_idx.")
    return dict(found)


def read_portraits(
    config: GenerateConfig, files: Mapping[str, Path], pipeline: AvatarPipeline
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Read and prepare portraits: uint8 [S, S, 3 | 4] by name, and why others were refused."""
    prepare = config.prepare and config.root is None
    pictures, refused = {}, []
    for name, file in progress(
        files.items(), desc="portraits", unit="photo", disable=len(files) < 4
    ):
        try:
            pictures[name] = pipeline.prepare(file) if prepare else read_picture(file, "portrait")
        except UserError as error:
            hint = " (--no_prepare takes portraits as they are)" if prepare else ""
            refused.append(f"{error}{hint}")
            continue
        height, width = pictures[name].shape[:2]
        if height != width:
            del pictures[name]
            refused.append(
                f"{file} is {width} × {height} pixels, not square; crop it to a square around the "
                "head."
            )
    return pictures, refused


def generate(config: GenerateConfig) -> None:
    """Make one avatar per portrait; those already made from the same picture are kept.

    Per portrait: ``triplanes/<name>.safetensors``, and in ``avatars/<name>/`` the still views,
    ``turntable.mp4``, ``sheet.png``, ``portrait.png`` and, last, ``avatar.json``.

    Raises:
        UserError: a model is missing or damaged, its parts don't fit, or no portrait will do.
        PartialFailure: some portraits were refused; the others' avatars are made.
    """
    config.views.check()
    files = list_portraits(config)
    pipeline = load_pipeline(config)
    # All pictures are looked at before anything is made.
    pictures, refused = read_portraits(config, files, pipeline)
    if not pictures:
        raise UserError("\n       ".join(refused))
    run = RunFolder(config.output_dir, config, "generate")
    for name, picture in progress(pictures.items(), desc="generate", unit="avatar"):
        source = {"portrait_sha256": file_hash(files[name]), "seed": config.seed}
        if not _is_made(run.path, name, source):
            avatar = pipeline.make(
                picture,
                name,
                seed=config.seed,
                sampling=config.sampling,
                likeness=config.likeness,
            )
            avatar.record |= source
            write_avatar(run.path, avatar, config.views)
            for warning in avatar.record.get("warnings", []):
                run.log(f"{files[name]}: {warning}")
    count = f"{len(pictures)} avatar{'s' * (len(pictures) > 1)}"
    run.log(f"{count} in {run.path / 'avatars'}; to look at: triavatar view {run.path}")
    if refused:
        raise PartialFailure("\n       ".join(refused))


def write_avatar(folder: Path, avatar: Avatar, views: ViewConfig) -> None:
    """Write an avatar's views and sheet, then the avatar itself."""
    beside = folder / "avatars" / avatar.name
    stills = write_views(beside, avatar, views)
    cells = [Cell(avatar.portrait, "portrait")]
    cells += [
        Cell(still, f"{azimuth:+.0f}°")
        for still, azimuth in zip(stills, views.azimuths, strict=True)
    ]
    sheet = draw_sheet([Row("", cells)], min(views.size, 256), avatar.name)
    save_picture(beside / "sheet.png", sheet)
    avatar.save(folder)


def _is_made(folder: Path, name: str, source: dict[str, object]) -> bool:
    record = folder / "avatars" / name / RECORD
    if not (record.is_file() and (folder / "manifest.json").is_file()):
        return False
    known = read_json(record)
    made = all(known.get(key) == value for key, value in source.items())
    return made and FittedSet.open(folder).path(name).is_file()
