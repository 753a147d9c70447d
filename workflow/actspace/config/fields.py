"""What sections of a config are made of: numbers, names and hook points as YAML writes them, and the base of all sections."""

from __future__ import annotations

import difflib
import math
import posixpath
import re
from collections import Counter
from contextlib import suppress
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
    field_validator,
)

from actspace.perturbations import families

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=64)]
Hook = Annotated[
    str, StringConstraints(pattern=r"^(blocks\.(0|[1-9]\d*)\.hook_resid_(pre|post)|ln_final\.hook_normalized)$")
]
FitName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]+$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
RANGE = re.compile(r"\{(\d{1,18})\.\.(\d{1,18})\}")
MOST_LAYERS = 1000
ADDRESS = re.compile(r"https://[^\s{}/?#]+(/[^\s{}]*)?/[A-Za-z0-9._-]{1,150}\.csv(#[^\s{}]*)?", re.ASCII)
LONGEST_PATH, LONGEST_NAME = 1000, 255
OWN_FILES = "resources/statements"
"""Where fetched statements lie; a user's file there would be taken for one."""


def as_number(value: Any) -> Any:
    """Read numeric strings as numbers; booleans are left for the strict type to refuse."""
    number = value
    if isinstance(value, str):
        with suppress(ValueError):
            number = float(value)
    if isinstance(number, float) and not math.isfinite(number):
        raise ValueError(f": found {quoted(value) if isinstance(value, str) else value}; give a finite number")
    return number


def as_integer(value: Any) -> Any:
    """Read integral numbers, and strings of them, as integers that eight bytes hold."""
    number = value
    if isinstance(value, str):
        with suppress(ValueError):
            number = int(value)  # through a float, a long seed would lose its last digits
    number = as_number(number)
    number = int(number) if isinstance(number, float) and number.is_integer() else number
    if isinstance(number, int) and number.bit_length() > 63:
        raise ValueError(": a whole number of that size cannot be counted to; give one below 2^63")
    return number if isinstance(number, int) else value


def _printable(name: str) -> str:
    """Refuse a name that would not stand in one line of a message."""
    if not name.isprintable() or len(name) > LONGEST_NAME:
        raise ValueError(f": {quoted(name)} is no name")
    return name


def _nameable(value: float) -> float:
    """Refuse a number whose digits, written in full, are no name for a file."""
    if value and not 1e-12 <= value <= 1e12:
        raise ValueError(f": found {value:g}; it stands in the names of files, so give one from 1e-12 to 1e12")
    return value


def _as_path(place: str) -> str:
    """Refuse what is no path of a file or folder, or would mean something else to Snakemake."""
    parts = place.split("/")
    if not place.strip() or not place.isprintable():
        raise ValueError(f": {quoted(place)} is no path; give that of a file or folder")
    if set("{}") & set(place.replace("{hook}", "")):
        raise ValueError(f": {quoted(place)} has braces, which Snakemake takes for a wildcard; rename it")
    if len(place) > LONGEST_PATH or max(len(part.encode()) for part in parts) > LONGEST_NAME:
        raise ValueError(f": {quoted(place)} is longer than paths can be; shorten it")
    if "://" in place or posixpath.normpath(place).startswith(OWN_FILES):
        raise ValueError(f": {quoted(place)} is no file of yours; give a local path outside of `{OWN_FILES}`")
    return place


def _as_place(place: str) -> str:
    """Refuse what is neither a path nor an https address."""
    if not place.startswith("https://"):
        return _as_path(place)
    if not ADDRESS.fullmatch(place):
        raise ValueError(f": {quoted(place)} is no address of a CSV file; write https://host/file.csv")
    return place


def quoted(text: str) -> str:
    """Quote what a user wrote, shortened and in one line, for a message."""
    shown = text if len(text) <= 60 else text[:57] + "..."
    return f"'{shown}'" if shown.isprintable() else repr(shown)


def _expand(hooks: Any) -> Any:
    """Write out ranges: `blocks.{0..2}.hook_resid_post` stands for three hook points."""
    if not isinstance(hooks, list):
        return hooks
    expanded: list[Any] = []
    for hook in hooks:
        match = RANGE.search(hook) if isinstance(hook, str) else None
        if match is None:
            expanded.append(hook)
            continue
        first, last = int(match[1]), int(match[2])
        if not first <= last < MOST_LAYERS:
            raise ValueError(
                f": the range of {quoted(hook)} holds no layers; write {{first..last}}, the lower one first, both below {MOST_LAYERS}"
            )
        expanded += [RANGE.sub(str(layer), hook, count=1) for layer in range(first, last + 1)]
    return expanded


Float = Annotated[float, BeforeValidator(as_number), Field(allow_inf_nan=False)]
# Bounds stand before the validator: after it, pydantic leaves them out of the JSON schema.
Positive = Annotated[int, Field(gt=0), BeforeValidator(as_integer)]
NonNegative = Annotated[int, Field(ge=0), BeforeValidator(as_integer)]
Integer = Annotated[int, BeforeValidator(as_integer)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False), BeforeValidator(as_number)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False), BeforeValidator(as_number)]
Base = Annotated[
    str,
    AfterValidator(_printable),
    AfterValidator(lambda name: families.parse_base(name, ": ").name),
    WithJsonSchema({"type": "string", "pattern": families.pattern(families.BASES)}),
]
Direction = Annotated[
    str,
    AfterValidator(_printable),
    AfterValidator(lambda name: families.parse_direction(name, ": ").name),
    WithJsonSchema({"type": "string", "pattern": families.pattern(families.DIRECTIONS)}),
]
NamedFloat = Annotated[NonNegativeFloat, AfterValidator(_nameable)]
Path = Annotated[str, AfterValidator(_as_path)]
Place = Annotated[str, AfterValidator(_as_place)]
Hooks = Annotated[list[Hook], BeforeValidator(_expand), Field(min_length=1)]
Steps = Annotated[int, Field(ge=31), BeforeValidator(as_integer)]


class Strict(BaseModel):
    """Base of all sections: nothing extra, no silent conversion, immutable.

    The text of a validator's ValueError goes on where the key's path ends: `: what is wrong` or `.key: what is wrong`.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=False)

    @field_validator("*")
    @classmethod
    def _no_doubles(cls, value: Any) -> Any:
        """Two members of one name would be one file, and count twice in every average."""
        items = [item for item in value if isinstance(item, str | int | float)] if isinstance(value, list) else []
        if twice := [item for item, n in Counter(items).items() if n > 1]:
            raise ValueError(f": {twice[0]!r} is there twice; name it once")
        return value


def require_known(where: str, name: str, known: list[str], what: str) -> None:
    """Refuse a name that is not known, in one line that lists what is and names the nearest."""
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise ValueError(
            f"{where}: there is no {what} named {quoted(name)}; there are: {', '.join(known) or 'none'}{hint}"
        )
