"""Names of bases and directions, as a config writes them, and what must be fitted before they can be made.

Nothing but the standard library here: the workflow reads names whenever it is parsed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from actspace.errors import StudyError

DICTIONARY, CLUSTERS, PROBE = "dictionary", "clusters", "probe"
SOURCES = {DICTIONARY: "a sparse autoencoder", CLUSTERS: "a k-means fit", PROBE: "a probe study"}
"""What bases and directions may be made from: the key of an experiment that names it, and what it is."""
COUNT = "(?:_x([2-9]|[1-9][0-9]+))?"
PROBE_PREFIX = "probe_"


@dataclass(frozen=True)
class Kind:
    """What belongs to a kind of base or direction."""

    source: str | None = None
    """The key of an experiment that names what it is made from: dictionary, clusters or probe."""
    signed: bool = False
    """Whether `minus_` before the name turns it round."""
    counted: bool = False
    """Whether `_x8` after the name takes eight latents at once."""
    targeted: bool = False
    """Whether the direction, as long as it is, ends at a target."""


@dataclass(frozen=True)
class Family:
    """A name taken apart."""

    name: str
    kind: str
    """The name without its sign, its number of latents and the name of a probe."""
    source: str | None = None
    sign: int = 1
    count: int = 1
    """Latents at once."""
    probe: str = ""
    """Of directions of probes, the probe's name."""
    targeted: bool = False
    """Whether the direction, as long as it is, ends at a target."""


BASES = {
    **dict.fromkeys(("real", "covariance_random", "isotropic_random"), Kind()),
    **dict.fromkeys(("plus_latents", "minus_latents"), Kind(DICTIONARY, counted=True)),
    **dict.fromkeys(
        ("reconstruction", "synthetic_single", "synthetic_composite", "synthetic_sparsity_matched"), Kind(DICTIONARY)
    ),
}
DIRECTIONS = {
    **dict.fromkeys(("toward_real", "toward_covariance_random"), Kind(targeted=True)),
    **dict.fromkeys(("isotropic", "real_mixture", "covariance_mixture", "principal_component"), Kind()),
    **dict.fromkeys(
        ("decoder_active", "decoder_inactive", "decoder_dead"), Kind(DICTIONARY, signed=True, counted=True)
    ),
    "reconstruction_error": Kind(DICTIONARY, targeted=True),
    "cluster_difference": Kind(CLUSTERS),
    f"{PROBE_PREFIX}<name>": Kind(PROBE, signed=True),
}


def parse_base(name: str, where: str = "bases: ") -> Family:
    """Take the name of a base apart.

    Parameters
    ----------
    where : str
        Beginning of the error's line.

    Raises
    ------
    StudyError
        If no base has this name.
    """
    return _parse(name, BASES, where)


def parse_direction(name: str, where: str = "directions: ") -> Family:
    """Take the name of a family of directions apart; raise a StudyError as `parse_base` does."""
    return _parse(name, DIRECTIONS, where)


def sources(bases: Iterable[str], directions: Iterable[str]) -> dict[str, str]:
    """Return what must be fitted for some bases and directions (dictionary, clusters, probe), each with the first name that needs it."""
    found: dict[str, str] = {}
    for name, family in [(b, parse_base(b)) for b in bases] + [(d, parse_direction(d)) for d in directions]:
        if family.source:
            found.setdefault(family.source, name)
    return found


def pattern(kinds: Mapping[str, Kind]) -> str:
    """Return the regular expression, in the dialect that JSON schema shares with Python, of all names of these kinds."""
    return f"^(?:{'|'.join(_pattern(name, kind) for name, kind in kinds.items())})$"


def forms(kinds: Mapping[str, Kind], between: str = ", ") -> str:
    """List the names of these kinds for readers, with what may stand before and after each in brackets."""
    written = [
        f"{'[minus_]' if kind.signed else ''}{name}{'[_x<m>]' if kind.counted else ''}" for name, kind in kinds.items()
    ]
    return between.join(written)


def _pattern(name: str, kind: Kind) -> str:
    stem = name.replace("<name>", "([a-z][a-z0-9_.-]*)")
    return f"{'(?:minus_)?' if kind.signed else ''}{stem}{COUNT if kind.counted else ''}"


def _parse(name: str, kinds: Mapping[str, Kind], where: str) -> Family:
    for stem, kind in kinds.items():
        if match := re.fullmatch(_pattern(stem, kind), name):
            return Family(
                name,
                PROBE if kind.source == PROBE else stem,
                kind.source,
                sign=-1 if kind.signed and name.startswith("minus_") else 1,
                count=int(match[1] or 1) if kind.counted else 1,
                probe=match[1] if kind.source == PROBE else "",
                targeted=kind.targeted,
            )
    near = difflib.get_close_matches(name, kinds, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    raise StudyError(f"{where}'{name}' is unknown; use one of {forms(kinds)}{hint}")
