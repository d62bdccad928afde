"""The command line: a table of subcommands, each loaded only when it is asked for."""

import errno
import importlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from runtime.errors import PartialFailure, UserError, is_disk_full
from runtime.version import VERSION

OWN_PACKAGES = (
    "runtime",
    "captures",
    "renderer",
    "fitting",
    "diffusion",
    "photos",
    "studio",
    "likeness",
    "triavatar",
    "studies",
)
DRY_RUN = ("--dry-run", "--dry_run")


@dataclass(frozen=True)
class Stage:
    """A subcommand, by the names of its module, its dataclass and its function."""

    module: str
    config: str
    function: str
    summary: str
    first: str = ""
    """The setting that an argument right after the subcommand, without a flag, means."""

    def load(self) -> tuple[type, Callable[[Any], int | None]]:
        """Import the module; (dataclass, function)."""
        module = importlib.import_module(self.module)
        return getattr(module, self.config), getattr(module, self.function)


STAGES: dict[str, Stage] = {
    "studio render": Stage(
        "studio.sets.render_set",
        "StudioRenderConfig",
        "render_set",
        "Render a multi-view set of synthetic subjects.",
    ),
    "studio sheet": Stage(
        "studio.sets.contact_sheet",
        "StudioSheetConfig",
        "draw_sheet",
        "Draw a contact sheet of a set and histograms of its attributes.",
    ),
    "studio review": Stage(
        "studio.sets.review",
        "StudioReviewConfig",
        "review",
        "Draw random subjects from several sides and in several expressions, to judge them.",
    ),
    "studio diversity": Stage(
        "studio.sets.diversity",
        "StudioDiversityConfig",
        "report_diversity",
        "Measure how different a set's synthetic subjects are.",
    ),
    "studio import-meshes": Stage(
        "studio.sets.import_meshes",
        "ImportMeshesConfig",
        "import_meshes",
        "Render a multi-view set from a folder of textured meshes (GLB, OBJ).",
    ),
    "studio import-transforms": Stage(
        "captures.imports.transforms",
        "ImportTransformsConfig",
        "import_transforms",
        "Turn NeRF-style transforms.json folders into a multi-view set.",
    ),
    "studio import-colmap": Stage(
        "captures.imports.colmap",
        "ImportColmapConfig",
        "import_colmap",
        "Turn COLMAP captures (pictures, masks, sparse model) into a multi-view set.",
    ),
    "studio import-views": Stage(
        "captures.imports.views",
        "ImportViewsConfig",
        "import_views",
        "Check a RodinHD-layout folder and write its dataset.json.",
    ),
    "portrait": Stage(
        "photos.portraits",
        "PortraitConfig",
        "make_portraits",
        "Find the face in photographs, frame it as in a set and cut it out.",
    ),
    "train-vae": Stage(
        "diffusion.training.train_vae",
        "TrainVaeConfig",
        "train_vae",
        "Train a small AutoencoderKL on a set's portraits.",
    ),
    "encode-features": Stage(
        "diffusion.conditioning.encode_features",
        "EncodeFeaturesConfig",
        "encode_features",
        "Store the multi-scale VAE features of portraits.",
    ),
    "fit-decoder": Stage(
        "fitting.fit_decoder",
        "FitDecoderConfig",
        "fit_decoder",
        "Stage 1: fit the shared decoder with task replay and weight consolidation.",
    ),
    "fit-triplanes": Stage(
        "fitting.fit_triplanes",
        "FitTriplanesConfig",
        "fit_triplanes",
        "Stage 2: fit one triplane per object with the decoder frozen.",
    ),
    "triplanes downsample": Stage(
        "renderer.triplane_sets",
        "DownsampleConfig",
        "downsample",
        "Copy a triplane set with smaller planes, or with 8 bits a value.",
    ),
    "triplanes stats": Stage(
        "studies.triplane_stats",
        "TriplaneStatsConfig",
        "triplane_stats",
        "Range, smoothness and statistics of a triplane set; dB lost to small errors.",
    ),
    "train-base": Stage(
        "diffusion.training.train_base",
        "TrainBaseConfig",
        "train_base",
        "Train the base triplane diffusion model.",
    ),
    "train-upsampler": Stage(
        "diffusion.training.train_upsampler",
        "TrainUpsamplerConfig",
        "train_upsampler",
        "Train the upsampling triplane diffusion model.",
    ),
    "train-likeness": Stage(
        "likeness.learned.train_likeness",
        "TrainLikenessConfig",
        "train_likeness",
        "Learn what likeness needs of fitted people: a linear prior and a regression; minutes.",
    ),
    "sample-base": Stage(
        "diffusion.sampling.sample_base",
        "SampleBaseConfig",
        "sample_base",
        "Sample low-resolution triplanes from portrait features.",
    ),
    "sample-upsampler": Stage(
        "diffusion.sampling.sample_upsampler",
        "SampleUpsamplerConfig",
        "sample_upsampler",
        "Sample full-resolution triplanes from low-resolution ones.",
    ),
    "study likeness": Stage(
        "studies.likeness",
        "StudyLikenessConfig",
        "study_likeness",
        "Compare ways of finding a stranger's avatar from one portrait, on held-out people.",
    ),
    "study forgetting": Stage(
        "studies.forgetting",
        "StudyForgettingConfig",
        "study_forgetting",
        "Compare ways of fitting the decoder: what it forgets of whom, and when.",
    ),
    "render": Stage(
        "triavatar.render_avatar",
        "RenderConfig",
        "render",
        "Render a triplane: still views and a turntable.",
    ),
    "view": Stage(
        "triavatar.view",
        "ViewerConfig",
        "view",
        "Look at triplanes in the browser: orbit, depth, opacity.",
    ),
    "generate": Stage(
        "triavatar.generate",
        "GenerateConfig",
        "generate",
        "Make avatars from portraits: triplane, turntable, still views, sheet.",
    ),
    "export": Stage(
        "triavatar.export.command",
        "ExportConfig",
        "export",
        "Write avatars as files that other programs open: textured meshes.",
        first="avatars",
    ),
    "evaluate": Stage(
        "triavatar.evaluate",
        "EvaluateConfig",
        "evaluate",
        "Measure triplanes against the held-out views of a multi-view set.",
    ),
    "doctor": Stage(
        "captures.doctor.doctor",
        "DoctorConfig",
        "doctor",
        "Find what makes training on a multi-view set look wrong, and cure it.",
        first="root",
    ),
    "report": Stage(
        "triavatar.report",
        "ReportConfig",
        "report",
        "Draw portraits, generated and true views on one sheet; match subjects.",
    ),
    "bench render": Stage(
        "studies.bench.bench_render",
        "BenchRenderConfig",
        "bench_render",
        "Measure rendering against the plain reference: samples/s, frames/s, memory.",
    ),
    "bench fit": Stage(
        "studies.bench.bench_fit",
        "BenchFitConfig",
        "bench_fit",
        "Measure fitting against the plain reference: steps/s, time to a PSNR.",
    ),
    "bench fit-many": Stage(
        "studies.bench.bench_fit_many",
        "BenchFitManyConfig",
        "bench_fit_many",
        "Measure stage 2 on a few subjects and extrapolate to many: time, disk.",
    ),
    "bench studio": Stage(
        "studies.bench.bench_studio",
        "BenchStudioConfig",
        "bench_studio",
        "Measure rendering one subject and extrapolate to a set: time, memory, disk.",
    ),
}


