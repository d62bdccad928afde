"""``report.html``: an avatar's portrait, views and figures on one page that needs no network."""

from __future__ import annotations

import base64
import html
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from likeness.uncertainty import how_sure
from runtime.files import write_text
from runtime.version import VERSION
from triavatar.avatar import Avatar
from triavatar.render_avatar import ViewConfig
from triavatar.sheets import on_white
from triavatar.turntable import encode_jpeg, page

SIDE = 320
FILES = {
    "turntable.mp4": "a full turn, as video",
    "turntable.html": "a full turn, as a page",
    "turntable.gif": "a full turn, as picture",
    "avatar.html": "to turn around in any browser",
    "avatar.glb": "textured mesh: Blender, Unity, Unreal, three.js",
    "avatar.rigged.glb": "the same with a face that moves: 52 ARKit morph targets, bones",
    "avatar.obj": "textured mesh, for older programs",
    "avatar.ply": "Gaussian splats",
    "samples.png": "other people who would look like the portrait",
    "sheet.png": "portrait and views on one picture",
    "portrait.png": "the portrait as it was cut out",
    "avatar.json": "how it was made",
}


def write_report(folder: Path, avatar: Avatar, views: ViewConfig, stills: np.ndarray) -> None:
    """Write ``report.html``.

    Args:
        folder: of the avatar; files that lie there are linked.
        views, stills: what was rendered, uint8 [N, H, W, 3 | 4].
    """
    record = avatar.record
    parts = []
    if avatar.portrait is not None:
        parts.append(_figure(avatar.portrait, "portrait"))
    parts += [
        _figure(still, f"{azimuth:+.0f}°")
        for still, azimuth in zip(stills, views.azimuths, strict=True)
    ]
    warnings = "".join(f"<li>{html.escape(str(w))}</li>" for w in record.get("warnings", []))
    filled = {
        "TITLE": html.escape(avatar.name),
        "PICTURES": "".join(parts),
        "WARNINGS": f"<h2>Look out</h2><ul class=warn>{warnings}</ul>" if warnings else "",
        "TURN": _turn(folder),
        "FIGURES": _table(likeness_figures(record)),
        "UNSURE": _unsure(folder),
        "SECONDS": _table([(k, f"{v:.1f} s") for k, v in record.get("seconds", {}).items()]),
        "FILES": _files(folder),
        "COMMANDS": html.escape(_commands(folder)),
        "VERSION": VERSION,
    }
    text = page("report.html")
    for key, value in filled.items():
        text = text.replace(f"__{key}__", value)
    write_text(folder / "report.html", text)


def likeness_figures(record: dict[str, Any]) -> list[tuple[str, str]]:
    """Return rows of what is known of the likeness, from an avatar's record."""
    rows: list[tuple[str, str]] = []
    found = record.get("likeness")
    if found:
        surprise = found["surprise"]
        rows.append(("how sure", how_sure(surprise, found["portrait_psnr"])))
        rows.append(("shows its portrait at", f"{found['portrait_psnr']:.1f} dB"))
        rows.append(("surprise of the portrait", f"{surprise:.2f} (nine of ten stay under 1)"))
        rows.append(("distance from the mean person", f"{found['distance']:.2f} (people: about 1)"))
        turn = np.degrees(found["camera"].get("yaw", 0.0))
        if abs(turn) >= 1:
            rows.append(("the head is turned by", f"{turn:+.0f}°"))
    fitted = record.get("fit")
    if fitted:
        rows.append(("pictures", f"{len(fitted['pictures'])} ({fitted['kind']})"))
        rows.append(("shows them at", f"{np.mean(fitted['psnr']):.1f} dB"))
    for azimuth, value in record.get("samples", {}).get("differ", {}).items():
        rows.append((f"samples differ at {azimuth}°", f"{100 * value:.1f} % of the colours' range"))
    return rows


def _figure(picture: np.ndarray, label: str) -> str:
    small = Image.fromarray(on_white(picture))
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    data = base64.b64encode(encode_jpeg(np.asarray(small), 88)).decode("ascii")
    return (
        f'<figure><img src="data:image/jpeg;base64,{data}" alt="{label}">'
        f"<figcaption>{label}</figcaption></figure>"
    )


def _turn(folder: Path) -> str:
    if (folder / "turntable.mp4").is_file():
        return '<video src="turntable.mp4" autoplay loop muted playsinline controls></video>'
    return ""


def _unsure(folder: Path) -> str:
    if not (folder / "uncertainty.png").is_file():
        return ""
    data = base64.b64encode((folder / "uncertainty.png").read_bytes()).decode("ascii")
    return (
        "<h2>Where it may be otherwise</h2>"
        f'<img class=wide src="data:image/png;base64,{data}" alt="where samples differ">'
    )


def _table(rows: list[tuple[str, str]]) -> str:
    cells = "".join(
        f"<tr><td>{html.escape(key)}</td><td>{html.escape(value)}</td></tr>" for key, value in rows
    )
    return f"<table>{cells}</table>"


def _files(folder: Path) -> str:
    known = [(name, what) for name, what in FILES.items() if (folder / name).is_file()]
    known += [(n, w) for n, w in FILES.items() if n in ("portrait.png", "avatar.json")]
    items = "".join(
        f'<li><a href="{name}">{name}</a> {what}</li>' for name, what in dict.fromkeys(known)
    )
    return f"<ul>{items}</ul>"


def _commands(folder: Path) -> str:
    run = folder.parent.parent
    return "\n".join(
        [
            f"triavatar view {run}",
            f"triavatar render {folder} --output_dir {folder / 'more'} --views.size 1024",
            f"triavatar export {folder} --to glb ply html",
        ]
    )
