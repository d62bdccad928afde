"""NVRTC, NVIDIA's runtime compiler: find the library, compile CUDA C++ to machine code.

The library comes with PyTorch's CUDA wheels, with the packages ``nvidia-cuda-nvrtc-cu12`` and
``nvidia-cuda-nvrtc``, or with an installed CUDA toolkit.
"""

from __future__ import annotations

import ctypes
import os
import site
import sys
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import UserError

MAJORS = (12, 13)
PACKAGES = {12: "nvidia-cuda-nvrtc-cu12", 13: "nvidia-cuda-nvrtc"}
# Where those packages put the library, below site-packages.
_FOLDERS = {12: "nvidia/cuda_nvrtc/lib", 13: "nvidia/cu13/lib"}


@dataclass(frozen=True)
class Compiled:
    """A compiled program.

    Attributes:
        image: machine code (cubin), or PTX text for an architecture newer than the compiler.
        log: the compiler's report, with registers and spills of each kernel.
    """

    image: bytes
    log: str


class CompileError(RuntimeError):
    """The kernels' source does not compile; the message is the compiler's log."""


class Nvrtc:
    """One NVRTC library.

    Args:
        path: the shared library.

    Raises:
        OSError: if it cannot be loaded.
    """

    def __init__(self, path: str):
        self.path = path
        _load_builtins(Path(path))
        self._library = ctypes.CDLL(path)
        self._library.nvrtcGetErrorString.restype = ctypes.c_char_p
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._check(self._library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
        self.version = (major.value, minor.value)

    def architectures(self) -> tuple[int, ...]:
        """Architectures it can compile for, as 70, 75, …, ascending."""
        count = ctypes.c_int()
        self._check(self._library.nvrtcGetNumSupportedArchs(ctypes.byref(count)))
        values = (ctypes.c_int * count.value)()
        self._check(self._library.nvrtcGetSupportedArchs(values))
        return tuple(sorted(values))

    def compile(
        self, source: str, name: str, headers: dict[str, str], flags: list[str], target: str
    ) -> Compiled:
        """Compile one source.

        Args:
            source: CUDA C++.
            name: shown in messages.
            headers: what the source may include, by name.
            flags: further options.
            target: "sm_90" for machine code, "compute_90" for PTX.

        Raises:
            CompileError: with the compiler's log.
        """
        program = ctypes.c_void_p()
        texts = [text.encode() for text in headers.values()]
        names = [text.encode() for text in headers]
        self._check(
            self._library.nvrtcCreateProgram(
                ctypes.byref(program),
                source.encode(),
                name.encode(),
                len(headers),
                (ctypes.c_char_p * len(headers))(*texts),
                (ctypes.c_char_p * len(headers))(*names),
            )
        )
        try:
            options = [f"--gpu-architecture={target}", *flags]
            encoded = [option.encode() for option in options]
            status = self._library.nvrtcCompileProgram(
                program, len(encoded), (ctypes.c_char_p * len(encoded))(*encoded)
            )
            log = self._text(program, "ProgramLog")
            if status:
                raise CompileError(f"{name} does not compile for {target}:\n{log}")
            kind = "CUBIN" if target.startswith("sm_") else "PTX"
            return Compiled(self._bytes(program, kind), log)
        finally:
            self._library.nvrtcDestroyProgram(ctypes.byref(program))

    def _bytes(self, program: ctypes.c_void_p, what: str) -> bytes:
        size = ctypes.c_size_t()
        self._check(getattr(self._library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
        buffer = ctypes.create_string_buffer(size.value)
        self._check(getattr(self._library, f"nvrtcGet{what}")(program, buffer))
        return buffer.raw

    def _text(self, program: ctypes.c_void_p, what: str) -> str:
        return self._bytes(program, what).rstrip(b"\0").decode(errors="replace")

    def _check(self, status: int) -> None:
        if status:
            text = self._library.nvrtcGetErrorString(status).decode()
            raise RuntimeError(f"NVRTC ({self.path}): {text}")


def _load_builtins(library: Path) -> None:
    """Load the compiler's second library from beside it, where it lies there.

    The compiler asks the system for it by name, and some of NVIDIA's packages do not say where.
    Once it is loaded, the system finds it.
    """
    for path in sorted(library.parent.glob("libnvrtc-builtins.so.*")):
        if library.is_absolute():
            ctypes.CDLL(str(path))


_loaded: dict[int, Nvrtc] = {}


def load_nvrtc(major: int) -> Nvrtc:
    """The NVRTC of CUDA ``major`` (12 or 13).

    Raises:
        UserError: if it is not installed; names the package.
    """
    if major not in MAJORS:
        raise UserError(
            f"the kernels need CUDA {MAJORS[0]} or {MAJORS[1]}, but PyTorch was built for CUDA "
            f"{major}; install a newer build of PyTorch"
        )
    if major not in _loaded:
        errors = []
        for candidate in _candidates(major):
            try:
                _loaded[major] = Nvrtc(candidate)
                break
            except OSError as error:
                errors.append(str(error))
        else:
            detail = f" ({errors[0]})" if errors else ""
            raise UserError(
                f"the compiler library libnvrtc.so.{major} was not found{detail}: "
                f"pip install {PACKAGES[major]}"
            )
    return _loaded[major]


def _candidates(major: int) -> list[str]:
    """Paths to try, the packages' own first."""
    library = f"libnvrtc.so.{major}"
    roots = [*sys.path, *site.getsitepackages(), site.getusersitepackages()]
    paths = [Path(root or ".") / _FOLDERS[major] / library for root in dict.fromkeys(roots)]
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if os.environ.get(variable):
            paths.append(Path(os.environ[variable]) / "lib64" / library)
    # Last, the bare name: whatever the system's loader knows.
    return [str(path) for path in paths if path.is_file()] + [library]
