"""Picture → avatar: what makes portraits, what makes triplanes of them, and the decoder.

Legend: C channels, H W plane size, S side of a portrait.

::

    picture ─ PortraitMaker ─ portrait ─┬─ LikenessModel ───── planes [3, C, H, W]
                                        └─ PortraitDiffusion ─ planes [3, C, H, W]
    planes + TriplaneDecoder = Avatar ─ renderer ─ any view
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import torch
from PIL import Image

from captures.cameras import Cameras
from diffusion.sampling.sampler_config import SamplingConfig
from likeness.fit import fit_likeness
from likeness.learned.likeness_model import LikenessModel
from likeness.portrait.portrait import Portrait
from likeness.settings import LikenessSettings
from likeness.several.fit_views import SeveralSettings
from likeness.uncertainty import how_sure
from photos.framing import Framing
from photos.matte import with_alpha
from photos.portraits import PortraitSettings
from photos.prepare import Picture, Preparer, check_portrait
from renderer.decoder import TriplaneDecoder, decoder_hash
from renderer.fitted_set import load_decoder
from runtime.devices import select_device
from runtime.errors import UserError
from triavatar.avatar import Avatar
from triavatar.bundles.bundle import Bundle, check_parts, find_bundle
from triavatar.fit.captured import CaptureSettings, capture_of
from triavatar.fit.fit_avatar import fit_avatar

if TYPE_CHECKING:
    from triavatar.portrait_diffusion import PortraitDiffusion


TURN = 34.0
"""Degrees that a portrait's head may be turned to the side where likeness is sought."""


