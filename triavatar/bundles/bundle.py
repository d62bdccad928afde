"""A model as one folder, with an index that knows every file's hash.

::

    <bundle>/bundle.json   format, version, licence, parts, framing, and sha256 of every file
    <bundle>/README.md     model card
    <bundle>/LICENSE
    <bundle>/decoder/      shared decoder; always there
    <bundle>/vae/          AutoencoderKL that sees the portrait   ┐ diffusion: vae and base go
    <bundle>/base/         base diffusion pipeline, with its mean │ together, the upsampler is
    <bundle>/upsampler/    upsampling diffusion pipeline          ┘ optional
    <bundle>/likeness/     linear model of people's triplanes, and what finds its coefficients
    <bundle>/rig/          optional: head model that gives avatars expressions

A bundle that generates has the diffusion models, or ``likeness``, or both.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from photos.framing import Framing
from runtime.described import Count, Described, Name, read_described
from runtime.errors import UserError
from runtime.files import file_hash, inside
from runtime.shipped import shipped

INDEX = "bundle.json"
FORMAT = "triavatar-bundle"
FORMAT_VERSION = 1
PARTS = ("decoder", "vae", "base", "upsampler", "likeness", "rig")
SUFFIXES = (".json", ".safetensors", ".md", ".txt", ".png", ".jpg", "")
"""Kinds of files in a bundle: none of them can run code when it is read."""


class BundledFile(Described):
    """A file of a bundle: SHA-256 of its bytes as hexadecimal digits, and how many there are."""

    sha256: Name
    bytes: Count


class BundleIndex(Described):
    """The content of ``bundle.json``; ``parts`` holds what is known of each."""

    format: Literal["triavatar-bundle"]
    version: Literal[1]
    code_version: Name
    commit: Name | None = None
    name: Name
    license: Name
    parts: dict[str, dict[str, Any]]
    framing: Framing
    files: dict[str, BundledFile]


@dataclass(frozen=True)
class Bundle:
    """A model's folder, its files checked against the index.

    Attributes:
        folder: where it lies.
        index: what ``bundle.json`` says.

    Example:
        >>> bundle = Bundle.open("data/bundle")
        >>> sorted(bundle.parts)
        ['decoder', 'likeness']
    """

    folder: Path
    index: BundleIndex

    @classmethod
    def open(cls, folder: Path | str) -> Bundle:
        """Open a folder and compare every file with the index.

        Raises:
            UserError: it is no bundle, of another version, or a file is missing or altered.
        """
        folder = Path(folder)
        path = folder / INDEX
        if not path.is_file():
            raise UserError(
                f"{folder} is no model (no {INDEX}); give a folder that `triavatar bundle` wrote, "
                "or the id of one on the hub."
            )
        index = read_described(BundleIndex, path)
        bundle = cls(folder, index)
        bundle.check()
        return bundle

    @property
    def parts(self) -> dict[str, Path]:
        """Folder of every part that is there."""
        return {name: self.folder / name for name in PARTS if name in self.index.parts}

    @property
    def framing(self) -> Framing:
        """Return where the face stands in the portraits the model knows."""
        return self.index.framing

    def check(self) -> None:
        """Compare the files with the index.

        Raises:
            UserError: names the first file that is missing, altered or unknown.
        """
        files, parts = self.index.files, self.index.parts
        check_parts(parts, str(self.folder))
        for part in parts:
            for path in sorted((self.folder / part).rglob("*")):
                name = path.relative_to(self.folder).as_posix()
                if path.is_file() and (name not in files or path.suffix not in SUFFIXES):
                    raise UserError(
                        f"{path} doesn't belong to the model ({INDEX} lists only files of known, "
                        "harmless kinds); delete it or download the model again."
                    )
        for name, stated in files.items():
            path = inside(self.folder, name)
            if not path.is_file():
                raise UserError(f"{path} is missing; download or copy the model again.")
            # The size first: no file is read that is much longer than the one listed.
            other = "size" if path.stat().st_size != stated.bytes else ""
            other = other or ("SHA-256" if file_hash(path) != stated.sha256 else "")
            if other:
                raise UserError(
                    f"{path} is not the file that {INDEX} lists (another {other}); download or "
                    "copy the model again."
                )


def check_parts(parts: Collection[str], where: str) -> None:
    """Refuse a set of parts that can't generate.

    Raises:
        UserError: says which part is missing or unknown.
    """
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        raise UserError(f"{where}: unknown part {unknown[0]}; known are {', '.join(PARTS)}.")
    if "decoder" not in parts:
        raise UserError(f"{where} has no decoder; every model needs one.")
    if ("vae" in parts) != ("base" in parts):
        lacking = "base" if "vae" in parts else "vae"
        raise UserError(f"{where} has no {lacking}; diffusion needs a VAE and a base model.")
    if "upsampler" in parts and "base" not in parts:
        raise UserError(f"{where} has an upsampler but no base model.")
    if "base" not in parts and "likeness" not in parts:
        raise UserError(f"{where} can't generate: it has neither diffusion models nor likeness.")


def find_bundle(
    name: str | Path | None = None,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> Bundle:
    """Open a bundle by its folder or its id on the hub; the shipped one without a name.

    Args:
        name: folder, or "owner/name" on the Hugging Face hub.
        revision, cache_dir, token, local_files_only: see ``huggingface_hub.snapshot_download``.

    Raises:
        UserError: there is none, it can't be fetched, or it is damaged.
    """
    if name is None:
        folder = shipped("bundle")
        if folder is None:
            raise UserError(
                "no model comes with this installation; name one with --model (a folder that "
                "`triavatar bundle` wrote, or an id on the hub)."
            )
        return Bundle.open(folder)
    text = str(name)
    if Path(text).exists() or text.count("/") != 1 or text.startswith((".", "~", "/")):
        if not Path(text).exists():
            raise UserError(f"there is no model {text}; give its folder, or an id on the hub.")
        return Bundle.open(text)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        fetched = snapshot_download(
            text,
            allow_patterns=[INDEX, "README.md", "LICENSE", *(f"{part}/**" for part in PARTS)],
            revision=revision,
            cache_dir=cache_dir,
            token=token,
            local_files_only=local_files_only,
        )
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"the model {text} is no folder here and can't be fetched from the hub ({reason}); "
            "check the name, or download it on a machine with network and give its folder."
        ) from None
    return Bundle.open(fetched)
