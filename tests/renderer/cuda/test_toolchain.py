"""Finding the compiler, the disk cache, and what a user without a GPU is told."""

import ctypes
import multiprocessing
import os
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from renderer import backend
from renderer.backend import resolve
from renderer.cuda import availability, available, build, toolkit, unavailable_reason
from renderer.cuda.driver import convert
from renderer.cuda.field.layout import DecoderShape, choose_layout, shared_limit
from renderer.cuda.toolkit import Compiled
from renderer.decoder import TriplaneDecoder
from runtime.errors import UserError


class FakeCompiler:
    """Counts compilations; its machine code is a long run of one byte."""

    version = (12, 9)

    def __init__(self):
        self.compiled = 0

    def architectures(self):
        return (50, 70, 90)

    def compile(self, source, name, headers, flags, target):
        self.compiled += 1
        return Compiled(target.encode() * 200_000, "")


def image(compiler, folder=None, macros=None, capability=90):
    return build.cached_image(compiler, "march.cu", macros or {}, capability, folder)


def test_compiled_once_and_again_when_anything_changes(tmp_path):
    compiler = FakeCompiler()
    first = image(compiler, tmp_path)
    assert image(compiler, tmp_path) == first and compiler.compiled == 1
    image(compiler, tmp_path, {"TILE": 64})
    image(compiler, tmp_path, capability=70)
    newer = FakeCompiler()
    newer.version = (12, 10)
    image(newer, tmp_path)
    assert (compiler.compiled, newer.compiled) == (3, 1)
    assert len(list(tmp_path.iterdir())) == 4  # and no temporary file is left


def test_an_edited_source_is_compiled_again(tmp_path, monkeypatch):
    compiler = FakeCompiler()
    image(compiler, tmp_path)
    sources = dict(build.source_files())
    sources["device.cuh"] += "// edited\n"
    monkeypatch.setattr(build, "source_files", lambda: sources)
    image(compiler, tmp_path)
    assert compiler.compiled == 2


def test_a_truncated_file_is_compiled_again(tmp_path):
    compiler = FakeCompiler()
    whole = image(compiler, tmp_path)
    next(tmp_path.iterdir()).write_bytes(b"")
    assert image(compiler, tmp_path) == whole


def _compile_many(folder: Path, results) -> None:
    compiler = FakeCompiler()
    for index in range(20):
        results.put(len(image(compiler, folder, {"N": index})))


def test_processes_that_start_together_share_the_cache(tmp_path):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [context.Process(target=_compile_many, args=(tmp_path, results)) for _ in range(3)]
    for process in processes:
        process.start()
    sizes = {results.get(timeout=60) for _ in range(60)}
    for process in processes:
        process.join(timeout=60)
        assert process.exitcode == 0
    assert sizes == {5 * 200_000}
    assert len(list(tmp_path.iterdir())) == 20


