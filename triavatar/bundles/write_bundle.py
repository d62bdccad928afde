"""``triavatar bundle``: runs to one folder that generates avatars."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch

from captures.multiview import MultiViewSet
from captures.selection import SetConvention
from diffusion.conditioning.features import load_vae, vae_hash
from diffusion.sampling.model_files import TrainingData, load_pipeline
from diffusion.sampling.pipelines import BaseTriplanePipeline, UpsampleTriplanePipeline
from likeness.learned.likeness_model import LikenessModel
from photos.framing import Framing, measure_framing
from renderer.decoder import decoder_hash
from renderer.fitted_set import load_decoder
from runtime.config import own_first
from runtime.described import read_described
from runtime.errors import UserError
from runtime.files import file_hash, new_folder, read_json, read_text, write_json, write_text
from runtime.formats.tensor_files import load_tensors, save_tensors
from runtime.version import VERSION, commit
from triavatar.bundles.bundle import (
    FORMAT,
    FORMAT_VERSION,
    INDEX,
    PARTS,
    SUFFIXES,
    Bundle,
    check_parts,
)
from triavatar.bundles.model_card import model_card
from triavatar.rig.head_model import HeadModel


@own_first
@dataclass
class BundleConfig(SetConvention):
    """Settings of ``triavatar bundle``."""

    decoder: Path
    """Shared decoder: run folder of fit-decoder or fit-triplanes, or its decoder/."""
    output_dir: Path
    """The bundle to write."""
    vae: str | None = None
    """AutoencoderKL the base model was trained with: folder or hub id."""
    base: Path | None = None
    """Base model: run folder of train-base, or its snapshots/model."""
    upsampler: Path | None = None
    """Upsampler: run folder of train-upsampler, or its snapshots/model."""
    likeness: Path | None = None
    """Folder of the likeness model: config.json and safetensors."""
    rig: Path | None = None
    """Folder of the head model that gives avatars expressions, as train-rig writes it."""
    framing: Framing = field(default_factory=Framing)
    """Where the face stands in the portraits the model knows."""
    root: Path | None = None
    """Multi-view set whose frontal pictures give the framing, in place of --framing."""
    name: str = "triavatar"
    """What the model card calls the model."""
    license: str = "MIT"
    """SPDX identifier of the weights' licence."""
    license_file: Path | None = None
    """Text of the licence; the identifier alone without it."""
    card: Path | None = None
    """Model card (Markdown) to take instead of the short one made from the index; {commit} in it
    becomes the code's commit."""
    storage: Literal["float16", "float32"] = "float16"
    """How the diffusion networks' weights are kept; float32 gives the very avatars of the runs."""


def bundle(config: BundleConfig) -> None:
    """Write the bundle, or nothing.

    Raises:
        UserError: the folder holds something else, a part is missing or damaged, or they don't fit.
    """
    framing = config.framing
    if config.root is not None:
        from photos.portraits import PortraitMaker, PortraitSettings

        detect = PortraitMaker(PortraitSettings()).detect
        framing = measure_framing(MultiViewSet(config.root, config.convention), detect)
    given: dict[str, Path | str | None] = {name: getattr(config, name) for name in PARTS}
    written = write_bundle(
        config.output_dir,
        {name: place for name, place in given.items() if place is not None},
        framing=framing,
        name=config.name,
        license=config.license,
        license_text=_text(config.license_file),
        card=_text(config.card),
        storage=config.storage,
    )
    megabytes = sum(entry.bytes for entry in written.index.files.values()) / 1e6
    print(f"{', '.join(written.parts)}: {megabytes:.1f} MB in {written.folder}")
    print(f"next: triavatar generate PHOTO --model {written.folder}")


def _text(path: Path | None) -> str | None:
    return None if path is None else read_text(path)


def write_bundle(
    folder: Path,
    parts: Mapping[str, Path | str],
    *,
    framing: Framing,
    name: str = "triavatar",
    license: str = "MIT",
    license_text: str | None = None,
    card: str | None = None,
    storage: str = "float16",
) -> Bundle:
    """Gather parts in a new folder, check that they fit, and index them.

    Args:
        folder: appears whole or not at all; the same bundle may be there already.
        parts: part → run folder, model folder or (VAE) hub id.
        framing: see :class:`BundleConfig`, as the other arguments.

    Raises:
        UserError: see :func:`bundle`.
    """
    check_parts(parts, "the bundle")
    about = {"name": name, "license": license, "framing": asdict(framing)}
    card = None if card is None else card.replace("{commit}", commit() or "unknown")
    texts = {"LICENSE": license_text, "README.md": card}
    if not folder.exists():
        _write(folder, parts, about, texts, storage)
        return Bundle.open(folder)
    with TemporaryDirectory() as parent:
        again = Path(parent) / "bundle"
        _write(again, parts, about, texts, storage)
        known = folder / INDEX
        if not known.is_file() or file_hash(known) != file_hash(again / INDEX):
            raise UserError(
                f"{folder} holds something else; choose another --output_dir or delete it."
            )
    return Bundle.open(folder)


