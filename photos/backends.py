"""Optional detectors and matting networks; their model files are fetched by the user."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from photos.faces import CascadeDetector, Face
from photos.framing import Framing
from photos.geometry import load_cv2
from runtime.errors import UserError

Detector = Callable[[np.ndarray], list[Face]]

MAX_TURN = 25.0  # degrees
# The nose's tip stands this many eye distances in front of the eyes.
NOSE_DEPTH = 0.63
YUNET_SIDE = 1280
YUNET_SCORE = 0.7
MAX_FACES = 8
# Corners of the right and the left eye and the nose's tip among MediaPipe's face landmarks.
MEDIAPIPE_EYES, MEDIAPIPE_NOSE = ((33, 133), (362, 263)), 1


def load_detector(name: str, model: Path | None) -> Detector:
    """The detector of that name: "cascade", "yunet" or "mediapipe".

    Raises:
        UserError: its package or its model file is missing.
    """
    if name == "cascade":
        return CascadeDetector()
    return YuNetDetector(model) if name == "yunet" else MediaPipeDetector(model)


def face_from_points(eyes: np.ndarray, nose: np.ndarray) -> Face:
    """A face from landmarks: eyes [2, 2] and the nose's tip [2], in pixels.

    The head's turn follows from how far the nose leaves the middle of the eyes along their line.
    """
    eyes = eyes[np.argsort(eyes[:, 0])].astype(float)
    apart = max(math.dist(*eyes), 1e-6)
    along = float((nose - eyes.mean(0)) @ (eyes[1] - eyes[0])) / apart**2
    turn = math.degrees(math.atan(along / NOSE_DEPTH))
    usual = Framing()
    centre = eyes.mean(0) * 0.6 + np.asarray(nose, dtype=float) * 0.4
    width = apart * usual.face_width / usual.eye_distance
    far = abs(turn) > MAX_TURN
    return Face((centre[0], centre[1]), width, eyes, far, has_box=False, turn=abs(turn))


def _sorted(faces: list[Face]) -> list[Face]:
    return sorted(faces, key=lambda face: -face.width)


class YuNetDetector:
    """OpenCV's YuNet (Wu et al. 2023), a small network: faces with five landmarks."""

    def __init__(self, model: Path | None) -> None:
        self.cv2 = load_cv2()
        if model is None or not model.is_file():
            raise UserError(
                f"the detector yunet needs its model file ({model or 'none given'}): fetch "
                "face_detection_yunet_2023mar.onnx from github.com/opencv/opencv_zoo and name it "
                "with detector_model."
            )
        try:
            self.network = self.cv2.FaceDetectorYN.create(str(model), "", (320, 320), YUNET_SCORE)
        except self.cv2.error as error:
            raise UserError(f"{model} is no YuNet model OpenCV can read ({error.err}).") from None

    def __call__(self, picture: np.ndarray) -> list[Face]:
        """All faces of a photograph, uint8 [H, W, 3], the largest first."""
        scale = min(1.0, YUNET_SIDE / max(picture.shape))
        size = tuple(max(1, round(v * scale)) for v in picture.shape[1::-1])
        bgr = self.cv2.cvtColor(picture, self.cv2.COLOR_RGB2BGR)
        bgr = self.cv2.resize(bgr, size, interpolation=self.cv2.INTER_AREA)
        self.network.setInputSize(size)
        _, rows = self.network.detect(bgr)
        if rows is None:
            return []
        # A row: x, y, width, height, five points (eyes, nose, corners of the mouth), score.
        points = np.asarray(rows)[:, 4:10].reshape(-1, 3, 2) / scale
        return _sorted([face_from_points(p[:2], p[2]) for p in points])


class MediaPipeDetector:
    """MediaPipe's face landmarker: 478 landmarks of every face."""

    def __init__(self, model: Path | None) -> None:
        try:
            import mediapipe  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise UserError(
                "the detector mediapipe needs its package; pip install mediapipe."
            ) from None
        if model is None or not model.is_file():
            raise UserError(
                f"the detector mediapipe needs its model file ({model or 'none given'}): fetch "
                "face_landmarker.task from MediaPipe's Face Landmarker page and name it with "
                "detector_model."
            )
        vision = mediapipe.tasks.vision
        self.mediapipe = mediapipe
        options = vision.FaceLandmarkerOptions(
            base_options=mediapipe.tasks.BaseOptions(model_asset_path=str(model)),
            num_faces=MAX_FACES,
        )
        try:
            self.network = vision.FaceLandmarker.create_from_options(options)
        except (RuntimeError, ValueError):
            raise UserError(
                f"{model} is no face landmarker model; give the file that MediaPipe publishes."
            ) from None

    def __call__(self, picture: np.ndarray) -> list[Face]:
        """All faces of a photograph, uint8 [H, W, 3], the largest first."""
        image = self.mediapipe.Image(
            image_format=self.mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(picture)
        )
        size = np.array(picture.shape[1::-1])
        faces = []
        for marks in self.network.detect(image).face_landmarks:
            points = np.array([[mark.x, mark.y] for mark in marks]) * size
            eyes = np.stack([points[list(corners)].mean(0) for corners in MEDIAPIPE_EYES])
            faces.append(face_from_points(eyes, points[MEDIAPIPE_NOSE]))
        return _sorted(faces)


class RembgMatting:
    """A matting network run by rembg."""

    def __init__(self, model: str) -> None:
        try:
            import rembg  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise UserError(
                'the matting rembg needs its package; pip install "rembg[cpu]".'
            ) from None
        # rembg would fetch a missing file unasked.
        default = os.path.join(os.getenv("XDG_DATA_HOME", "~"), ".u2net")
        file = Path(os.getenv("U2NET_HOME", default)).expanduser() / f"{model}.onnx"
        if not file.is_file():
            raise UserError(
                f"the matting rembg needs {file}: fetch {model}.onnx from "
                "github.com/danielgatis/rembg/releases (v0.0.0)."
            )
        self.remove = rembg.remove
        self.session = rembg.new_session(model)

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        """Alpha, float32 [S, S] in [0, 1], of a framed portrait, uint8 [S, S, 3]."""
        mask = self.remove(Image.fromarray(picture), session=self.session, only_mask=True)
        return np.asarray(mask.convert("L"), dtype=np.float32) / 255