def usage() -> str:
    """The help of the command itself; imports no stage."""
    width = max(map(len, STAGES)) + 2
    rows = "\n".join(f"  {name:<{width}}{stage.summary}" for name, stage in STAGES.items())
    return (
        f"triavatar {VERSION}: 3D head avatars from one portrait\n\n"
        "usage: triavatar SUBCOMMAND [--config FILE.yaml] [--dry-run] [flags]\n\n"
        f"{rows}\n\n"
        "Every subcommand: --help shows its settings with defaults and units; --config reads\n"
        "settings from a YAML file (flags win over it; the last --config counts); --dry-run\n"
        "prints the resolved settings as YAML and stops."
    )


def find_stage(arguments: list[str]) -> tuple[str, list[str]]:
    """(subcommand, the arguments after it).

    Raises:
        UserError: there is no such subcommand.
    """
    from runtime.config import nearest

    for words in (2, 1):
        name = " ".join(arguments[:words]).replace("_", "-")
        if name in STAGES:
            return name, arguments[words:]
    known = list(STAGES)
    families = {name.split()[0] for name in known if " " in name}
    asked = " ".join(arguments[:2]) if arguments[0] in families else arguments[0]
    raise UserError(f'unknown subcommand "{asked}"{nearest(asked, known)}')


