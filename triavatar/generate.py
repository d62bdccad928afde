"""``triavatar generate``: portraits to avatars."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from captures.multiview import MultiViewSet
from captures.rgba import PictureFormat
from captures.selection import ResumableNames, SubjectSelection
from likeness.settings import LikenessSettings
from photos.portraits import PortraitSettings
from renderer.fitted_set import FittedSet
from runtime.config import check_settings, own_first
from runtime.described import read_described
from runtime.errors import UserError
from runtime.files import file_hash
from runtime.launch import is_main_process
from runtime.picture_files import name_pictures
from runtime.progress import counted
from runtime.runs import RunFolder
from runtime.spread import Job, SpreadSettings, Turns, spread
from triavatar.avatar import RECORD, Avatar, AvatarRecord
from triavatar.bundles.bundle import find_bundle
from triavatar.export.libraries import check_packages
from triavatar.export.settings import Format
from triavatar.pipeline import AvatarPipeline, check_portrait, read_portrait
from triavatar.portrait_diffusion import SamplingConfig
from triavatar.render_avatar import ViewConfig, write_views
from triavatar.sheets import Cell, Row, draw_sheet, save_picture

RESUMABLE = {"resumable": True}


@own_first
@dataclass(kw_only=True)
class GenerateConfig(SpreadSettings, ResumableNames, SubjectSelection):
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
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    """How the two diffusion models are sampled."""
    likeness: LikenessSettings = field(default_factory=LikenessSettings)
    """How a likeness is found, where the model has one: --likeness off, guide or full."""
    views: ViewConfig = field(default_factory=ViewConfig)
    """What to render of every avatar."""
    export: tuple[Format, ...] = field(default=(), metadata=RESUMABLE)
    """Files for other programs, avatar.<format> beside the views: glb or obj, a textured mesh; ply,
    Gaussians; html, a page for any browser. All of them take about a minute an avatar."""
    seed: int = 0
    """Names the noise; each portrait has its own."""
    device: str = field(default="auto", metadata=RESUMABLE)
    """auto, cpu, cuda or cuda:N."""

    def check(self) -> None:
        """Refuse settings that contradict each other.

        Raises:
            UserError: names them.
        """
        super().check()
        if (self.root is None) == (not self.portraits):
            raise UserError(
                "generate needs photographs (triavatar generate PHOTO), or a set with --root, one "
                "of the two."
            )
        if self.model is not None and self.parts:
            raise UserError(f"give either --model or --{next(iter(self.parts))}, not both.")

    @property
    def parts(self) -> dict[str, Path | str]:
        """The parts of a model that are given in its place."""
        given = {"vae": self.vae, "base": self.base}
        given |= {"upsampler": self.upsampler, "decoder": self.decoder}
        return {name: part for name, part in given.items() if part is not None}


def load_pipeline(config: GenerateConfig) -> AvatarPipeline:
    """Load the model that the settings name.

    Raises:
        UserError: it is missing or damaged.
    """
    how = {"portrait": config.portrait, "sampling": config.sampling, "device": config.device}
    if config.parts:
        return AvatarPipeline.from_parts(config.parts, **how)
    return AvatarPipeline.from_bundle(find_bundle(config.model), **how)


@dataclass(frozen=True)
class Portraits:
    """The portraits that avatars are asked of.

    Attributes:
        files: their pictures by the avatars' names.
        stored: how a set keeps its pictures; None of photographs.
    """

    files: dict[str, Path]
    stored: PictureFormat | None = None

    @classmethod
    def of(cls, config: GenerateConfig) -> Portraits:
        """Find those that the settings name.

        Raises:
            UserError: two of them have one name, or none is left.
        """
        if config.root is not None:
            views = MultiViewSet(config.root, config.convention)
            names = config.chosen(views.names)
            return cls({name: views.portrait_path(name) for name in names}, views.pictures)
        files = name_pictures(config.portraits)
        names = list(files)[config.start_idx : config.end_idx]
        if not names:
            raise UserError("no portraits are left between --start_idx and --end_idx.")
        return cls({name: files[name] for name in names})

    def read(self, name: str, pipeline: AvatarPipeline, prepare: bool) -> np.ndarray:
        """Read one, and find, frame and cut out its face where that is asked for.

        Returns:
            uint8 [S, S, 3 | 4].

        Raises:
            UserError: it can't be read, shows no face that could be cut out, or is not square.
        """
        file = self.files[name]
        prepare = prepare and self.stored is None
        try:
            if self.stored is not None:
                picture = np.asarray(self.stored.read(file))
            else:
                picture = pipeline.prepare(file) if prepare else read_portrait(file)
        except UserError as error:
            hint = " (--no_prepare takes portraits as they are)" if prepare else ""
            raise UserError(f"{error}{hint}") from None
        check_portrait(picture, str(file))
        return picture


@dataclass(frozen=True)
class Request:
    """Avatars to be made: of which portraits, and how."""

    config: GenerateConfig
    portraits: Portraits

    def source(self, name: str) -> dict[str, object]:
        """Return what an avatar's record says of its origin."""
        return {
            "portrait_sha256": file_hash(self.portraits.files[name]),
            "seed": self.config.seed,
        }

    def made(self, name: str) -> bool:
        """Return whether an avatar is there, of the picture that its name stands for now."""
        folder = self.config.output_dir
        record = folder / "avatars" / name / RECORD
        asked = [record.with_name(f"avatar.{kind}") for kind in self.config.export]
        if not all(f.is_file() for f in (record, folder / "manifest.json", *asked)):
            return False
        known = read_described(AvatarRecord, record).model_extra or {}
        same = all(known.get(key) == value for key, value in self.source(name).items())
        return same and FittedSet.open(folder).path(name).is_file()


