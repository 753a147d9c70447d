"""What sections of a config are made of: numbers, names and hook points as YAML writes them, and the base of all sections."""

from __future__ import annotations

import difflib
import math
import re
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
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
MOST_LAYERS = 1000


def as_number(value: Any) -> Any:
    """Read numeric strings as numbers; booleans are left for the strict type to refuse."""
    number = value
    if isinstance(value, str):
        with suppress(ValueError):
            number = float(value)
    if isinstance(number, float) and not math.isfinite(number):
        raise ValueError(f": found {value!r}; give a finite number")
    return number


def as_integer(value: Any) -> Any:
    """Read integral numbers, and strings of them, as integers."""
    if isinstance(value, str):
        with suppress(ValueError):
            return int(value)  # through a float, a long seed would lose its last digits
    number = as_number(value)
    return int(number) if isinstance(number, float) and number.is_integer() else value


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
                f": the range of '{hook}' holds no layers; write {{first..last}}, the lower one first, both below {MOST_LAYERS}"
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
    AfterValidator(lambda name: families.parse_base(name, ": ").name),
    WithJsonSchema({"type": "string", "pattern": families.pattern(families.BASES)}),
]
Direction = Annotated[
    str,
    AfterValidator(lambda name: families.parse_direction(name, ": ").name),
    WithJsonSchema({"type": "string", "pattern": families.pattern(families.DIRECTIONS)}),
]
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
        if twice := [item for i, item in enumerate(items) if item in items[:i]]:
            raise ValueError(f": {twice[0]!r} is there twice; name it once")
        return value


def require_known(where: str, name: str, known: list[str], what: str) -> None:
    """Refuse a name that is not known, in one line that lists what is and names the nearest."""
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise ValueError(f"{where}: there is no {what} named '{name}'; there are: {', '.join(known) or 'none'}{hint}")