def run(arguments: list[str]) -> int:
    """Run one subcommand; its exit status. See ``main`` for what becomes of errors."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if arguments[0] == "--version":
        print(VERSION)
        return 0
    from runtime.arguments import parse
    from runtime.config import to_yaml

    name, rest = find_stage(arguments)
    stage = STAGES[name]
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    # PyTorch's idle threads spin for their next task, by default so long that they keep the CPU
    # kernels' own threads off the cores (fitting: 21 → 26 steps/s on two); networks don't notice.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    config_class, function = stage.load()
    dry_run = any(argument in DRY_RUN for argument in rest)
    rest = [argument for argument in rest if argument not in DRY_RUN]
    if stage.first and rest and not rest[0].startswith("-"):
        rest = [f"--{stage.first}", *rest]
    config = parse(config_class, rest, f"triavatar {name}", stage.summary)
    if dry_run:
        print(to_yaml(config), end="")
        return 0
    if "TRIAVATAR_MATMUL" in os.environ:
        from runtime.precision import apply_matmul_precision

        apply_matmul_precision()
    _quiet_loading()
    try:
        return function(config) or 0
    finally:
        _release_folders()


def _release_folders() -> None:
    """Let others write where this command has written; most commands lock their folder."""
    if "runtime.ownership" in sys.modules:
        from runtime.ownership import release_folders

        release_folders()


def _quiet_loading() -> None:
    """diffusers' bars for loading local weights would push a stage's own bar off the screen."""
    if "diffusers" in sys.modules:
        from diffusers.utils import logging

        logging.disable_progress_bar()


def os_error_sentence(error: OSError) -> str | None:
    """What a failed file operation means to a user, or None when it is a fault of ours."""
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"no permission to read or write{where}; choose another folder or change its rights."
    if error.errno in (errno.ENOTDIR, errno.EISDIR, errno.EEXIST):
        return f"{error.strerror}{where}; a folder was given for a file, or the reverse."
    if error.errno == errno.ENOENT:
        return f"no such file or folder{where}; check the path."
    return None


def main(arguments: list[str] | None = None) -> int:
    """Entry point; the exit status.

    0 done, 1 done but for some parts (listed on stderr) or a check found something (doctor), 2 a
    mistake in the input (one sentence on stderr), 130 interrupted. Anything else is a fault of
    the program and shows its traceback.
    """
    try:
        return run(sys.argv[1:] if arguments is None else arguments)
    except UserError as error:
        return _fail(str(error), 2)
    except PartialFailure as error:
        return _fail(str(error), 1)
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package in OWN_PACKAGES:
            raise
        return _fail(f"the package {package} is missing; pip install -r requirements.txt.", 2)
    except KeyboardInterrupt:
        return _fail("interrupted; the same command resumes from the last save.", 130)
    except BrokenPipeError:
        # The reader of our output is gone (e.g. `| head`); nothing is left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if is_disk_full(error):
            return _fail("the disk is full; free some space and run the same command again.", 2)
        sentence = os_error_sentence(error) if isinstance(error, OSError) else None
        if sentence is None:
            raise
        return _fail(sentence, 2)


def _fail(sentence: str, status: int) -> int:
    print(f"error: {sentence}", file=sys.stderr)
    return status
