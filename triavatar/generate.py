"""``triavatar generate``: portraits to avatars."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from captures.multiview import MultiViewSet
from captures.rgba import PictureFormat
from captures.selection import ResumableNames, SubjectSelection
from diffusion.sampling.sampler_config import SamplingConfig
from likeness.settings import LikenessSettings
from photos.portraits import PortraitSettings
from renderer.fitted_set import FittedSet
from runtime.config import check_settings, own_first, setting
from runtime.described import read_described
from runtime.errors import UserError
from runtime.files import file_hash
from runtime.launch import is_main_process
from runtime.picture_files import name_pictures
from runtime.progress import Stopwatch, counted, progress
from runtime.runs import RunFolder
from runtime.spread import Job, SpreadSettings, Turns, spread
from triavatar.avatar import RECORD, Avatar, AvatarRecord
from triavatar.bundles.bundle import find_bundle
from triavatar.export.libraries import check_packages
from triavatar.export.settings import Format
from triavatar.pipeline import AvatarPipeline
from triavatar.render_avatar import ViewConfig
from triavatar.written.folder import installed, write_avatar

KEPT = 200
"""Portraits kept in memory from when they are checked until their avatars are made."""


@own_first
@dataclass(kw_only=True)
class GenerateConfig(SpreadSettings, ResumableNames, SubjectSelection):
    """Settings of ``triavatar generate``."""

    portraits: tuple[Path, ...] = setting((), resumable=True)
    """Photographs of faces, or portraits that are cut out or on white; files or folders."""
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
    """Find, frame and cut out the face, as the subcommand portrait does; otherwise portraits are
    taken as they are: square, with the head as in the data."""
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
    samples: int = setting(1, at_least=1, at_most=1000)
    """Avatars of each portrait; of more than one a map shows where they differ."""
    export: tuple[Format, ...] | None = setting(None, resumable=True)
    """Files for other programs, avatar.<format> beside the views: glb or obj, a textured mesh;
    rigged.glb, a head that moves; ply, Gaussians; html, a page for any browser. Without it glb,
    rigged.glb, ply and html of photographs, as far as their packages are installed, and none of a
    set; about a minute an avatar."""
    seed: int = setting(0, resumable=True)
    """Names the noise; each portrait has its own. Avatars of another seed than 0 are called
    <portrait>_seed<N>, so that several go into one folder."""
    device: str = setting("auto", resumable=True)
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

    @property
    def exports(self) -> tuple[Format, ...]:
        """The files for other programs that are made of every avatar."""
        if self.export is not None:
            return self.export
        return installed() if self.root is None else ()


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
        suffix = f"_seed{config.seed}" if config.seed else ""
        return cls({f"{name}{suffix}": files[name] for name in names})

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
            picture = file if self.stored is None else np.asarray(self.stored.read(file))
            return pipeline.prepare(picture, str(file), as_it_is=not prepare)
        except UserError as error:
            hint = " (--no_prepare takes portraits as they are)" if prepare else ""
            raise UserError(f"{error}{hint}") from None


@dataclass(frozen=True)
class Request:
    """Avatars to be made: of which portraits, and how."""

    config: GenerateConfig
    portraits: Portraits

    def source(self, name: str) -> dict[str, object]:
        """Return what an avatar's record says of its origin."""
        found = {
            "portrait_sha256": file_hash(self.portraits.files[name]),
            "seed": self.config.seed,
        }
        return found | ({"sampled": self.config.samples} if self.config.samples > 1 else {})

    def made(self, name: str) -> bool:
        """Return whether an avatar is there, of the picture that its name stands for now."""
        folder = self.config.output_dir
        record = folder / "avatars" / name / RECORD
        asked = [record.with_name(f"avatar.{kind}") for kind in self.config.export or ()]
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

    def check(self) -> dict[str, str]:
        """Read all portraits that are still to be made; why those that won't do are refused.

        Raises:
            UserError: none will, with the reasons.
        """
        refused = {}
        files = self.request.portraits.files
        waiting = [name for name in files if not self.request.made(name)]
        for name in progress(waiting, desc="portraits", unit="portrait", disable=len(waiting) < 2):
            try:
                picture = self._read(name)
            except UserError as error:
                refused[name] = str(error)
                continue
            if len(self._pictures) < KEPT:
                self._pictures[name] = picture
        if refused and len(refused) == len(files):
            raise UserError("\n       ".join(refused.values()))
        return refused

    def _read(self, name: str) -> np.ndarray:
        return self.request.portraits.read(name, self.pipeline, self.request.config.prepare)

    def __call__(self, names: list[str], turns: Turns) -> None:
        """Make the avatars and write them."""
        config = self.request.config
        for name in names:
            watch = Stopwatch()
            picture = self._pictures.pop(name, None)
            picture = self._read(name) if picture is None else picture
            watch.lap("portrait")
            avatar = self._make(picture, name, 0)
            watch.lap("avatar")
            samples = [self._make(picture, name, i) for i in range(1, config.samples)]
            if samples:
                watch.lap("samples")
            avatar.record |= {**self.request.source(name), "seconds": watch.laps}
            write_avatar(config.output_dir, avatar, config.views, config.exports, samples)

    def _make(self, picture: np.ndarray, name: str, sample: int) -> Avatar:
        config = self.request.config
        likeness = config.likeness
        if sample and likeness.level == "full":
            # What planes are tuned to is the portrait; samples differ in the rest.
            likeness = replace(likeness, level="guide")
        how = {"sampling": config.sampling, "likeness": likeness}
        return self.pipeline.make(picture, name, seed=config.seed + sample, **how)


def generate(config: GenerateConfig) -> None:
    """Make one avatar per portrait; those already made from the same picture are kept.

    All portraits are looked at first; those that won't do are named at once and listed at the end,
    the others' avatars are made. What is written: see :mod:`triavatar.written.folder`.

    Raises:
        UserError: a model is missing or damaged, its parts don't fit, or no portrait will do.
        PartialFailure: some portraits were refused; the others' avatars are made.
    """
    check_settings(config)
    check_packages(config.export or ())
    portraits = Portraits.of(config)
    request = Request(config, portraits)
    maker, refused = None, {}
    if config.here:  # a model or portraits that can't be used leave nothing behind
        maker = AvatarMaker(request)
        refused = maker.check()
    run = RunFolder(config.output_dir, config, "generate", is_main_process(), shared=True)
    for reason in refused.values():
        run.log(f"left out: {reason}")
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

    usable = [name for name in portraits.files if name not in refused]
    report = spread(job, usable, config, warn, maker)
    made = len(report.names) - len(report.failures)
    if made:
        _say_where(run, made, usable[0])
    report.names = [*report.names, *refused]
    report.failures |= refused
    report.raise_failures()


def _say_where(run: RunFolder, made: int, name: str) -> None:
    place = run.path / "avatars"
    run.log(f"{counted(made, 'avatar')} in {place}, each with its report.html")
    run.log(f"to look at: triavatar view {run.path}")
    run.log(f"to go on:   triavatar export {place / name} --to glb rigged.glb obj ply")