class AvatarMaker:
    """Makes avatars of portraits, one after the other.

    Raises:
        UserError: the model is missing or damaged, or its parts don't fit.
    """

    def __init__(self, request: Request):
        self.request = request
        self.pipeline = load_pipeline(request.config)
        self._pictures: dict[str, np.ndarray] = {}

    def find_usable(self) -> None:
        """Read portraits until one will do.

        Raises:
            UserError: none will, with the reasons.
        """
        reasons = []
        for name in self.request.portraits.files:
            try:
                self._pictures[name] = self._read(name)
                return
            except UserError as error:
                reasons.append(str(error))
        raise UserError("\n       ".join(reasons))

    def _read(self, name: str) -> np.ndarray:
        return self.request.portraits.read(name, self.pipeline, self.request.config.prepare)

    def __call__(self, names: list[str], turns: Turns) -> None:
        """Make the avatars and write them."""
        config = self.request.config
        for name in names:
            picture = self._pictures.pop(name, None)
            avatar = self.pipeline.make(
                self._read(name) if picture is None else picture,
                name,
                seed=config.seed,
                sampling=config.sampling,
                likeness=config.likeness,
            )
            avatar.record |= self.request.source(name)
            write_avatar(config.output_dir, avatar, config.views, config.export)


def generate(config: GenerateConfig) -> None:
    """Make one avatar per portrait; those already made from the same picture are kept.

    Per portrait: ``triplanes/<name>.safetensors``, and in ``avatars/<name>/`` the still views,
    ``turntable.mp4``, ``sheet.png``, ``portrait.png`` and, last, ``avatar.json``.

    Raises:
        UserError: a model is missing or damaged, its parts don't fit, or no portrait will do.
        PartialFailure: some portraits were refused; the others' avatars are made.
    """
    check_settings(config)
    check_packages(config.export)
    portraits = Portraits.of(config)
    request = Request(config, portraits)
    maker = None
    if config.here:  # a model or portraits that can't be used leave nothing behind
        maker = AvatarMaker(request)
        maker.find_usable()
    run = RunFolder(config.output_dir, config, "generate", is_main_process(), shared=True)
    job = Job(
        "generate",
        AvatarMaker,
        request,
        request.made,
        run.state / "turns",
        uses_gpu=config.device != "cpu",
        unit="portrait",
    )

    def warn(name: str, done: int) -> None:
        record = read_described(AvatarRecord, run.path / "avatars" / name / RECORD)
        for warning in record.warnings:
            run.log(f"{portraits.files[name]}: {warning}")

    report = spread(job, list(portraits.files), config, warn, maker)
    made = len(report.names) - len(report.failures)
    if made:
        place = run.path / "avatars"
        run.log(f"{counted(made, 'avatar')} in {place}; to look at: triavatar view {run.path}")
    report.raise_failures()


def write_avatar(
    folder: Path, avatar: Avatar, views: ViewConfig, export: tuple[Format, ...] = ()
) -> None:
    """Write an avatar's views, sheet and exports, then the avatar itself."""
    beside = folder / "avatars" / avatar.name
    stills = write_views(beside, avatar, views)
    cells = [Cell(avatar.portrait, "portrait")]
    cells += [
        Cell(still, f"{azimuth:+.0f}°")
        for still, azimuth in zip(stills, views.azimuths, strict=True)
    ]
    sheet = draw_sheet([Row("", cells)], min(views.size, 256), avatar.name)
    save_picture(beside / "sheet.png", sheet)
    if export:
        from triavatar.export.maker import take_away  # brings the export's kernels

        take_away(beside, avatar.planes, avatar.decoder, export, title=avatar.name)
    avatar.save(folder)