def test_where_the_cache_lies(tmp_path, monkeypatch):
    monkeypatch.delenv("TRIAVATAR_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert build.cache_folder() == tmp_path / "xdg/triavatar/kernels"
    monkeypatch.setenv("TRIAVATAR_CACHE", str(tmp_path / "own"))
    assert build.cache_folder() == tmp_path / "own/kernels"


def test_a_folder_that_cannot_be_written_is_replaced(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    monkeypatch.setenv("TRIAVATAR_CACHE", str(blocked))
    folder = build.cache_folder()
    assert folder.is_dir() and folder != blocked
    assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
    assert build.cache_folder() == folder


def test_a_missing_compiler_names_the_package(monkeypatch):
    monkeypatch.setattr(toolkit, "_candidates", lambda major: ["/nowhere/libnvrtc.so"])
    monkeypatch.setattr(toolkit, "_loaded", {})
    with pytest.raises(UserError, match="pip install nvidia-cuda-nvrtc-cu12"):
        toolkit.load_nvrtc(12)
    with pytest.raises(UserError, match="CUDA 11"):
        toolkit.load_nvrtc(11)


def _lies_beside(library: Path) -> bool:
    return any(library.parent.glob("libnvrtc-builtins.so.*"))


@pytest.mark.parametrize("major", toolkit.MAJORS)
def test_the_compilers_second_library_is_loaded_from_beside_it(major):
    """NVIDIA's packages of CUDA 13.0 do not say where it lies."""
    found = [Path(path) for path in toolkit._candidates(major)]
    library = next((path for path in found if path.is_absolute() and _lies_beside(path)), None)
    if library is None:
        pytest.skip(f"no package with libnvrtc.so.{major} here")
    code = (
        f"from renderer.cuda.toolkit import Nvrtc; Nvrtc({str(library)!r}); "
        "print(open('/proc/self/maps').read())"
    )
    maps = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert str(library.parent / "libnvrtc-builtins.so.") in maps


class BrokenCompiler(FakeCompiler):
    """Is there and says its version, but cannot find its other half."""

    path = "/somewhere/libnvrtc.so.12"

    def compile(self, source, name, headers, flags, target):
        raise toolkit.CompileError(f"{name} does not compile:\nfailed to open libnvrtc-builtins")


def test_a_compiler_that_fails_is_refused_and_auto_does_without(monkeypatch, caplog):
    monkeypatch.setattr(availability, "load_driver", lambda: None)
    monkeypatch.setattr(availability, "load_nvrtc", lambda major: BrokenCompiler())
    monkeypatch.setattr(availability, "toolkit_major", lambda: 12)
    monkeypatch.setattr(availability, "capability_of", lambda device: 90)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(backend.logger, "propagate", True)
    availability.unavailable_reason.cache_clear()
    backend._warn_without_kernels.cache_clear()
    try:
        with pytest.raises(UserError, match="failed to open libnvrtc-builtins; install another"):
            availability.check_available("cuda")
        on_gpu = SimpleNamespace(device=torch.device("cuda"), dtype=torch.float32)
        assert resolve("auto", on_gpu).name == "torch"
        with pytest.raises(UserError, match="nvidia-cuda-nvrtc-cu12"):
            resolve("cuda", on_gpu)
    finally:
        availability.unavailable_reason.cache_clear()
    assert "slower than cuda: the compiler /somewhere/libnvrtc.so.12" in caplog.text


@pytest.mark.parametrize("major,capability", [(12, 70), (13, 120)])
def test_the_probe_compiles(major, capability):
    try:
        nvrtc = toolkit.load_nvrtc(major)
    except UserError as error:
        pytest.skip(str(error))
    availability.check_compiler(nvrtc, capability)


def test_the_toolkit_must_know_the_card():
    compiler = FakeCompiler()
    assert build.target(compiler, 70) == "sm_70"
    assert build.target(compiler, 120) == "compute_90"
    assert build.target(compiler, 86) == "compute_70"
    with pytest.raises(UserError, match="PyTorch for CUDA 12"):
        build.target(compiler, 35)


def test_asking_for_kernels_on_the_cpu_says_why_not():
    assert not available("cpu")
    assert "need a GPU" in (unavailable_reason("cpu") or "")
    with pytest.raises(UserError, match="need a GPU"):
        resolve("cuda", torch.zeros(1))


@pytest.mark.parametrize(
    "sizes,said", [((30, 22, 128), "multiples of 4"), ((32, 24, 96), "hidden = 32, 64 or 128")]
)
def test_decoders_the_kernels_do_not_cover(sizes, said):
    with pytest.raises(UserError, match=said):
        DecoderShape.of(TriplaneDecoder(*sizes))


@pytest.mark.parametrize("capability", [70, 75, 80, 86, 89, 90, 100, 120, 999])
@pytest.mark.parametrize("sizes", [(32, 24, 128), (16, 12, 64), (32, 24, 64), (8, 4, 32)])
def test_a_block_fits_every_card(capability, sizes):
    shape = DecoderShape.of(TriplaneDecoder(*sizes))
    for backward in (False, True):
        layout = choose_layout(shape, capability, backward=backward)
        size = layout.backward_bytes if backward else layout.forward_bytes
        assert layout.blocks * size <= shared_limit(capability)
        assert 64 <= layout.threads <= 1024


def test_kernel_arguments():
    tensor = torch.zeros(3)
    assert convert(tensor).value == tensor.data_ptr()
    assert convert(None).value is None
    assert isinstance(convert(2), ctypes.c_int) and isinstance(convert(2.0), ctypes.c_float)
    with pytest.raises(ValueError, match="contiguous"):
        convert(torch.zeros(2, 2).T)
