"""Model folders (config.json and safetensors), checked before they take memory or time.

What a folder says of itself is compared with its weights first: the model is made of shapes alone,
and names, shapes and kinds of numbers must be those of the files' headers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.nn.modules.module import register_module_parameter_registration_hook

from runtime.described import Described, read_described
from runtime.errors import UserError
from runtime.files import check_file, read_json

CONFIG = "config.json"
_MOST_NUMBER = 2**20
_FLOATS = {"F16": 2, "BF16": 2, "F32": 4, "F64": 8}
# Names that diffusers translates in the attention of old autoencoders.
_RENAMED = {
    ".query.": ".to_q.",
    ".key.": ".to_k.",
    ".value.": ".to_v.",
    ".proj_attn.": ".to_out.0.",
}

Model = TypeVar("Model", bound=torch.nn.Module)


class WeightsIndex(Described):
    """``*.safetensors.index.json`` of weights in several files: tensor → file."""

    weight_map: dict[str, str]


def load_model(kind: type[Model], folder: Path, what: str, cure: str) -> Model:
    """Load a diffusers model from a local folder, in fp32 on the CPU, in eval mode.

    Args:
        kind: its class.
        folder: holds config.json and safetensors files; others are not read.
        what: how an error calls the model, e.g. "decoder".
        cure: what to do about a damaged one, e.g. "fit it again".

    Raises:
        UserError: a file is missing or damaged, config.json and weights don't fit each other, or a
            weight is NaN or infinite.
    """
    check_model(kind, folder, what, cure)
    loader: Any = kind
    try:
        model = loader.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    except MemoryError:
        raise
    except Exception:
        raise UserError(f"the {what} in {folder} can't be read; {cure}") from None
    for name, value in model.state_dict().items():
        if not torch.isfinite(value).all():
            raise UserError(f"the {what} in {folder} has NaN or infinite values ({name}); {cure}")
    return model.requires_grad_(False).eval()


def check_model(kind: type, folder: Path, what: str, cure: str) -> None:
    """Compare a model folder's config.json with the headers of its weights.

    Raises:
        UserError: see :func:`load_model`.
    """
    if not (folder / CONFIG).exists():
        raise UserError(f"there is no {what} in {folder} (no {CONFIG}); {cure}")
    weights = _headers(folder, what, cure)
    config = read_json(folder / CONFIG, 2**20)
    stated = config.get("_class_name") if isinstance(config, dict) else None
    if stated != kind.__name__:
        raise UserError(f"{folder / CONFIG} describes no {what} ({kind.__name__}); {cure}")
    if (wrong := _senseless(config)) is not None:
        raise UserError(f"{folder / CONFIG}: {wrong} is out of all bounds; {cure}")
    expected = _shapes(kind, config, len(weights))
    if expected is None:
        raise UserError(f"{folder / CONFIG} makes no {what} of the weights beside it; {cure}")
    for name, shape in expected.items():
        if name not in weights:
            raise UserError(f"the {what} in {folder} lacks the weights {name}; {cure}")
        found, number = weights[name]
        if found != shape or number not in _FLOATS:
            raise UserError(
                f"the {what} in {folder}: weights {name} are {number} {list(found)} but {CONFIG} "
                f"asks for {list(shape)}; {cure}"
            )
    if extra := sorted(weights.keys() - expected.keys()):
        raise UserError(f"the {what} in {folder} has weights nobody knows ({extra[0]}); {cure}")


def _senseless(value: Any, key: str = "its content") -> str | None:
    """The key of a number that no model has, or None."""
    if isinstance(value, bool | str | None):
        return None
    if isinstance(value, int | float):
        return None if abs(value) <= _MOST_NUMBER else key
    items = value.items() if isinstance(value, dict) else ((key, item) for item in value)
    found = (_senseless(item, str(name)) for name, item in items)
    return key if len(value) > 1000 else next((wrong for wrong in found if wrong), None)


def _shapes(kind: Any, config: dict[str, Any], count: int) -> dict[str, tuple[int, ...]] | None:
    """Shapes of the model's weights; None if ``config`` makes none or far more than ``count``."""
    left = 4 * count + 1000

    def limit(module: torch.nn.Module, name: str, value: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise ValueError("too many")

    watching = register_module_parameter_registration_hook(limit)
    try:
        # On this device tensors have shapes and no values.
        with torch.device("meta"):
            model = kind.from_config(config)
        return {name: tuple(value.shape) for name, value in model.state_dict().items()}
    except Exception:
        return None
    finally:
        watching.remove()


def _headers(folder: Path, what: str, cure: str) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and kind of number of every tensor in the folder's weights."""
    from safetensors import safe_open

    found = {}
    for file in weight_files(folder, what, cure):
        check_file(file)
        try:
            with safe_open(str(file), framework="pt") as handle:
                for key in handle.keys():
                    part, name = handle.get_slice(key), key
                    for old, new in _RENAMED.items():
                        name = name.replace(old, new) if ".attentions." in name else name
                    found[name] = (tuple(part.get_shape()), str(part.get_dtype()))
        except Exception:
            raise UserError(f"{file} is truncated or no safetensors file; {cure}") from None
    return found


def weight_files(folder: Path, what: str, cure: str) -> list[Path]:
    """The safetensors files of a model folder that ``from_pretrained`` reads.

    Raises:
        UserError: there are none.
    """
    whole = folder / "diffusion_pytorch_model.safetensors"
    parts = folder / f"{whole.name}.index.json"
    if whole.exists():
        return [whole]
    if parts.exists():
        names = sorted(set(read_described(WeightsIndex, parts).weight_map.values()))
        if all(Path(name).name == name for name in names) and names:
            return [folder / name for name in names]
    raise UserError(f"the {what} in {folder} has no weights ({whole.name}); {cure}")
