"""The launcher against a driver that records what it is asked."""

import contextlib
import ctypes
from types import SimpleNamespace

import pytest
import torch

from renderer.cuda import driver
from renderer.cuda.driver import DriverModule


class FakeDriver:
    """Understands the calls of :class:`DriverModule`; pointers are small numbers."""

    def __init__(self):
        self.attributes, self.launches, self.context, self.entered = [], [], 7, []
        self.launch_status = 0

    def cuCtxGetCurrent(self, context):
        context._obj.value = self.context
        return 0

    def cuCtxSetCurrent(self, context):
        self.entered.append(context.value)
        self.context = context.value
        return 0

    def cuCtxGetDevice(self, index):
        index._obj.value = 0
        return 0

    def cuDeviceGetAttribute(self, value, attribute, index):
        assert attribute == 81 and index.value == 0
        value._obj.value = 228 * 1024
        return 0

    def cuModuleLoadData(self, module, image):
        assert image == b"code"
        module._obj.value = 1
        return 0

    def cuModuleGetFunction(self, function, module, name):
        function._obj.value = {b"small": 11, b"large": 12}.get(name, 0)
        return 0 if function._obj.value else 500

    def cuFuncSetAttribute(self, function, attribute, value):
        self.attributes.append((function.value, attribute, value))
        return 0

    def cuLaunchKernel(self, function, x, y, z, bx, by, bz, shared, stream, arguments, extra):
        count = ctypes.cast(arguments[0], ctypes.POINTER(ctypes.c_int)).contents.value
        factor = ctypes.cast(arguments[1], ctypes.POINTER(ctypes.c_float)).contents.value
        address = ctypes.cast(arguments[2], ctypes.POINTER(ctypes.c_void_p)).contents.value
        launch = (function.value, (x, y, z), (bx, by, bz), shared, stream.value)
        self.launches.append((*launch, count, factor, address))
        assert extra is None
        return self.launch_status

    def cuGetErrorString(self, status, text):
        text._obj.value = b"a described error"
        return 0


@pytest.fixture
def fake(monkeypatch):
    """A driver, and a PyTorch that believes in a GPU."""
    fake = FakeDriver()
    monkeypatch.setattr(driver, "load_driver", lambda: fake)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    stream = SimpleNamespace(cuda_stream=99)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    return fake


def test_launch(fake):
    module = DriverModule(b"code", torch.device("cpu"), blocks=2)
    tensor = torch.zeros(3)
    for _ in range(2):
        module.launch("small", [5], 128, 0, [3, 0.5, tensor])
        module.launch("large", [6, 2], 256, 68_096, [4, 1.5, tensor])
    small = (11, (5, 1, 1), (128, 1, 1), 0, 99, 3, 0.5, tensor.data_ptr())
    large = (12, (6, 2, 1), (256, 1, 1), 68_096, 99, 4, 1.5, tensor.data_ptr())
    assert fake.launches == [small, large] * 2
    # Once, for the kernel that needs it: its shared memory, and room for two blocks of it.
    assert fake.attributes == [(12, 8, 68_096), (12, 9, 60)]


def test_a_thread_without_context_gets_it(fake):
    module = DriverModule(b"code", torch.device("cpu"))
    fake.context = None
    module.launch("small", [1], 32, 0, [1, 1.0, torch.zeros(1)])
    assert fake.entered == [7]


def test_nothing_to_launch(fake):
    DriverModule(b"code", torch.device("cpu")).launch("small", [0], 32, 0, [])
    assert not fake.launches


def test_errors_are_described(fake):
    module = DriverModule(b"code", torch.device("cpu"))
    with pytest.raises(RuntimeError, match="missing: a described error"):
        module.launch("missing", [1], 32, 0, [])
    fake.launch_status = 700
    with pytest.raises(RuntimeError, match="small: a described error"):
        module.launch("small", [1], 32, 0, [1, 1.0, torch.zeros(1)])
