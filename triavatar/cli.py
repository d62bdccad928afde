"""The command line: a table of subcommands, each loaded only when it is asked for."""

import os
import sys

from runtime.errors import (
    PartialFailure,
    UserError,
    is_disk_full,
    is_out_of_memory,
    os_error_sentence,
)
from runtime.version import VERSION
from triavatar.stages import STAGES, Stage

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


def usage() -> str:
    """The help of the command itself; imports no stage."""
    from runtime.shipped import scales

    width = max(map(len, STAGES)) + 2
    rows = "\n".join(f"  {name:<{width}}{stage.summary}" for name, stage in STAGES.items())
    return (
        f"triavatar {VERSION}: 3D head avatars from one portrait\n\n"
        "usage: triavatar SUBCOMMAND [INPUT ...] [--scale NAME | --config FILE.yaml] [flags]\n\n"
        f"{rows}\n\n"
        "Every subcommand: --help shows its settings with defaults and units; --config reads\n"
        "settings from a YAML file (flags win over it; the last --config counts), --scale those\n"
        f"that come with the project ({', '.join(scales())}); --dry-run prints the resolved\n"
        "settings as YAML and stops."
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
    from runtime.formats.settings_files import to_yaml

    name, rest = find_stage(arguments)
    stage = STAGES[name]
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    # PyTorch's idle threads spin for their next task, by default so long that they keep the CPU
    # kernels' own threads off the cores (fitting: 21 → 26 steps/s on two); networks don't notice.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    config_class, function = stage.load()
    dry_run = any(argument in DRY_RUN for argument in rest)
    rest = [argument for argument in rest if argument not in DRY_RUN]
    rest = apply_scale(stage, name, rest)
    config = parse(config_class, rest, f"triavatar {name}", stage.summary, stage.first)
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


def apply_scale(stage: Stage, name: str, arguments: list[str]) -> list[str]:
    """Put the shipped configuration of ``--scale NAME`` before the other arguments.

    Raises:
        UserError: there is no such scale, or the subcommand has no configuration.
    """
    from runtime.files import read_text
    from runtime.formats.settings_files import parse_yaml
    from runtime.shipped import scales, shipped

    if "--scale" not in arguments or not stage.settings:
        return arguments
    at = arguments.index("--scale")
    scale = "".join(arguments[at + 1 : at + 2])
    rest = arguments[:at] + arguments[at + 2 :]
    if scale not in scales():
        raise UserError(f"--scale {scale} is unknown; choose from {', '.join(scales())}.")
    file = f"{scale}/{stage.settings}.yaml"
    folder = shipped("configs")
    if folder is None or stage.settings not in parse_yaml(
        read_text(folder / f"{scale}.yaml"), scale
    ):
        return rest  # nothing differs from the defaults
    return ["--config", file, *rest]


def _quiet_loading() -> None:
    """diffusers' bars for loading local weights would push a stage's own bar off the screen."""
    if "diffusers" in sys.modules:
        from diffusers.utils import logging

        logging.disable_progress_bar()


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
        if is_out_of_memory(error):
            return _fail(
                "the memory of this machine is not enough for this; lower sizes, batches or "
                "--subjects_at_once.",
                2,
            )
        if is_disk_full(error):
            return _fail("the disk is full; free some space and run the same command again.", 2)
        sentence = os_error_sentence(error) if isinstance(error, OSError) else None
        if sentence is None:
            raise
        return _fail(sentence, 2)


def _fail(sentence: str, status: int) -> int:
    print(f"error: {sentence}", file=sys.stderr)
    return status