def _write(
    folder: Path,
    parts: Mapping[str, Path | str],
    about: Mapping[str, Any],
    texts: Mapping[str, str | None],
    storage: str,
) -> None:
    with new_folder(folder) as growing:
        index: dict[str, Any] = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "code_version": VERSION,
            **({"commit": commit()} if commit() else {}),
            **about,
            "parts": _gather(growing, parts, storage),
        }
        notice = f"The weights in this folder are licensed under {about['license']}.\n"
        write_text(growing / "LICENSE", texts["LICENSE"] or notice)
        write_text(growing / "README.md", texts["README.md"] or model_card(index))
        files = [path for path in sorted(growing.rglob("*")) if path.is_file()]
        index["files"] = {
            path.relative_to(growing).as_posix(): {
                "sha256": file_hash(path),
                "bytes": path.stat().st_size,
            }
            for path in files
        }
        write_json(growing / INDEX, index)


def _gather(growing: Path, parts: Mapping[str, Path | str], storage: str) -> dict[str, Any]:
    """Copy every part; what the index says of each."""
    decoder = load_decoder(Path(parts["decoder"]))
    decoder.save_pretrained(growing / "decoder")
    described: dict[str, Any] = {"decoder": {"hash": decoder_hash(decoder)}}
    if "vae" in parts:
        vae = load_vae(str(parts["vae"]))
        vae.save_pretrained(growing / "vae")
        described["vae"] = {"hash": vae_hash(vae)}
    pipelines = {"base": BaseTriplanePipeline, "upsampler": UpsampleTriplanePipeline}
    for name, kind in pipelines.items():
        if name in parts:
            source = _snapshot(Path(parts[name]), name)
            trained = load_pipeline(kind, source, torch.device("cpu"))[1]
            for key, part in (("decoder_hash", "decoder"), ("vae_hash", "vae")):
                if trained.get(key) != described[part]["hash"]:
                    raise UserError(
                        f"{parts[name]} was trained with another {part} than {parts[part]}; "
                        "give the parts of one chain."
                    )
            _copy(source, growing / name, storage)
            known = read_described(TrainingData, source / "training_data.json").model_dump()
            described[name] = {key: known.get(key) for key in ("image_size", "subjects", "step")}
    if "likeness" in parts:
        source = Path(parts["likeness"])
        model = LikenessModel.load(source)
        if model.prior.decoder_hash != described["decoder"]["hash"]:
            raise UserError(
                f"{source} was made for another decoder than {parts['decoder']}; give the decoder "
                "of its triplanes."
            )
        _copy(source, growing / "likeness", "as they are")
        described["likeness"] = {"people": model.prior.people}
    if "rig" in parts:
        source = Path(parts["rig"])
        described["rig"] = {"people": HeadModel.load(source).config.people}
        _copy(source, growing / "rig", "as they are")
    for path in [*growing.rglob("config.json"), *growing.rglob("model_index.json")]:
        # diffusers notes where it loaded a model from: a path of this machine.
        config = read_json(path)
        if isinstance(config, dict) and config.pop("_name_or_path", None) is not None:
            write_json(path, config)
    return described


def _snapshot(folder: Path, name: str) -> Path:
    for place in (folder / "snapshots" / "best", folder / "snapshots" / "model", folder):
        if (place / "model_index.json").is_file():
            return place
    raise UserError(
        f"{folder} holds no model (no model_index.json); give --{name} the run folder of the "
        "training or its snapshots/model."
    )


def _copy(source: Path, target: Path, storage: str) -> None:
    """Copy a folder; a network's (unet/) fp32 weights in half precision if that is asked for."""
    for path in sorted(source.rglob("*")):
        if not path.is_file():
            continue
        inner = path.relative_to(source)
        if path.suffix not in SUFFIXES:
            raise UserError(f"{path} is of a kind that no bundle holds; delete it.")
        place = target / inner
        place.parent.mkdir(parents=True, exist_ok=True)
        if storage == "float16" and inner.parts[0] == "unet" and path.suffix == ".safetensors":
            tensors, metadata = load_tensors(path)
            halved = {
                key: value.half() if value.dtype == torch.float32 else value
                for key, value in tensors.items()
            }
            save_tensors(place, halved, metadata)
        else:
            shutil.copyfile(path, place)
