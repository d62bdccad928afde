"""``triavatar view``: look at triplanes in the browser, rendered here by the renderer itself.

Python's own HTTP server and one page. While hands or faces move, the browser draws coloured
triangles by itself; at rest it asks for the triplane's own pictures, small ones first.
"""

import ipaddress
import json
import math
import select
import socket
import webbrowser
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np

from renderer.render import RenderSettings
from runtime.devices import select_device
from runtime.errors import UserError
from runtime.progress import counted
from triavatar.avatar_files import find_triplanes
from triavatar.export.libraries import check_packages
from triavatar.rig.expression import parse_expression
from triavatar.rig.head_model import HeadModel, find_head_model, has_head_model
from triavatar.turntable import encode_jpeg, page
from triavatar.viewer.photographs import MOST_BYTES, PhotoStudio
from triavatar.viewer.scene import LAYERS, Scene, Viewpoint

NEAREST = 1.8
"""Distance below which the camera would stand inside the box."""
FIELD_OF_VIEW = 28.84
"""Degrees that pictures are wide and high, as those of :func:`captures.cameras.orbit_cameras`."""


@dataclass
class ViewerConfig:
    """Settings of ``triavatar view``."""

    triplane: Path
    """Triplane file (.safetensors, or .npy with --decoder), triplane folder, or the folder of a
    generated avatar; of a folder, the page offers all."""
    decoder: Path | None = None
    """Decoder folder; found by itself for files inside a triplane folder."""
    size: int = 512
    """Width and height of the picture at rest, in pixels."""
    elevation: float = 5.0
    """Height of the camera above the horizon at the start, in degrees."""
    distance: float = 4.5
    """From the camera to the box's centre at the start, in world units (the box is [-1, 1]³)."""
    march: RenderSettings = field(
        default_factory=lambda: RenderSettings(steps=512, color_threshold=1e-3)
    )
    """How rays are marched at rest; while moving with half as many steps."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 lets other machines look too."""
    port: int = 8008
    """Port to listen on; 0 takes a free one."""
    rig: Path | None = None
    """Head model that gives faces expressions: folder that `triavatar train-rig` wrote, or a model
    with the part rig; the shipped one without."""
    model: str | None = None
    """Model that makes avatars of photographs dropped on the page: folder that `triavatar bundle`
    wrote, or its id on the hub; "shipped" for the one that comes with the project."""
    output_dir: Path = Path("avatars")
    """Folder for the avatars of dropped photographs."""
    browser: bool = False
    """Open the page in this machine's browser."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""


class ViewerServer(ThreadingHTTPServer):
    """Serves the page and its pictures.

    Args:
        config: where to listen and what to show.

    Raises:
        UserError: there is nothing to show, it can't be read, or the port is taken.
    """

    daemon_threads = True
    request_queue_size = 64
    """Connections that may wait to be taken; with the usual five a busy page's wait for seconds."""

    def __init__(self, config: ViewerConfig):
        if config.size < 16 or config.distance < NEAREST:
            raise UserError(f"view needs size ≥ 16 and distance ≥ {NEAREST}.")
        triplanes = find_triplanes(config.triplane)
        self.config = config
        device = select_device(config.device)
        self.studio = PhotoStudio(config.model, config.output_dir, str(device))
        model = _head_model(config.rig)
        self.scene = Scene(triplanes, config.decoder, config.march, device, model)
        self.scene.load(next(iter(triplanes)))
        # One thread renders for all: each would bring a set of compute threads of its own.
        self.renderer = ThreadPoolExecutor(1, "render")
        try:
            super().__init__((config.host, config.port), Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or "there is no such port"
            raise UserError(
                f"can't listen on {config.host} port {config.port} ({reason}); give another --port "
                "or --host."
            ) from None

    def server_close(self) -> None:
        super().server_close()
        self.renderer.shutdown()
        self.studio.close()

    @property
    def address(self) -> str:
        """Return where the page is."""
        host, port = self.server_address[:2]
        return f"http://{'localhost' if host == '0.0.0.0' else host}:{port}/"

    def describe(self) -> dict:
        """Return what the page needs to know."""
        return {
            "avatars": list(self.scene.triplanes),
            "size": self.config.size,
            "elevation": self.config.elevation,
            "distance": self.config.distance,
            "nearest": NEAREST,
            "fov": FIELD_OF_VIEW,
            "shapes": list(self.scene.model.shapes) if self.scene.model else [],
            "photographs": self.studio.open,
        }

    def knows(self, host: str) -> bool:
        """Whether a request's Host header names this machine as people type it.

        A page of another site can have its own name lead to this machine and would then read our
        answers; it can't do so for addresses in figures.
        """
        name = urlsplit(f"//{host}").hostname or ""
        own = {"localhost", self.config.host.lower(), socket.gethostname().lower()}
        if name in own | {f"{each}.local" for each in own}:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def named(self, query: dict[str, list[str]]) -> str:
        """The avatar that a query means (UserError: there is none of that name)."""
        name = query.get("avatar", [next(iter(self.scene.triplanes))])[0]
        if name not in self.scene.triplanes:
            raise UserError(f"there is no avatar '{name}'")
        return name

    def preview(self, query: dict[str, list[str]]) -> bytes:
        """What the page draws by itself of the avatar that a query names, as JSON."""
        name = self.named(query)
        return json.dumps(self.renderer.submit(self.scene.preview, name).result()).encode()

    def take_photograph(self, content: bytes) -> bytes:
        """Make the avatar of a dropped photograph and show it; its name as JSON."""
        name, file = self.studio.make(content)
        self.scene.triplanes[name] = file
        return json.dumps({"avatar": name}).encode()

    def picture(self, query: dict[str, list[str]], wanted: Callable[[], bool]) -> bytes | None:
        """The JPEG a query asks for; None when it came to nobody's turn any more.

        Args:
            wanted: asked when the picture's turn has come, whether somebody still waits for it.

        Raises:
            UserError: the query makes no sense, or the triplane can't be read.
        """
        name = self.named(query)
        layer = query.get("layer", ["color"])[0]
        if layer not in LAYERS:
            raise UserError(f"layer '{layer}' is none of {', '.join(LAYERS)}")
        viewpoint = Viewpoint(
            _number(query, "azimuth", 0.0, -1e4, 1e4),
            _number(query, "elevation", self.config.elevation, -85, 85),
            _number(query, "distance", self.config.distance, NEAREST, 100),
        )
        size = int(_number(query, "size", self.config.size, 16, self.config.size))
        background = _number(query, "background", 1.0, 0, 1)
        moving = bool(_number(query, "moving", 0, 0, 1))
        face = parse_expression(query.get("expression", [""])[0])

        def render() -> np.ndarray | None:
            if not wanted():
                return None
            return self.scene.render(name, viewpoint, size, layer, background, moving, face, wanted)

        picture = self.renderer.submit(render).result()
        return None if picture is None else encode_jpeg(picture, 85 if moving else 95)


def _head_model(folder: Path | None) -> HeadModel | None:
    """The named head model or the shipped one; None when none comes with the installation."""
    if folder is None and not has_head_model():
        return None
    check_packages(("ply",))
    return find_head_model(folder)


def _number(query: dict[str, list[str]], key: str, default: float, low: float, high: float):
    text = query.get(key, [str(default)])[0]
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise UserError(f"{key} is '{text[:40]}', it must be a number from {low:g} to {high:g}")
    return value


class Handler(BaseHTTPRequestHandler):
    """Answers GET / (the page), /scene.json, /preview.json?…, /view?… and POST /photograph.

    Errors are one sentence of text.
    """

    protocol_version = "HTTP/1.1"
    timeout = 30
    """Seconds that a connection may stay silent, also in the middle of a request."""
    server: ViewerServer

    def do_GET(self) -> None:
        try:
            address = urlsplit(self.path)
        except ValueError:
            address = urlsplit("/nowhere")
        try:
            if (stranger := self._stranger(address.path)) is not None:
                self._send(403, "text/plain; charset=utf-8", stranger.encode())
                return
            if address.path == "/":
                self._send(200, "text/html; charset=utf-8", page("viewer.html").encode())
            elif address.path == "/scene.json":
                content = json.dumps(self.server.describe()).encode()
                self._send(200, "application/json", content)
            elif address.path == "/preview.json":
                content = self.server.preview(parse_qs(address.query))
                self._send(200, "application/json", content)
            elif address.path == "/view":
                picture = self.server.picture(parse_qs(address.query), self._waits)
                if picture is None:
                    self.close_connection = True
                else:
                    self._send(200, "image/jpeg", picture)
            else:
                self._send(404, "text/plain; charset=utf-8", b"there is nothing here")
        except UserError as error:
            self._send(400, "text/plain; charset=utf-8", str(error).encode())
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            self.close_connection = True  # the page was closed while its picture was on the way

    def do_POST(self) -> None:
        self.close_connection = True
        try:
            length = self.headers.get("Content-Length", "")
            if (stranger := self._stranger("/photograph")) is not None:
                self._send(403, "text/plain; charset=utf-8", stranger.encode())
            elif urlsplit(self.path).path != "/photograph" or not length.isdigit():
                self._send(404, "text/plain; charset=utf-8", b"there is nothing here")
            elif int(length) > MOST_BYTES:
                raise UserError(f"the photograph is larger than {MOST_BYTES >> 20} MB")
            else:
                content = self.server.take_photograph(self.rfile.read(int(length)))
                self._send(200, "application/json", content)
        except UserError as error:
            self._send(400, "text/plain; charset=utf-8", str(error).encode())
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            pass  # the page was closed while its avatar was made; it is on disk all the same

    def _stranger(self, path: str) -> str | None:
        """Why a request is not the viewer's own page's; None when it is."""
        host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
        if not self.server.knows(host):
            return f"the viewer is not called {host[:80]!r}; open {self.server.address}"
        elsewhere = self.headers.get("Sec-Fetch-Site") == "cross-site" and path != "/"
        if elsewhere or (origin is not None and urlsplit(origin).netloc != host):
            return f"pages of other sites get nothing here; open {self.server.address}"
        return None

    def _waits(self) -> bool:
        """Whether the other side still holds the connection open."""
        try:
            readable, _, _ = select.select([self.connection], [], [], 0)
            return not readable or self.connection.recv(1, socket.MSG_PEEK) != b""
        except (OSError, ValueError):
            return False

    def _send(self, status: int, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Silent: one line per picture would hide the address."""


def view(config: ViewerConfig) -> None:
    """Serve the viewer until Ctrl-C.

    Raises:
        UserError: see :class:`ViewerServer`.
    """
    server = ViewerServer(config)
    count = counted(len(server.scene.triplanes), "avatar")
    print(f"{count} at {server.address} (Ctrl-C ends)", flush=True)
    if config.browser:
        webbrowser.open(server.address)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print("\nviewer ended")
    finally:
        server.server_close()
