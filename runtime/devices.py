"""Choosing the device a stage runs on."""

import os

import torch

from runtime.errors import UserError


def select_device(name: str = "auto") -> torch.device:
    """The device called ``name``: "auto" (a GPU, else the CPU), "cpu", "cuda" or "cuda:N".

    Without a number the GPU is the one of the launcher's local rank (the first by default).

    Raises:
        UserError: the name is no device, or the asked-for GPU is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f'device "{name}" is unknown; use auto, cpu, cuda or cuda:N.') from None
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if device.index is None:
            rank = int(os.environ.get("LOCAL_RANK", "0"))
            device = torch.device("cuda", rank)
        if (device.index or 0) >= count:
            raise UserError(
                f'device "{name}" was asked for but this machine offers {count} usable GPUs; '
                "use --device cpu or install a CUDA build of torch."
            )
    elif device.type != "cpu":
        raise UserError(f'device "{name}" is not supported; use auto, cpu, cuda or cuda:N.')
    return device
