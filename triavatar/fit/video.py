"""Pictures of a video.

Legend: H, W picture size.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from runtime.errors import UserError
from runtime.files import check_file
from runtime.picture_files import MOST_PIXELS

VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".webm", ".mkv", ".avi")
CANDIDATES = 3
"""Frames near each moment, of which sharp ones are tried first."""


def video_frames(path: Path, count: int) -> Iterator[tuple[float, list[np.ndarray]]]:
    """Yield moments of a video and the frames around each, the sharpest first.

    Args:
        path: any video that ffmpeg reads.
        count: moments, spread over its length.

    Yields:
        Seconds from the beginning, and frames uint8 [H, W, 3].

    Raises:
        UserError: it is no video, or has no picture in it.
    """
    import imageio_ffmpeg

    check_file(path)
    reader = imageio_ffmpeg.read_frames(str(path))
    try:
        about = next(reader)
    except (OSError, RuntimeError, StopIteration, IndexError, KeyError):
        raise UserError(f"{path} is not a readable video; save it again, e.g. as .mp4.") from None
    finally:
        reader.close()
    duration, (width, height) = float(about["duration"]), about["size"]
    if not 0 < duration < 36000 or not 0 < width * height <= MOST_PIXELS:
        raise UserError(f"{path} has no length or no size; save it again, e.g. as .mp4.")
    rate = count * CANDIDATES / duration
    frames = imageio_ffmpeg.read_frames(str(path), output_params=["-vf", f"fps={rate:.6f}"])
    try:
        yield from _moments(frames, rate)
    finally:
        frames.close()


def _moments(frames: Iterator, rate: float) -> Iterator[tuple[float, list[np.ndarray]]]:
    """Group frames by :data:`CANDIDATES`."""
    width, height = next(frames)["size"]
    group: list[np.ndarray] = []
    for index, content in enumerate(frames):
        group.append(np.frombuffer(content, np.uint8).reshape(height, width, 3))
        if len(group) == CANDIDATES:
            yield (index - 1) / rate, sorted(group, key=sharpness, reverse=True)
            group = []
    if group:
        yield index / rate, sorted(group, key=sharpness, reverse=True)


def sharpness(picture: np.ndarray) -> float:
    """Mean squared second difference of the grey levels of a picture, uint8 [H, W, 3]."""
    grey = picture.astype(np.float32).mean(-1)
    across, down = np.diff(grey, 2, axis=1), np.diff(grey, 2, axis=0)
    return float(np.square(across).mean() + np.square(down).mean())
