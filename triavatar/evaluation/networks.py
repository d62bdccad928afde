"""Networks that describe a picture by a vector: FID's Inception, a face recogniser, CLIP.

None of them is shipped: each is a file or folder that the user fetches once. Files are TorchScript
(their own code, which runs without Python) or ONNX (read by OpenCV); neither holds pickled objects.

Letters: N pictures, D channels of the description.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from runtime.errors import UserError

Embed = Callable[[Tensor], Tensor]
"""Pictures [N, H, W, 3] in 0..1 → descriptions [N, D] on the CPU."""

INCEPTION = "the Inception network of 2015-12-05"
INCEPTION_FILE = (
    "TorchScript as StyleGAN2-ADA and clean-fid use it, nvlabs-fi-cdn.nvidia.com/"
    "stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt"
)
FACE_FILE = (
    "e.g. w600k_r50.onnx of InsightFace's buffalo_l, for research only by its licence; any network "
    "that takes RGB in -1..1, [N, 3, 112, 112], does"
)
FACE_SIZE = 112
BATCH = 16


def load_network(path: Path, what: str, source: str) -> Callable[[Tensor], Tensor]:
    """Open a network: float32 [N, 3, H, W] → [N, D].

    Args:
        path: a TorchScript file (.pt, .torchscript) or an ONNX file (.onnx).
        what: it is, for messages.
        source: where to fetch it, for messages.

    Raises:
        UserError: it is missing or can't be read; says what to fetch.
    """
    if not path.is_file():
        raise UserError(f"{path}, {what}, is not there; fetch it once ({source}).")
    try:
        return _onnx(path) if path.suffix == ".onnx" else _torchscript(path)
    except UserError:
        raise
    except Exception as error:  # each reader raises its own kinds
        line = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"{path} can't be read as {what} ({line[0]:.120}): it must be TorchScript or .onnx; "
            f"fetch it again ({source})."
        ) from None


def _torchscript(path: Path) -> Callable[[Tensor], Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        model = torch.jit.load(str(path), map_location="cpu").eval()
    # FID's Inception gives class probabilities unless it is told otherwise.
    takes = [argument.name for argument in model.forward.schema.arguments]
    extra = {"return_features": True} if "return_features" in takes else {}
    return lambda pictures: model(pictures, **extra)


def _onnx(path: Path) -> Callable[[Tensor], Tensor]:
    from photos.geometry import load_cv2

    network = load_cv2().dnn.readNetFromONNX(str(path))

    def run(pictures: Tensor) -> Tensor:
        outputs = []
        # Exported networks often have a batch of one.
        for picture in pictures:
            network.setInput(picture[None].contiguous().numpy().astype(np.float32))
            outputs.append(torch.from_numpy(network.forward().copy()).reshape(1, -1))
        return torch.cat(outputs)

    return run


def _in_batches(run: Callable[[Tensor], Tensor], pixels: Tensor, what: str) -> Tensor:
    """[N, 3, H, W] → [N, D] float32, some pictures at a time."""
    with torch.no_grad():
        try:
            rows = torch.cat([run(part).float().flatten(1) for part in pixels.split(BATCH)])
        except Exception as error:
            line = str(error).strip().splitlines() or [type(error).__name__]
            shape = ", ".join(map(str, pixels.shape[1:]))
            raise UserError(
                f"{what} doesn't take pictures [N, {shape}] ({line[-1]:.120}); give another file."
            ) from None
    if len(rows) != len(pixels) or not torch.isfinite(rows).all():
        raise UserError(f"{what} gives no finite vector for each picture; give another file.")
    return rows


def inception_features(path: Path) -> Embed:
    """FID's features: the network gets pictures in 0..255 and resizes them itself."""
    run = load_network(path, INCEPTION, INCEPTION_FILE)

    def embed(pictures: Tensor) -> Tensor:
        # As from 8-bit files, which is what FIDs in print are computed of.
        pixels = (pictures.cpu() * 255).round().permute(0, 3, 1, 2).float()
        return _in_batches(run, pixels, str(path))

    return embed


def face_identity(path: Path, box: tuple[float, float, float]) -> Embed:
    """Unit vectors of a face recogniser.

    Args:
        path: the network.
        box: the square that it sees: middle (x from the left, y from the top) and side, as shares
            of the picture.
    """
    run = load_network(path, "a face recogniser", FACE_FILE)

    def embed(pictures: Tensor) -> Tensor:
        faces = crop_square(pictures.cpu().permute(0, 3, 1, 2).float(), box, FACE_SIZE)
        return F.normalize(_in_batches(run, faces * 2 - 1, str(path)), dim=1)

    return embed


def crop_square(pictures: Tensor, box: tuple[float, float, float], size: int) -> Tensor:
    """Cut [N, C, H, W] to a square of `size` pixels; what lies outside the picture is white.

    Args:
        pictures: in 0..1.
        box: middle x, middle y and side, as shares of width and height.
        size: of the result, in pixels.
    """
    x, y, side = box
    theta = torch.tensor([[side, 0.0, 2 * x - 1], [0.0, side, 2 * y - 1]])
    theta = theta.expand(len(pictures), -1, -1)
    grid = F.affine_grid(theta, [len(pictures), 3, size, size], align_corners=False)
    # Shrinking by more than one needs a blur first, or fine texture would alias.
    wanted = (round(size / side), round(size / side))
    if wanted[0] < pictures.shape[-2]:
        pictures = F.interpolate(pictures, wanted, mode="bilinear", antialias=True)
    return 1 + F.grid_sample(pictures - 1, grid, align_corners=False)


def clip_embedding(model_id: str, device: torch.device) -> Embed:
    """Unit vectors of a CLIP model of transformers: a hub id, or a folder with a downloaded one.

    Raises:
        UserError: the model can't be loaded; says what to fetch.
    """
    from transformers import CLIPImageProcessor, CLIPModel

    try:
        model = CLIPModel.from_pretrained(model_id, use_safetensors=True).eval()
        torch.nn.Module.to(model, device)
        processor = CLIPImageProcessor.from_pretrained(model_id)
    except (OSError, ValueError, ImportError) as error:
        line = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"the CLIP model {model_id} can't be loaded ({line[0]:.200}); give --clip a folder of "
            "a fetched model (config.json, preprocessor_config.json, model.safetensors), e.g. "
            "openai/clip-vit-large-patch14."
        ) from None

    @torch.no_grad()
    def embed(pictures: Tensor) -> Tensor:
        arrays = [(picture * 255).round().byte().cpu().numpy() for picture in pictures]
        pixels = processor(images=arrays, return_tensors="pt")["pixel_values"].to(device)
        pooled = model.vision_model(pixel_values=pixels).pooler_output
        return F.normalize(model.visual_projection(pooled), dim=-1).cpu()

    return embed
