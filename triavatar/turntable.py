"""A full turn of an avatar as a file: video, self-contained page, or GIF."""

import base64
import html
import io
import json
from importlib.resources import files
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from runtime.errors import UserError
from runtime.files import atomic_path, write_text

TurntableFormat = Literal["mp4", "html", "gif"]


def encode_jpeg(picture: np.ndarray, quality: int = 92) -> bytes:
    """uint8 [H, W, 3] as JPEG, without thinning colour out."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def page(name: str) -> str:
    """Text of one of the project's own pages, e.g. ``viewer.html``."""
    return (files("triavatar") / "web" / name).read_text(encoding="utf-8")


def write_video(path: Path, frames: np.ndarray, fps: int) -> None:
    """Write an H.264 video, atomically.

    Args:
        path: file with suffix ``.mp4``.
        frames: uint8 [N, H, W, 3]; an odd side is padded by one pixel, as the codec needs.
        fps: frames per second.

    Raises:
        UserError: there is no ffmpeg program.
    """
    import imageio_ffmpeg

    try:
        imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError:
        raise UserError(
            "no ffmpeg program was found; pip install imageio-ffmpeg brings one."
        ) from None
    _, height, width, _ = frames.shape
    padded = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    with atomic_path(path) as temporary:
        writer = imageio_ffmpeg.write_frames(
            str(temporary),
            (padded.shape[2], padded.shape[1]),
            fps=fps,
            quality=8,
            macro_block_size=2,
            ffmpeg_log_level="error",
        )
        writer.send(None)
        for frame in padded:
            writer.send(np.ascontiguousarray(frame))
        writer.close()


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


def write_turn(path: Path, frames: np.ndarray, fps: int, title: str) -> Path:
    """Write one file of a full turn; its suffix decides the format.

    Args:
        path: ``.mp4``, ``.html`` or ``.gif``.
        frames: a full turn, uint8 [N, H, W, 3].
        fps: frames per second.
        title: of the page.

    Returns:
        The path.

    Raises:
        UserError: the suffix is none of these.
    """
    kind = path.suffix.lower()
    if kind == ".mp4":
        write_video(path, frames, fps)
    elif kind == ".html":
        write_html(path, frames, fps, title)
    elif kind == ".gif":
        write_gif(path, frames, fps)
    else:
        raise UserError(f"a turntable is a .mp4, .html or .gif file, not {path.name}.")
    return path
