"""``triavatar generate``: portraits to avatars."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from captures.multiview import MultiViewSet, select_names
from photos.portraits import PortraitMaker, PortraitSettings, is_photograph
from renderer.fitted_set import FittedSet
from runtime.devices import select_device
from runtime.errors import UserError
from runtime.files import file_hash, read_json, write_json
from runtime.picture_files import PICTURE_SUFFIXES, read_picture
from runtime.progress import progress
from runtime.runs import RunFolder
from triavatar.pipeline import AvatarPipeline, SamplingConfig
from triavatar.render_avatar import ViewConfig, write_views
from triavatar.sheets import Cell, Row, draw_sheet, save_picture


@dataclass
class GenerateConfig:
    """Settings of ``triavatar generate``."""

    vae: str
    """AutoencoderKL the features were made with: folder or hub id."""
    base: Path
    """Base model: run folder of train-base, or its snapshots/model."""
    upsampler: Path
    """Upsampler: run folder of train-upsampler, or its snapshots/model."""
    decoder: Path
    """Decoder folder: <run>/decoder of fit-decoder or fit-triplanes."""
    output_dir: Path
    """Run folder: triplanes/<name>.safetensors and avatars/<name>/."""
    portraits: tuple[Path, ...] = ()
    """Photographs of faces, or square portraits, transparent or on white, with the head as in the
    data; files or folders of them."""
    prepare: bool = True
    """Find, frame and cut out the face of portraits that have a background, as the subcommand
    portrait does; otherwise all portraits are taken as they are."""
    portrait: PortraitSettings = field(default_factory=PortraitSettings)
    """How photographs become portraits."""
    root: Path | None = None
    """Multi-view set whose frontal pictures are the portraits, in place of --portraits."""
    convention: str | None = None
    """Camera convention of a set without dataset.json."""
    txt_file: Path | None = None
    """Text file with one subject of the set per line; all without it."""
    start_idx: int = 0
    """First portrait of the list."""
    end_idx: int | None = None
    """One past the last portrait of the list."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    """How the two diffusion models are sampled."""
    views: ViewConfig = field(default_factory=ViewConfig)
    """What to render of every avatar."""
    seed: int = 0
    """Names the noise; each portrait has its own."""
    device: str = field(default="auto", metadata={"resumable": True})
    """auto, cpu, cuda or cuda:N."""


def list_portraits(config: GenerateConfig) -> list[tuple[str, Path]]:
    """(avatar name, picture file) of every portrait asked for.

    Raises:
        UserError: none or both sources are given, a file is missing, or two have one name.
    """
    if (config.root is None) == (not config.portraits):
        raise UserError("generate needs either --portraits or --root (one of the two).")
    if config.root is not None:
        dataset = MultiViewSet(config.root, config.convention)
        names = select_names(dataset.names, config.txt_file, config.start_idx, config.end_idx)
        return [(name, config.root / name / "img_proc_fg_000000.png") for name in names]
    found = [(file.stem, file) for path in config.portraits for file in _files(path)]
    found = found[config.start_idx : config.end_idx]
    if not found:
        raise UserError("no portraits are left between --start_idx and --end_idx.")
    names = [name for name, _ in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"two portraits are named {twice[0]}; rename one of the files.")
    return found


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix.lower() in PICTURE_SUFFIXES)
        if not files:
            raise UserError(f"{path} holds no pictures ({', '.join(PICTURE_SUFFIXES)}).")
        yield from files
    elif path.is_file():
        yield path
    else:
        raise UserError(f"picture missing: {path}")


def generate(config: GenerateConfig) -> None:
    """Make one avatar per portrait; those already made from the same picture are kept.

    Per portrait: ``triplanes/<name>.safetensors``, and in ``avatars/<name>/`` the still views,
    ``turntable.mp4``, ``sheet.png`` and, last, ``avatar.json``.

    Raises:
        UserError: a portrait, a model or the decoder is missing, damaged, or they don't fit.
    """
    config.views.check()
    device = select_device(config.device)
    portraits = list_portraits(config)
    # All pictures are read before anything is made, so that a bad one costs nothing.
    pictures, prepared = read_portraits(config, portraits)
    pipeline = AvatarPipeline.from_folders(
        config.vae,
        config.base,
        config.upsampler,
        config.decoder,
        config.sampling,
        device,
    )
    run = RunFolder(config.output_dir, config, "generate")
    fitted = FittedSet.create(run.path, pipeline.decoder, pipeline.triplane_shape)
    for name, file in progress(portraits, desc="generate", unit="avatar"):
        folder = run.path / "avatars" / name
        digest = file_hash(file)
        if _is_made(fitted, name, folder, digest):
            continue
        planes = pipeline([pictures[name]], [name], config.seed, config.sampling)[0]
        fitted.put(name, planes)
        # Rendered from what is stored, in half precision, so that a later render agrees.
        stored = fitted.load(name).to(device)
        stills = write_views(folder, stored, pipeline.decoder, config.views)
        if name in prepared:
            save_picture(folder / "portrait.png", pictures[name])
        sheet = [Cell(pictures[name], "portrait")]
        sheet += [
            Cell(still, f"{azimuth:+.0f}°")
            for still, azimuth in zip(stills, config.views.azimuths, strict=True)
        ]
        save_picture(
            folder / "sheet.png", draw_sheet([Row("", sheet)], min(config.views.size, 256), name)
        )
        write_json(folder / "avatar.json", {"portrait_sha256": digest, "seed": config.seed})
    run.log(f"{len(portraits)} avatars are in {run.path / 'avatars'}")


def read_portraits(
    config: GenerateConfig, portraits: list[tuple[str, Path]]
) -> tuple[dict[str, np.ndarray], set[str]]:
    """Pictures of the portraits by name, and the names of those made from photographs.

    Raises:
        UserError: a file is unreadable, or a photograph doesn't show one face well enough.
    """
    pictures = {name: read_picture(file, "portrait") for name, file in portraits}
    if config.root is not None or not config.prepare:
        return pictures, set()
    photographs = [(name, file) for name, file in portraits if is_photograph(pictures[name])]
    if photographs:
        maker = PortraitMaker(config.portrait)
        for name, file in photographs:
            try:
                pictures[name] = maker(pictures[name], str(file))
            except UserError as error:
                raise UserError(f"{error} (--no_prepare takes portraits as they are)") from None
    return pictures, {name for name, _ in photographs}


def _is_made(fitted: FittedSet, name: str, folder: Path, digest: str) -> bool:
    record = folder / "avatar.json"
    if not (record.is_file() and fitted.path(name).is_file()):
        return False
    return read_json(record).get("portrait_sha256") == digest
