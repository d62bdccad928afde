"""Availability of the kernels, and the reason where they can't run."""

from __future__ import annotations

import functools

import torch

from renderer.cuda.build import compile_source, target
from renderer.cuda.driver import DriverModule, load_driver
from renderer.cuda.toolkit import PACKAGES, Nvrtc, load_nvrtc
from runtime.errors import UserError

# Tensor cores, which the decoder's products run on, came with this one.
MIN_CAPABILITY = 70


def toolkit_major() -> int:
    """CUDA's major version that PyTorch was built for; 0 for a build without CUDA."""
    return int(torch.version.cuda.split(".")[0]) if torch.version.cuda else 0


def capability_of(device: torch.device) -> int:
    """A card's compute capability as 70, 75, …"""
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


@functools.cache
def multiprocessors(device: torch.device) -> int:
    """How many multiprocessors a card has; 2 elsewhere, where kernels only run in tests."""
    if device.type != "cuda":
        return 2
    return torch.cuda.get_device_properties(device).multi_processor_count


def check_compiler(nvrtc: Nvrtc, capability: int, device: torch.device | None = None) -> None:
    """Compile a small kernel, and run it where a device is given.

    Raises:
        UserError: if that fails; says why and what to install.
    """
    target(nvrtc, capability)
    version = ".".join(map(str, nvrtc.version))
    try:
        image = compile_source(nvrtc, "probe.cu", {}, capability).image
        if device is not None:
            out = torch.zeros(32, dtype=torch.int32, device=device)
            DriverModule(image, device).launch("probe", [1], 32, 0, [out])
            if out.tolist() != list(range(1, 33)):
                raise RuntimeError("a kernel gives wrong numbers")
    except RuntimeError as error:
        said = " ".join(line.strip() for line in str(error).splitlines() if line.strip())
        package = PACKAGES[nvrtc.version[0]]
        raise UserError(
            f"the compiler {nvrtc.path} (CUDA {version}) makes no kernel that runs on this GPU: "
            f"{said}; install another version of {package}, or update the driver"
        ) from error


def check_available(device: torch.device | str) -> None:
    """Nothing, if kernels can be compiled for ``device`` and run on it.

    Raises:
        UserError: says what is missing and what to do.
    """
    device = torch.device(device)
    if device.type != "cuda":
        raise UserError(
            f"the CUDA kernels need a GPU, and the tensors are on '{device.type}': move them to "
            "the GPU or use another impl"
        )
    if toolkit_major() == 0:
        raise UserError("this build of PyTorch has no CUDA: install one that has")
    load_driver()
    if not torch.cuda.is_available():
        raise UserError("PyTorch sees no GPU: check nvidia-smi and the driver's version")
    capability = capability_of(device)
    if capability < MIN_CAPABILITY:
        raise UserError(
            f"the kernels need a GPU with tensor cores (sm_{MIN_CAPABILITY} or newer), "
            f"and this one is sm_{capability}; use impl='torch'"
        )
    check_compiler(load_nvrtc(toolkit_major()), capability, device)


@functools.cache
def unavailable_reason(device: torch.device | str) -> str | None:
    """Return why the kernels cannot run on ``device``, in a sentence; None if they can."""
    try:
        check_available(device)
    except UserError as error:
        return str(error)
    return None


def available(device: torch.device | str) -> bool:
    """Return whether the kernels can be compiled for ``device`` and run on it."""
    return unavailable_reason(device) is None
