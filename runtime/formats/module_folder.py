"""Modules that are kept as a folder: config.json and safetensors, laid out as diffusers does.

For small modules of our own: reading and writing one takes neither diffusers nor its imports.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from safetensors.torch import load_file
from torch import nn

from runtime.files import read_json, write_json
from runtime.formats.tensor_files import save_tensors

WEIGHTS = "diffusion_pytorch_model.safetensors"
Self = TypeVar("Self", bound="ModuleFolder")


class ModuleFolder(nn.Module):
    """A module that its constructor's arguments describe.

    Attributes:
        config: those arguments by name, numbers and strings; subclasses set it.
    """

    config: dict[str, Any]

    @classmethod
    def from_config(cls: type[Self], config: dict[str, Any]) -> Self:
        """Make a new module.

        Args:
            config: the constructor's arguments; entries that begin with "_" are notes.

        Raises:
            TypeError: on other entries.
        """
        return cls(**{key: value for key, value in config.items() if not key.startswith("_")})

    @classmethod
    def from_pretrained(cls: type[Self], folder: Path | str, **_: Any) -> Self:
        """Read what :meth:`save_pretrained` wrote, in eval mode.

        Use :func:`runtime.formats.models.load_model`, which checks files first.
        """
        folder = Path(folder)
        module = cls.from_config(read_json(folder / "config.json", 2**20))
        module.load_state_dict(load_file(folder / WEIGHTS))
        return module.eval()

    def save_pretrained(self, folder: Path | str) -> None:
        """Write ``config.json`` and fp32 weights."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_tensors(folder / WEIGHTS, self.state_dict(), {"format": "pt"})
        write_json(folder / "config.json", {"_class_name": type(self).__name__, **self.config})
