"""Compiled kernels, kept on disk.

A compiled file's name is a hash of everything that can change it: sources, macros, target,
compiler version and flags. So nothing is ever stale, and two processes that compile the same
kernel write the same bytes; each writes a temporary file and renames it, so neither can read half
of the other's.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import tempfile
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from renderer.cuda.toolkit import Compiled, Nvrtc
from runtime.errors import UserError

FLAGS = ["--std=c++17", "--extra-device-vectorization", "--ptxas-options=-v"]


@functools.cache
def source_files() -> dict[str, str]:
    """Every kernel source and header of the package, by file name."""
    folder = resources.files("renderer.cuda") / "kernels"
    return {
        entry.name: entry.read_text(encoding="utf-8")
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name)
        if entry.name.endswith((".cu", ".cuh"))
    }


def headers() -> dict[str, str]:
    """The sources that others include."""
    return {name: text for name, text in source_files().items() if name.endswith(".cuh")}


def compile_source(
    nvrtc: Nvrtc, name: str, macros: dict[str, int], capability: int, extra: tuple[str, ...] = ()
) -> Compiled:
    """Compile one source of the package; nothing is cached.

    Args:
        name: file name in ``kernels/``.
        macros: the specialisation.
        capability: of the card, as 70, 75, …

    Raises:
        UserError: if the compiler no longer supports the card.
    """
    flags = [*FLAGS, *extra, *(f"-D{key}={value}" for key, value in sorted(macros.items()))]
    return nvrtc.compile(source_files()[name], name, headers(), flags, target(nvrtc, capability))


@dataclass(frozen=True)
class KernelResources:
    """What one kernel takes.

    Attributes:
        registers: of a thread.
        spilled: bytes a thread writes to and reads from memory for want of registers.
        shared: bytes of a block, besides those that its launch asks for.
    """

    registers: int
    spilled: int
    shared: int


def kernel_resources(log: str) -> dict[str, KernelResources]:
    """Read the compiler's report, by kernel."""
    found, kernel, spilled = {}, "", 0
    for line in log.splitlines():
        if match := re.search(r"Compiling entry function '(\w+)'", line):
            kernel = match[1]
        elif match := re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", line):
            spilled = int(match[1]) + int(match[2])
        elif match := re.search(r"Used (\d+) registers", line):
            shared = re.search(r"(\d+) bytes smem", line)
            found[kernel] = KernelResources(int(match[1]), spilled, int(shared[1]) if shared else 0)
    return found


def target(nvrtc: Nvrtc, capability: int) -> str:
    """Return what to compile for so that a card of ``capability`` can run it.

    Raises:
        UserError: if the compiler is too new for the card.
    """
    known = nvrtc.architectures()
    if capability < known[0]:
        version = ".".join(map(str, nvrtc.version))
        raise UserError(
            f"CUDA {version} cannot compile for this GPU (sm_{capability}; its oldest is "
            f"sm_{known[0]}): install a build of PyTorch for CUDA 12, such as cu126"
        )
    if capability in known:
        return f"sm_{capability}"
    # A card newer than the compiler: its driver translates the newest PTX the compiler has.
    return f"compute_{max(arch for arch in known if arch < capability)}"


def cached_image(
    nvrtc: Nvrtc, name: str, macros: dict[str, int], capability: int, folder: Path | None = None
) -> bytes:
    """The compiled source, from disk when it was compiled before.

    Args:
        folder: where to keep it; :func:`cache_folder` by default.
    """
    folder = folder or cache_folder()
    path = folder / f"{Path(name).stem}-{_key(nvrtc, name, macros, capability)}.bin"
    try:
        image = path.read_bytes()
        if image:
            return image
    except OSError:
        pass  # not there yet (or no longer readable): compile
    image = compile_source(nvrtc, name, macros, capability).image
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".", delete=False) as file:
        try:
            file.write(image)
            file.flush()
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise
    return image


def cache_folder() -> Path:
    """``$TRIAVATAR_CACHE``, else ``triavatar`` in ``$XDG_CACHE_HOME`` or ``~/.cache``.

    Where that cannot be written, a folder of this user's own among the temporary files.
    """
    if os.environ.get("TRIAVATAR_CACHE"):
        base = Path(os.environ["TRIAVATAR_CACHE"])
    else:
        root = os.environ.get("XDG_CACHE_HOME")
        base = (Path(root) if root else Path.home() / ".cache") / "triavatar"
    if _writable(base):
        return base / "kernels"
    # Others may write among the temporary files: the name is this process's own and unguessable.
    return _temporary_folder()


@functools.cache
def _temporary_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="triavatar-kernels-"))


def _writable(base: Path) -> bool:
    folder = base / "kernels"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _key(nvrtc: Nvrtc, name: str, macros: dict[str, int], capability: int) -> str:
    digest = hashlib.sha256()
    for part in (
        source_files()[name],
        *(f"{key}\0{text}" for key, text in headers().items()),
        *(f"{key}={value}" for key, value in sorted(macros.items())),
        *FLAGS,
        target(nvrtc, capability),
        str(nvrtc.version),
    ):
        digest.update(part.encode())
        digest.update(b"\0\0")
    return digest.hexdigest()[:32]
