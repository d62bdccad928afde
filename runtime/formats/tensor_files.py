"""Files of tensors: safetensors, and what ``torch.save`` writes of a training's state.

Names, shapes, kinds of numbers and finiteness are checked here, before anyone computes with them,
and sizes before any memory is taken.
"""

import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from runtime.errors import UserError
from runtime.files import atomic_path, check_file

MOST_BYTES = 2**31
"""Of one subject's tensors: triplane, features, what fitting keeps of it."""
FLOATS = ("F16", "BF16", "F32", "F64")
Shape = Sequence[int | None]


def save_tensors(
    path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Save tensors as one safetensors file, atomically; the same ones have the same bytes.

    Args:
        path: file to write, usually with suffix ``.safetensors``.
        tensors: name → tensor of any dtype and device (made contiguous and copied to CPU).
        metadata: strings stored in the header.
    """
    from safetensors.torch import save_file

    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_path(path) as temporary:
        save_file(ready, temporary, metadata=dict(metadata) if metadata else None)
        if metadata and len(metadata) > 1:
            _sort_metadata(temporary)


def _sort_metadata(path: Path) -> None:
    """Sort the strings in a file's header, which safetensors writes in another order each time."""
    with open(path, "r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) <= size:
            file.seek(8)
            file.write(text.ljust(size))


def load_tensors(
    path: str | Path,
    expected: Mapping[str, Shape] | None = None,
    most: int = MOST_BYTES,
    kinds: Mapping[str, Sequence[str]] | None = None,
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Load a safetensors file: (name → CPU tensor, metadata). All values are finite.

    Args:
        expected: tensors that must be there, with their shapes; None stands for any size.
        most: bytes that the file may have.
        kinds: of numbers that expected tensors may have, as safetensors calls them; of those that
            are not named, :data:`FLOATS`.

    Raises:
        UserError: the file is missing, truncated, no safetensors file, or holds something else.
    """

    def read(handle: Any) -> dict[str, Tensor]:
        for name, shape in (expected or {}).items():
            _check_shape(path, handle, name, shape)
            kind = handle.get_slice(name).get_dtype()
            if kind not in (kinds or {}).get(name, FLOATS):
                raise UserError(f"{path} holds {name} as {kind} numbers; make it again.")
        return {name: handle.get_tensor(name) for name in handle.keys()}

    tensors, metadata = _open_tensors(path, most, read)
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise UserError(f"{path} holds NaN or infinite values ({name}); make it again.")
    return tensors, metadata


def parse_tensors(data: bytes, path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """A safetensors file's content from memory: (name → CPU tensor, metadata); all are finite.

    Args:
        path: where it came from, for messages.

    Raises:
        UserError: it is truncated, or no safetensors file.
    """
    from safetensors.torch import load

    try:
        tensors = load(data)
        size = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + size]).get("__metadata__", {})
    except MemoryError:
        raise
    except Exception:
        raise UserError(f"{path} is truncated or no safetensors file; make it again.") from None
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise UserError(f"{path} holds NaN or infinite values ({name}); make it again.")
    return tensors, metadata


def load_metadata(path: str | Path) -> dict[str, str]:
    """The strings in a safetensors file's header; see :func:`load_tensors` for errors."""
    return _open_tensors(path, MOST_BYTES, lambda handle: {})[1]


def _open_tensors(
    path: str | Path, most: int, read: Callable[[Any], dict[str, Tensor]]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    from safetensors import safe_open

    check_file(path, most)
    try:
        with safe_open(str(path), framework="pt") as handle:
            return read(handle), dict(handle.metadata() or {})
    except (UserError, MemoryError, PermissionError):
        raise
    except Exception:
        raise UserError(
            f"{path} is truncated or no safetensors file; delete it and make it again."
        ) from None


def _check_shape(path: str | Path, handle: Any, name: str, shape: Shape) -> None:
    if name not in handle.keys():
        raise UserError(f"{path} holds no tensor named '{name}'; it is another kind of file.")
    found = handle.get_slice(name).get_shape()
    fits = len(found) == len(shape) and all(
        wanted in (None, size) for size, wanted in zip(found, shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise UserError(f"{path} holds {name} of shape {found} but [{wanted}] is expected.")


def load_state(path: Path, cure: str) -> Any:
    """Return what ``torch.save`` wrote of tensors and plain values, tensors on the CPU.

    Args:
        cure: what to do about a damaged file, for the message.

    Raises:
        UserError: the file is gone or can't be read.
    """
    check_archive(path, cure)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (MemoryError, PermissionError):
        raise
    except Exception:
        raise _damaged(path, cure) from None


def check_archive(path: Path, cure: str) -> None:
    """Compare the content of a file that ``torch.save`` wrote with its checksums.

    Raises:
        UserError: it is gone, no such file, or a bit of it is not what was written.
    """
    size = check_file(path)
    try:
        # Packed contents could unpack to any size, and the format before zip states sizes freely.
        with zipfile.ZipFile(path) as archive:
            whole = sum(entry.file_size for entry in archive.infolist()) <= size
            if whole and archive.testzip() is None:
                return
    except (MemoryError, PermissionError):
        raise
    except Exception:
        pass  # zipfile fails in as many ways as a file can be damaged
    raise _damaged(path, cure)


def check_floats(path: Path, cure: str) -> None:
    """Refuse an optimiser's file with moments of whole numbers, which torch would round to.

    Raises:
        UserError: see :func:`check_archive`.
    """
    check_archive(path, cure)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)["state"]
        values = [value for entry in state.values() for value in entry.values()]
    except (MemoryError, PermissionError):
        raise
    except Exception:
        raise _damaged(path, cure) from None
    if not all(value.is_floating_point() for value in values if isinstance(value, Tensor)):
        raise _damaged(path, cure)


def check_kinds(path: Path, like: Mapping[str, Tensor], cure: str) -> None:
    """Refuse a safetensors file with whole numbers where ``like`` has floating-point ones.

    Raises:
        UserError: the file is gone, can't be read, or holds such a tensor.
    """

    def whole(handle: Any) -> dict[str, Tensor]:
        for name in handle.keys():
            floating = name in like and like[name].is_floating_point()
            if floating and handle.get_slice(name).get_dtype() not in FLOATS:
                raise UserError(f"{path} is damaged or of another run ({name}); {cure}")
        return {}

    _open_tensors(path, 2**50, whole)


def _damaged(path: Path, cure: str) -> UserError:
    return UserError(f"{path} is damaged or was not written by this program; {cure}")


def on_cpu(value: Any) -> Any:
    """A state with its tensors on the CPU, as :func:`load_state` gives it."""
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, Mapping):
        return {name: on_cpu(item) for name, item in value.items()}
    return [on_cpu(item) for item in value] if isinstance(value, list | tuple) else value


def check_like(value: Any, like: Any, path: Path, cure: str, key: str = "state") -> None:
    """Refuse a state whose keys, shapes or kinds of values are not those of another.

    Args:
        value: what was loaded.
        like: the same of a run that has just begun; None stands for anything.

    Raises:
        UserError: names the first difference, or a value that is not finite.
    """
    wrong = UserError(f"{path} is damaged or of another run ({key}); {cure}")
    if like is None:
        return
    if isinstance(like, Tensor):
        if not isinstance(value, Tensor) or value.shape != like.shape:
            raise wrong
        if value.dtype != like.dtype or not torch.isfinite(value).all():
            raise wrong
    elif isinstance(like, Mapping):
        if not isinstance(value, Mapping) or not like.keys() <= value.keys():
            raise wrong
        for name, part in like.items():
            check_like(value[name], part, path, cure, f"{key}.{name}")
    elif isinstance(like, list | tuple):
        if not isinstance(value, list | tuple) or len(value) != len(like):
            raise wrong
        for index, (item, part) in enumerate(zip(value, like, strict=True)):
            check_like(item, part, path, cure, f"{key}[{index}]")
    elif type(value) is not type(like) or (isinstance(value, float) and not isfinite(value)):
        raise wrong


def check_adam(state: Any, optimizer: torch.optim.Optimizer, path: Path, cure: str) -> None:
    """Refuse the state of an Adam whose parameters are not those of ``optimizer``.

    Raises:
        UserError: a moment is missing, of another shape or not finite.
    """
    groups = optimizer.state_dict()["param_groups"]
    held = [{"params": group["params"]} for group in groups]
    check_like(state, {"state": {}, "param_groups": held}, path, cure, "optimizer")
    for fresh, saved in zip(groups, state["param_groups"], strict=True):
        # Another version of torch may know more settings, or fewer.
        known = {name: value for name, value in fresh.items() if name in saved}
        check_like(saved, known, path, cure, "optimizer.param_groups")
    parameters = [on_cpu(p) for group in optimizer.param_groups for p in group["params"]]
    for index, entry in state["state"].items():
        if not isinstance(index, int) or not 0 <= index < len(parameters):
            raise UserError(f"{path} is damaged or of another run (optimizer); {cure}")
        like = dict.fromkeys(("exp_avg", "exp_avg_sq"), parameters[index])
        key = f"optimizer.state[{index}]"
        check_like(on_cpu(entry), {"step": torch.zeros(()), **like}, path, cure, key)
