"""Files that describe something: one declared schema each, checked where the file enters."""

from __future__ import annotations

import math
import re
import reprlib
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from runtime.errors import UserError
from runtime.files import MOST_TEXT, read_text

Number = Annotated[float, Field(ge=-1e9, le=1e9)]
"""A length, an angle, an entry of a matrix: finite also after some arithmetic in fp32."""
Row = tuple[Number, Number, Number, Number]
Matrix = Annotated[list[Row], Field(min_length=4, max_length=4)]
"""4×4, row by row."""
Count = Annotated[int, Field(ge=0, le=2**31)]
Size = Annotated[int, Field(ge=1, le=2**16)]
"""A side in pixels or texels, a number of channels."""
Name = Annotated[str, Field(min_length=1, max_length=1000)]

_TYPE = re.compile(r"(tuple|list|dict|function-\w+|literal|constrained-\w+|nullable)\[.*\]")

Kind = TypeVar("Kind", bound="Described")


class Described(BaseModel):
    """Base of the schemas: exact types, finite numbers; keys that it doesn't name are kept."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False, frozen=True)

    @model_validator(mode="after")
    def _finite_elsewhere(self: Kind) -> Kind:
        for key, value in (self.model_extra or {}).items():
            if not _finite(value):
                raise ValueError(f"be finite everywhere, also in {key[:80]}")
        return self


def _finite(value: Any) -> bool:
    """Whether no number in a parsed JSON value is NaN or infinite."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict | list):
        return all(map(_finite, value.values() if isinstance(value, dict) else value))
    return True


def read_described(kind: type[Kind], path: str | Path, most: int = MOST_TEXT) -> Kind:
    """Read a JSON file that ``kind`` describes.

    Args:
        most: bytes that the file may have.

    Raises:
        UserError: the file is missing or damaged, or says something else than ``kind`` allows:
            file, key, what is there and what is expected.
    """
    return parse_described(kind, read_text(path, most), str(path))


def parse_described(kind: type[Kind], text: str, where: str) -> Kind:
    """Like :func:`read_described`, of text that has been read; ``where`` names it in errors."""
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        raise UserError(_sentence(error, where)) from None


def _sentence(error: ValidationError, where: str) -> str:
    """The first thing wrong, in one sentence."""
    first: Any = error.errors(include_url=False)[0]
    kind, key, found = first["type"], _key(first["loc"]), first["input"]
    if kind == "json_invalid":
        return f"{where} is not valid JSON; write it again."
    if kind == "missing":
        return f"{where}: {key} is missing; write the file again."
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{where}: {key} is no setting that is known; remove it."
    bounds = first.get("ctx", {})
    expected = first["msg"].removeprefix("Value error, ").removeprefix("Input should ")
    if kind == "too_short":
        expected = f"have {bounds['min_length']} entries or more"
    elif kind == "too_long":
        expected = f"have {bounds['max_length']} entries at most"
    elif kind == "int_parsing_size":
        expected = "be a smaller number"
    elif not expected.startswith("be "):
        expected = f"be valid: {expected}"
    return f"{where}: {key} is {reprlib.repr(found)} but must {expected}."


def _key(place: tuple[int | str, ...]) -> str:
    """("cameras", 0, "focal_length") → "cameras[0].focal_length"."""
    # Where several types are allowed, the place names the one that was tried.
    parts = [part for part in place if isinstance(part, int) or not _TYPE.fullmatch(part)]
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return text.lstrip(".")[:200] or "its content"
