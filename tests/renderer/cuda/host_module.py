"""The kernels' own sources compiled for the host by g++, launched as the driver would."""

from __future__ import annotations

import ctypes
import hashlib
import re
import subprocess
from pathlib import Path

import torch

from renderer.cuda import build
from renderer.cuda.driver import convert

HOST = Path(__file__).parent / "host"
# No contraction of a*b+c: the kernels say where they want one rounding less.
FLAGS = ["-std=c++17", "-O2", "-fPIC", "-shared", "-ffp-contract=off", "-w", "-DTRIAVATAR_HOST"]


class HostModule:
    """A compiled source whose kernels run on CPU tensors."""

    # Class-wide, so that a test can reverse the order in which a block's threads run.
    reversed = False

    def __init__(self, library: Path):
        self._library = ctypes.CDLL(str(library))
        self.launched: list[str] = []

    def launch(self, name, grid, block, shared, arguments):
        x, y = (*grid, 1)[:2]
        if x == 0 or y == 0:
            return
        values = [convert(argument) for argument in arguments]
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(v) for v in values))
        status = getattr(self._library, f"host_{name}")(
            x, y, block, shared, pointers, int(HostModule.reversed)
        )
        if status:
            reasons = {
                1: "threads wait at a barrier others never reach",
                2: "shared memory overrun",
            }
            raise RuntimeError(f"{name}: {reasons[status]}")
        self.launched.append(name)


def compile_for_host(name: str, macros: dict[str, int], folder: Path) -> Path:
    """g++ one kernel source with the shim; returns the library."""
    source = build.source_files()[name]
    kernels = re.findall(
        r'extern "C" __global__ void\s+(?:__launch_bounds__\([^)]*\)\s+)?(\w+)\(', source
    )
    assert kernels, name
    wrappers = "\n".join(f"TRIAVATAR_HOST_KERNEL({kernel})" for kernel in kernels)
    text = f"{source}\n{wrappers}\n"
    defines = [f"-D{key}={value}" for key, value in sorted(macros.items())]
    headers = "".join(build.headers().values()) + (HOST / "host_device.h").read_text()
    key = hashlib.sha256("\0".join([text, headers, *defines, *FLAGS]).encode()).hexdigest()[:16]
    library = folder / f"{Path(name).stem}-{key}.so"
    if not library.exists():
        path = folder / f"{Path(name).stem}-{key}.cpp"
        path.write_text(text)
        kernels_folder = Path(build.__file__).parent / "kernels"
        command = ["g++", *FLAGS, *defines, f"-I{HOST}", f"-I{kernels_folder}", str(path)]
        subprocess.run([*command, "-o", str(library)], check=True, capture_output=True, text=True)
    return library


def loader(folder: Path):
    """A loader for :data:`renderer.cuda.modules.LOADERS`."""

    def load(name: str, macros: dict[str, int], device: torch.device) -> HostModule:
        try:
            return HostModule(compile_for_host(name, macros, folder))
        except subprocess.CalledProcessError as error:
            raise AssertionError(f"{name} does not compile for the host:\n{error.stderr}") from None

    return load
