"""A fitted subject beside the truth: whole views and enlarged details.

Run from the source folder, on a triplane folder and the sets its views are taken from:
  PYTHONPATH=. python benchmarks/side_by_side.py --triplanes runs/stage2 --subject subject_000018 \\
      --view data/set:0 --view data/set:0:88,92,80 --output fits.jpg

``SET:FRAME`` is a whole view, ``SET:FRAME:X,Y,SIDE`` a square of it, in pixels from its upper left
corner. Every column shows the truth, the fit and four times their difference.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
from PIL import Image

from captures.multiview import MultiViewSet
from renderer.fitted_set import FittedSet
from renderer.render import RenderSettings, build_occupancy, render_image
from runtime.errors import UserError
from runtime.files import atomic_path
from triavatar.sheets import Cell, Row, draw_sheet


def parse_view(text: str) -> tuple[Path, int, tuple[int, int, int] | None]:
    """SET:FRAME or SET:FRAME:X,Y,SIDE."""
    parts = text.split(":")
    try:
        frame = int(parts[1])
        square = None
        if len(parts) == 3:
            x, y, side = map(int, parts[2].split(","))
            square = x, y, side
        return Path(parts[0]), frame, square
    except (IndexError, ValueError):
        raise UserError(f"--view {text}: write SET:FRAME or SET:FRAME:X,Y,SIDE") from None


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--triplanes", type=Path, required=True, help="triplane folder")
    parser.add_argument("--subject", required=True)
    parser.add_argument("--view", action="append", required=True, metavar="SET:FRAME[:X,Y,SIDE]")
    parser.add_argument("--convention", help="camera convention of sets without dataset.json")
    parser.add_argument("--steps", type=int, default=512, help="samples along the box's diagonal")
    parser.add_argument("--tile", type=int, default=256, help="pixels of a column")
    parser.add_argument("--quality", type=int, default=88, help="of the JPEG")
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    fitted = FittedSet.open(given.triplanes)
    planes, decoder = fitted.load(given.subject), fitted.decoder()
    settings = RenderSettings(steps=given.steps)
    grid = build_occupancy(planes, decoder, settings)
    rows = [Row("truth"), Row("fit"), Row("difference, fourfold")]
    for text in given.view:
        root, frame, square = parse_view(text)
        described = (root / "dataset.json").exists()
        data = MultiViewSet(root, None if described else given.convention)
        views = data.load(given.subject, [frame])
        truth = views.composited(1.0)[0].numpy()
        shown = render_image(planes, decoder, views.cameras[0], 1.0, settings, grid).color.numpy()
        error = np.square(shown - truth).mean()
        label = f"view {frame}, {-10 * np.log10(error):.1f} dB"
        if square is not None:
            x, y, side = square
            truth, shown = (p[y : y + side, x : x + side] for p in (truth, shown))
            label = f"of view {frame}"
        pictures = (truth, shown, 1 - 4 * np.abs(shown - truth))
        for row, picture, name in zip(rows, pictures, (f"{root.name}", label, ""), strict=True):
            tile = (picture.clip(0, 1) * 255 + 0.5).astype(np.uint8)
            row.cells.append(Cell(tile, name))
    buffer = io.BytesIO()
    Image.fromarray(draw_sheet(rows, given.tile)).save(buffer, "JPEG", quality=given.quality)
    with atomic_path(given.output) as temporary:
        temporary.write_bytes(buffer.getvalue())
    print(f"{given.output}: {len(buffer.getvalue()) / 1000:.0f} kB")


if __name__ == "__main__":
    main()
