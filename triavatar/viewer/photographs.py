"""Photographs dropped on the viewer's page become avatars on disk."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from runtime.errors import UserError

MOST_BYTES = 32 * 2**20
SHIPPED = "shipped"


class PhotoStudio:
    """Makes avatars of photographs, one at a time.

    Args:
        model: bundle's folder or hub id, "shipped" for the project's own; None takes no
            photographs.
        folder: triplane folder that avatars are saved into.
        device: where they are made.
    """

    def __init__(self, model: str | None, folder: Path, device: str):
        self.model, self.folder, self.device = model, folder, device
        self._pipeline: Any = None
        self._worker = ThreadPoolExecutor(1, "photographs")

    @property
    def open(self) -> bool:
        """Return whether it takes photographs."""
        return self.model is not None

    def make(self, content: bytes) -> tuple[str, Path]:
        """Make and save the avatar of a photograph's file; its name and its triplane's file.

        Raises:
            UserError: there is no model, it is no picture, or no avatar can be made of it.
        """
        if not self.open:
            raise UserError("start the viewer with --model to make avatars of photographs")
        try:
            picture = Image.open(io.BytesIO(content))
            picture.load()
        except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError):
            raise UserError("what was dropped is no picture that can be read") from None
        return self._worker.submit(self._make, picture).result()

    def _make(self, picture: Image.Image) -> tuple[str, Path]:
        from triavatar.pipeline import AvatarPipeline

        if self._pipeline is None:
            named = None if self.model == SHIPPED else self.model
            self._pipeline = AvatarPipeline.from_pretrained(named, device=self.device)
        number = 1
        while (self.folder / "triplanes" / f"photograph_{number}.safetensors").exists():
            number += 1
        name = f"photograph_{number}"
        self._pipeline(picture, name=name).save(self.folder)
        return name, self.folder / "triplanes" / f"{name}.safetensors"

    def close(self) -> None:
        """Wait for the avatar that is being made, and end."""
        self._worker.shutdown(cancel_futures=True)
