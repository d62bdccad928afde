"""A full turn of an avatar as a file: video, self-contained page, or GIF."""

import base64
import html
import io
import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from runtime.files import atomic_path, write_text
from triavatar.video import write_video

TurntableFormat = Literal["mp4", "html", "gif"]


def encode_jpeg(picture: np.ndarray, quality: int = 92) -> bytes:
    """uint8 [H, W, 3] as JPEG, without thinning colour out."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def page(name: str) -> str:
    """Text of one of the project's own pages, e.g. ``viewer.html``."""
    return (files("triavatar") / "web" / name).read_text(encoding="utf-8")


def write_html(path: Path, frames: np.ndarray, fps: int, title: str) -> None:
    """Write a page that holds its frames itself and turns by dragging; it needs no network.

    Args:
        path: file with suffix ``.html``.
        frames: a full turn, uint8 [N, H, W, 3].
        fps: frames per second while nobody drags.
        title: shown under the picture.
    """
    _, height, width, _ = frames.shape
    pictures = [base64.b64encode(encode_jpeg(frame)).decode("ascii") for frame in frames]
    data = {"width": width, "height": height, "fps": fps, "frames": pictures}
    filled = page("turntable.html").replace("__TITLE__", html.escape(title))
    write_text(path, filled.replace("__DATA__", json.dumps(data)))


def write_gif(path: Path, frames: np.ndarray, fps: int) -> None:
    """Write an endless GIF with one palette for all frames, so that colours don't flicker."""
    count = min(len(frames), 8)
    chosen = frames[np.linspace(0, len(frames) - 1, count).astype(int)]
    # A strip of views from all around knows every colour there is.
    palette = Image.fromarray(np.concatenate(list(chosen), axis=1)).quantize(255)
    # The background, which must not turn grey on a white page, has a place of its own.
    colors = (palette.getpalette() or [])[: 3 * 255]
    palette.putpalette(colors + frames[0, 0, 0].tolist())
    pictures = [Image.fromarray(frame).quantize(palette=palette) for frame in frames]
    with atomic_path(path) as temporary:
        pictures[0].save(
            temporary,
            save_all=True,
            append_images=pictures[1:],
            # In hundredths of a second; browsers slow down what is faster than 0.02 s.
            duration=max(20, 10 * round(100 / fps)),
            loop=0,
        )


def write_turntable(
    folder: Path, frames: np.ndarray, fps: int, formats: Sequence[TurntableFormat], title: str
) -> None:
    """Write ``turntable.<format>`` of each format into ``folder``.

    Args:
        frames: a full turn, uint8 [N, H, W, 3].
        fps: frames per second.
        formats: which files.
        title: of the page.
    """
    if "mp4" in formats:
        write_video(folder / "turntable.mp4", frames, fps)
    if "html" in formats:
        write_html(folder / "turntable.html", frames, fps, title)
    if "gif" in formats:
        write_gif(folder / "turntable.gif", frames, fps)
