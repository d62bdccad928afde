"""Every kernel compiles for every architecture, on a machine with no GPU, and the hot ones do not
spill registers."""

import pytest

from renderer.cuda import build
from renderer.cuda.field.layout import DecoderShape, candidate_layouts, choose_layout
from renderer.cuda.toolkit import Nvrtc, load_nvrtc
from runtime.errors import UserError

DEFAULT = DecoderShape(32, 24, 128, 2)
SMALL = DecoderShape(16, 12, 64, 2)
ARCHITECTURES = [(12, 70), (12, 75), (12, 80), (12, 86), (12, 90)]
ARCHITECTURES += [(13, 75), (13, 90), (13, 100), (13, 120)]


def nvrtc_of(major: int) -> Nvrtc:
    try:
        return load_nvrtc(major)
    except UserError as error:
        pytest.skip(str(error))


def compile_all(
    major: int, capability: int, shape: DecoderShape
) -> dict[str, build.KernelResources]:
    nvrtc = nvrtc_of(major)
    report = {}
    for name in build.source_files():
        if not name.endswith(".cu"):
            continue
        layout = choose_layout(shape, capability, backward=name == "field_backward.cu")
        compiled = build.compile_source(nvrtc, name, layout.macros, capability)
        assert compiled.image[:4] == b"\x7fELF"
        report |= build.kernel_resources(compiled.log)
    return report


@pytest.mark.parametrize("major,capability", ARCHITECTURES)
def test_every_kernel_compiles_without_spills(major, capability):
    report = compile_all(major, capability, DEFAULT)
    assert {"march_count", "composite_forward", "field_forward", "field_backward"} <= set(report)
    assert {name: use for name, use in report.items() if use.spilled} == {}


@pytest.mark.slow
@pytest.mark.parametrize("backward", [False, True])
def test_every_cut_of_the_kernels_compiles(backward):
    source = "field_backward.cu" if backward else "field_forward.cu"
    for layout in candidate_layouts(DEFAULT, 90, backward=backward):
        build.compile_source(nvrtc_of(12), source, layout.macros, 90)


@pytest.mark.slow
@pytest.mark.parametrize("major,capability", ARCHITECTURES)
@pytest.mark.parametrize("shape", [SMALL, DecoderShape(32, 24, 64, 2), DecoderShape(24, 16, 32, 1)])
def test_other_decoders_compile(major, capability, shape):
    compile_all(major, capability, shape)


def test_a_card_the_toolkit_dropped_is_refused():
    with pytest.raises(UserError, match="CUDA 12"):
        build.target(nvrtc_of(13), 70)


def test_a_card_newer_than_the_toolkit_gets_ptx():
    compiled = build.compile_source(nvrtc_of(12), "march.cu", {}, 999)
    assert b".version" in compiled.image
