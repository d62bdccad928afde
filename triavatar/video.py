"""Writing videos."""

from pathlib import Path

import numpy as np

from runtime.errors import UserError
from runtime.files import atomic_path


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
