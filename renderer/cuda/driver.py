"""The CUDA driver: load compiled kernels into PyTorch's context and launch them on its stream."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from runtime.errors import UserError

Argument = Tensor | int | float | ctypes.Structure | None

# Of enum CUfunction_attribute and CUdevice_attribute.
_MAX_DYNAMIC_SHARED_SIZE = 8
_PREFERRED_SHARED_CARVEOUT = 9
_SHARED_PER_MULTIPROCESSOR = 81
# A block gets this much shared memory without asking.
_DEFAULT_SHARED = 48 * 1024
# What each block takes besides what it asks for.
_RESERVED_SHARED = 1024


@functools.cache
def load_driver() -> ctypes.CDLL:
    """The driver's library.

    Raises:
        UserError: if no driver is installed.
    """
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise UserError(f"no NVIDIA driver on this machine ({error})") from None
    return library


class DriverModule:
    """Kernels of one compiled image, on one device.

    Args:
        image: machine code or PTX.
        device: where to load it.
        blocks: how many blocks shall share a multiprocessor, for its split into shared memory
            and cache.
    """

    def __init__(self, image: bytes, device: torch.device, blocks: int = 1):
        self.device, self._blocks = device, blocks
        self._driver = load_driver()
        self._module = ctypes.c_void_p()
        self._functions: dict[str, ctypes.c_void_p] = {}
        self._context = ctypes.c_void_p()
        index = ctypes.c_int()
        with torch.cuda.device(device):
            # PyTorch makes the device's primary context current when it first uses the device.
            torch.zeros(1, device=device)
            torch.cuda.synchronize()
            self._check(self._driver.cuCtxGetCurrent(ctypes.byref(self._context)))
            self._check(self._driver.cuCtxGetDevice(ctypes.byref(index)))
            self._check(self._driver.cuModuleLoadData(ctypes.byref(self._module), image))
        per_multiprocessor = ctypes.c_int()
        self._check(
            self._driver.cuDeviceGetAttribute(
                ctypes.byref(per_multiprocessor), _SHARED_PER_MULTIPROCESSOR, index
            )
        )
        self._shared_per_multiprocessor = per_multiprocessor.value

    def launch(
        self, name: str, grid: Sequence[int], block: int, shared: int, arguments: Sequence[Argument]
    ) -> None:
        """Launch a kernel on PyTorch's current stream.

        Args:
            grid: blocks along x, or (x, y).
            block: threads of a block.
            shared: bytes of dynamic shared memory.
            arguments: in the kernel's order; tensors pass as pointers, None as a null pointer,
                int as int, float as float, structures by value.
        """
        x, y = (*grid, 1)[:2]
        if x == 0 or y == 0:
            return
        values = [convert(argument) for argument in arguments]
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        with torch.cuda.device(self.device):
            self._enter_context()
            function = self._function(name, shared)
            stream = ctypes.c_void_p(torch.cuda.current_stream(self.device).cuda_stream)
            self._check(
                self._driver.cuLaunchKernel(
                    function, x, y, 1, block, 1, 1, shared, stream, pointers, None
                ),
                name,
            )

    def _enter_context(self) -> None:
        # A thread of autograd may not have touched the GPU yet, and then has no context.
        current = ctypes.c_void_p()
        self._check(self._driver.cuCtxGetCurrent(ctypes.byref(current)))
        if current.value != self._context.value:
            self._check(self._driver.cuCtxSetCurrent(self._context))

    def _function(self, name: str, shared: int) -> ctypes.c_void_p:
        # A kernel always asks for the same amount, so the attribute is set once.
        if name not in self._functions:
            function = ctypes.c_void_p()
            self._check(
                self._driver.cuModuleGetFunction(
                    ctypes.byref(function), self._module, name.encode()
                ),
                name,
            )
            if shared > _DEFAULT_SHARED:
                self._check(
                    self._driver.cuFuncSetAttribute(function, _MAX_DYNAMIC_SHARED_SIZE, shared),
                    f"{name} ({shared} bytes of shared memory)",
                )
                wanted = self._blocks * (shared + _RESERVED_SHARED)
                percent = min(100, -(-100 * wanted // self._shared_per_multiprocessor))
                self._check(
                    self._driver.cuFuncSetAttribute(function, _PREFERRED_SHARED_CARVEOUT, percent),
                    name,
                )
            self._functions[name] = function
        return self._functions[name]

    def _check(self, status: int, what: str = "loading kernels") -> None:
        if status == 0:
            return
        text = ctypes.c_char_p()
        self._driver.cuGetErrorString(status, ctypes.byref(text))
        message = text.value.decode() if text.value else f"error {status}"
        raise RuntimeError(f"CUDA driver, {what}: {message}")


def convert(argument: Argument) -> ctypes._SimpleCData | ctypes.Structure:
    """A kernel argument as the bytes the kernel reads."""
    if argument is None:
        return ctypes.c_void_p(0)
    if isinstance(argument, Tensor):
        if not argument.is_contiguous():
            raise ValueError("kernels take contiguous tensors")
        return ctypes.c_void_p(argument.data_ptr())
    if isinstance(argument, int):
        return ctypes.c_int(argument)
    if isinstance(argument, float):
        return ctypes.c_float(argument)
    return argument
