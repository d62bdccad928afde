"""A trained pipeline's folder: which parts it has, and loading them once they are checked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeVar

import torch
from pydantic import Field

from diffusion.networks import (
    LinearExpectation,
    PlaneNormalization,
    TriplaneUNet,
    TriplaneUpsampler,
)
from diffusion.sampling.pipelines import (
    BaseTriplanePipeline,
    Enlarge,
    UpsampleTriplanePipeline,
)
from diffusion.sampling.predictions import PredictionType
from runtime.described import Described, Name, Number, Size, read_described
from runtime.errors import UserError
from runtime.files import file_hash
from runtime.formats.models import check_model

Pipeline = TypeVar("Pipeline", BaseTriplanePipeline, UpsampleTriplanePipeline)
_CURE = "train it again"
_KINDS: dict[str, type] = {
    kind.__name__: kind
    for kind in (TriplaneUNet, TriplaneUpsampler, PlaneNormalization, LinearExpectation)
}

Part = tuple[str, str] | tuple[None, None]
"""Library and class of a pipeline's part; both None where it has none."""


class ModelIndex(Described):
    """``model_index.json``."""

    class_name: Name = Field(alias="_class_name")
    unet: Part
    # A regression has none.
    scheduler: Part
    # Models of the first version have none.
    normalization: Part | None = None
    expectation: Part = (None, None)
    enlarge: Enlarge = "model"

    def parts(self) -> dict[str, str]:
        """Class of every part that is there."""
        named = ("unet", "scheduler", "normalization", "expectation")
        values = {name: getattr(self, name) for name in named}
        return {name: value[1] for name, value in values.items() if value and value[1] is not None}


class TrainingData(Described):
    """``training_data.json``: what a model was trained on."""

    decoder_hash: Name
    vae_hash: Name
    image_size: Size
    channels: Size
    scaling_factor: Number | None = None


class NoiseSchedule(Described):
    """``scheduler_config.json``, as far as samples depend on it."""

    class_name: Literal["DDIMScheduler"] = Field(alias="_class_name")
    num_train_timesteps: Annotated[int, Field(ge=1, le=10**5)]
    trained_betas: list[Annotated[float, Field(ge=0, le=1)]]
    prediction_type: PredictionType


def open_model(path: Path, kind: type[Pipeline]) -> tuple[Path, dict[str, object]]:
    """Find a trained model: its folder, and what it says it was trained on.

    Args:
        path: a run folder (its best snapshot if there is one, else its last), or a model's folder.
        kind: the pipeline it must hold.

    Raises:
        UserError: there is none, or another one.
    """
    snapshots = [path / "snapshots" / name for name in ("best", "model")]
    folder = next((each for each in snapshots if each.is_dir()), path)
    index = folder / "model_index.json"
    if not index.exists():
        raise UserError(
            f"{path} holds no model (no model_index.json): give the run folder of the training or "
            f"its snapshots/model"
        )
    stated = read_described(ModelIndex, index)
    if stated.class_name != kind.__name__:
        raise UserError(f"{folder} holds a {stated.class_name}, this stage needs a {kind.__name__}")
    if stated.normalization is None:
        raise UserError(
            f"{folder} was trained by an earlier version, whose models this one can't read: train "
            f"it again"
        )
    return folder, read_described(TrainingData, folder / "training_data.json").model_dump()


def load_pipeline(
    kind: type[Pipeline], path: Path, device: torch.device
) -> tuple[Pipeline, dict[str, object]]:
    """The trained pipeline, and what it says it was trained on.

    Raises:
        UserError: the folder is missing, damaged or holds another model.
    """
    folder, trained = open_model(path, kind)
    parts = read_described(ModelIndex, folder / "model_index.json").parts()
    if "scheduler" not in parts and (folder / "scheduler").exists():
        raise UserError(f"{folder / 'model_index.json'} does not name its scheduler: {_CURE}")
    for name, made_of in parts.items():
        if name == "scheduler":
            _check_schedule(folder / "scheduler" / "scheduler_config.json")
        elif made_of not in _KINDS:
            raise UserError(f"{folder} has a part of unknown class {made_of:.50}: {_CURE}")
        else:
            check_model(_KINDS[made_of], folder / name, f"model's {name}", _CURE)
    try:
        pipeline = kind.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    except MemoryError:
        raise
    except Exception:
        # Each part of it fails in its own ways.
        raise UserError(f"the model in {folder} can't be read: {_CURE}") from None
    assert isinstance(pipeline, kind)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.unet.eval()
    for part in pipeline.components.values():
        weights = part.state_dict() if isinstance(part, torch.nn.Module) else {}
        for name, value in weights.items():
            if not torch.isfinite(value).all():
                raise UserError(
                    f"the model in {folder} has NaN or infinite values ({name}): {_CURE}"
                )
    weights = sorted((folder / "unet").glob("*.safetensors"))
    trained["model_hash"] = "-".join(file_hash(each)[:16] for each in weights)
    return pipeline.to(device), trained


def _check_schedule(path: Path) -> None:
    schedule = read_described(NoiseSchedule, path)
    if len(schedule.trained_betas) != schedule.num_train_timesteps:
        raise UserError(
            f"{path}: trained_betas has {len(schedule.trained_betas)} entries but must have "
            f"{schedule.num_train_timesteps}, as many as num_train_timesteps."
        )