class AvatarPipeline:
    """Everything between a picture of a face and its avatar.

    Attributes:
        decoder: the shared decoder that renders the triplanes.
        diffusion: samples triplanes for portraits, or None.
        likeness: finds the triplane that shows the portrait, or None.
        portrait: how photographs become portraits framed as the models know them.
        device: where all of them are.
        sources: part → where it was loaded from.

    Example:
        >>> pipeline = AvatarPipeline.from_pretrained("data/bundle")
        >>> avatar = pipeline("me.jpg", seed=1)
        >>> avatar.planes.shape
        torch.Size([3, 32, 128, 128])
    """

    def __init__(
        self,
        decoder: TriplaneDecoder,
        diffusion: PortraitDiffusion | None = None,
        likeness: LikenessModel | None = None,
        *,
        portrait: PortraitSettings | None = None,
        device: torch.device | str = "cpu",
        sources: Mapping[str, Path | str] | None = None,
    ) -> None:
        self.diffusion, self.likeness = diffusion, likeness
        self.device = torch.device(device)
        self.decoder = decoder
        torch.nn.Module.to(decoder, self.device)
        self.portrait = portrait or PortraitSettings()
        # Likeness finds out how far a head is turned; diffusion knows frontal ones.
        turn = self.portrait.max_turn if likeness is None else max(self.portrait.max_turn, TURN)
        self.preparer = Preparer(replace(self.portrait, max_turn=turn))
        self.sources = dict(sources or {})

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path | None = None,
        *,
        device: str = "auto",
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
    ) -> AvatarPipeline:
        """Load a bundle.

        Args:
            model: its folder, or "owner/name" on the Hugging Face hub; without it the model that
                comes with the project.
            device: auto, cpu, cuda or cuda:N.
            revision, cache_dir, token, local_files_only: see ``huggingface_hub.snapshot_download``.

        Raises:
            UserError: there is none, it can't be fetched, or it is damaged.
        """
        bundle = find_bundle(
            model,
            revision=revision,
            cache_dir=cache_dir,
            token=token,
            local_files_only=local_files_only,
        )
        return cls.from_bundle(bundle, device=device)

    @classmethod
    def from_bundle(
        cls,
        bundle: Bundle,
        *,
        portrait: PortraitSettings | None = None,
        sampling: SamplingConfig | None = None,
        device: str = "auto",
    ) -> AvatarPipeline:
        """Load an open bundle; its framing counts where ``portrait`` states none of its own."""
        portrait = portrait or PortraitSettings()
        if portrait.root is None and portrait.framing == Framing():
            portrait = replace(portrait, framing=bundle.framing)
        return cls.from_parts(bundle.parts, portrait=portrait, sampling=sampling, device=device)

    @classmethod
    def from_parts(
        cls,
        parts: Mapping[str, Path | str],
        *,
        portrait: PortraitSettings | None = None,
        sampling: SamplingConfig | None = None,
        device: str = "auto",
    ) -> AvatarPipeline:
        """Load the parts of a bundle from where they lie and check that they fit.

        Args:
            parts: ``decoder``, ``vae``, ``base``, ``upsampler``, ``likeness`` → folder (VAE: or
                hub id); run folders of the trainings will do.
            portrait: how photographs become portraits.
            sampling: how the models will be sampled; refused here if they can't be.
            device: auto, cpu, cuda or cuda:N.

        Raises:
            UserError: a part is missing or damaged, or was trained with another decoder or VAE.
        """
        check_parts(parts, "the model")
        where = select_device(device)
        diffusion = expected = None
        if "base" in parts:
            from triavatar.portrait_diffusion import PortraitDiffusion  # brings diffusers

            diffusion = PortraitDiffusion.from_parts(parts, sampling or SamplingConfig(), where)
            expected = diffusion.decoder_hash
        decoder = load_decoder(parts["decoder"], expected)
        likeness = None
        if "likeness" in parts:
            likeness = LikenessModel.load(parts["likeness"], decoder_hash(decoder))
        return cls(decoder, diffusion, likeness, portrait=portrait, device=where, sources=parts)

    def save_pretrained(self, folder: str | Path, **about: Any) -> Bundle:
        """Write the bundle this pipeline can be loaded from.

        Args:
            folder: a new one, or one that holds this bundle already.
            about: name, license, license_text, card, storage; see
                :func:`triavatar.bundles.write_bundle.write_bundle`.
        """
        from triavatar.bundles.write_bundle import write_bundle

        return write_bundle(Path(folder), self.sources, framing=self.portrait.framing, **about)

    def push_to_hub(
        self, repo_id: str, *, private: bool = False, token: str | None = None, **about: Any
    ) -> str:
        """Upload the bundle to the Hugging Face hub; returns the commit's address.

        Args:
            repo_id: "owner/name"; made when missing.
            private: make it visible to its owner only.
            token: the one saved by ``hf auth login`` without it.
            about: see :meth:`save_pretrained`.
        """
        from huggingface_hub import HfApi

        api = HfApi(token=token)
        api.create_repo(repo_id, private=private, exist_ok=True)
        with TemporaryDirectory() as parent:
            bundle = self.save_pretrained(Path(parent) / "bundle", **about)
            commit = api.upload_folder(repo_id=repo_id, folder_path=bundle.folder)
        return str(commit)

    def prepare(
        self, picture: Picture, name: str = "the picture", *, as_it_is: bool = False
    ) -> np.ndarray:
        """Turn a picture into a portrait: find the face, frame it, cut it out.

        Args:
            picture: photograph of a face, or one that is cut out or on white already.
            name: how an error calls a picture that is no file.
            as_it_is: take it for a portrait, whatever it looks like.

        Returns:
            uint8 [S, S, 3 | 4], straight alpha.

        Raises:
            UserError: the picture can't be read or doesn't show one face well enough.
        """
        return self.preparer(picture, name, as_it_is=as_it_is)

    def make(
        self,
        portrait: np.ndarray,
        name: str,
        *,
        seed: int = 0,
        sampling: SamplingConfig | None = None,
        likeness: LikenessSettings | None = None,
    ) -> Avatar:
        """Make the avatar of one portrait.

        Args:
            portrait: uint8 [S, S, 3 | 4], as :meth:`prepare` returns it.
            name: of the avatar; with ``seed`` it names the noise.
            seed: another one gives another avatar; of likeness, 0 is the most likely one.
            sampling: steps and guidance of the diffusion models.
            likeness: how it is found; level "off" leaves it to the diffusion models, if there are
                any.

        Raises:
            UserError: the portrait doesn't fit the models.
        """
        check_portrait(portrait, f"the portrait of {name}")
        likeness = likeness or LikenessSettings()
        if self.likeness is None or (likeness.level == "off" and self.diffusion is not None):
            if self.diffusion is None:
                raise UserError("this model holds neither diffusion models nor likeness.")
            planes = self.diffusion([portrait], [name], seed, sampling or SamplingConfig())[0]
            record = {}
        else:
            seen = Portrait.of(with_alpha(portrait), self.likeness.camera)
            # What was learnt of people stays on the CPU.
            decoder = copy.deepcopy(self.decoder).cpu()
            planes, found = fit_likeness(seen, self.likeness, decoder, likeness, seed)
            sure = how_sure(found.surprise, found.portrait_psnr)
            record = {"likeness": found.as_dict() | {"sure": sure}, "warnings": found.warnings}
        # In half precision as on disk, so that what is rendered now and later agrees.
        planes = planes.detach().to(self.device).clamp(-1, 1).half().float()
        return Avatar(planes, self.decoder, name, portrait, {"seed": seed, **record})

    def fit(
        self,
        source: str | Path | Sequence[Picture],
        *,
        cameras: Cameras | None = None,
        name: str | None = None,
        capture: CaptureSettings | None = None,
        convention: str | None = None,
        likeness: LikenessSettings | None = None,
        several: SeveralSettings | None = None,
        tell: Callable[[str], object] = lambda step: None,
    ) -> Avatar:
        """Make one avatar of everything that is known of one person.

        Args:
            source: a folder of pictures, a video, a mesh, a capture with cameras (see ``triavatar
                fit --help``), or pictures: files, PIL images or arrays.
            cameras: one per picture, in house convention, where they are known; the pictures are
                taken as they are then, cut out and square, the first one from the front.
            name: of the avatar; the source's without it.
            capture, convention: how files are read.
            likeness, several: how the avatar is fitted.
            tell: called with the name of each step that is begun.

        Raises:
            UserError: nothing can be read, or this model holds no likeness.
        """
        if self.likeness is None:
            raise UserError("this model holds no likeness, from which a fit starts.")
        known, called = capture_of(
            source, self.preparer, cameras, capture or CaptureSettings(), convention
        )
        how = {"likeness": likeness, "several": several, "tell": tell}
        name = name or called
        return fit_avatar(known, self.likeness, self.decoder, self.device, name, **how)

    @overload
    def __call__(self, pictures: Picture, **how: Any) -> Avatar: ...
    @overload
    def __call__(self, pictures: Sequence[Picture], **how: Any) -> list[Avatar]: ...

    def __call__(
        self,
        pictures: Picture | Sequence[Picture],
        *,
        name: str | None = None,
        seed: int = 0,
        sampling: SamplingConfig | None = None,
        likeness: LikenessSettings | None = None,
        prepare: bool = True,
    ) -> Avatar | list[Avatar]:
        """Make avatars of pictures.

        Args:
            pictures: one picture, or several: files, PIL images or arrays, see :data:`Picture`.
            name: of the avatar; the file's without it. With ``seed`` it names the noise.
            seed: another one gives another avatar.
            sampling, likeness: see :meth:`make`.
            prepare: find, frame and cut out the face of photographs.

        Returns:
            One avatar, or one per picture.

        Raises:
            UserError: a picture can't be read, doesn't show one face well enough or doesn't fit.
        """
        if not isinstance(pictures, str | Path | Image.Image | np.ndarray):
            how: dict[str, Any] = {"seed": seed, "prepare": prepare}
            how |= {"sampling": sampling, "likeness": likeness}
            return [
                self(picture, name=None if name is None else f"{name}_{i}", **how)
                for i, picture in enumerate(pictures)
            ]
        if name is None:
            name = Path(pictures).stem if isinstance(pictures, str | Path) else "avatar"
        portrait = self.prepare(pictures, as_it_is=not prepare)
        return self.make(portrait, name, seed=seed, sampling=sampling, likeness=likeness)
