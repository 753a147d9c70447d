"""Names of probes: what each kind needs, and the penalty and the centring that a name carries.

`logistic_regression_c0.01_uncentred` is a kind, its C and its centring; a name without them has the study's C and rows less
the mean of the training rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from actspace.errors import StudyError

LabelledKind = Literal[
    "logistic_regression",
    "logistic_regression_no_bias",
    "logistic_regression_adamw",
    "mass_mean",
    "mass_mean_covariance",
    "mass_mean_pseudo_inverse",
    "shuffled_logistic_regression",
    "random_direction",
    "shuffled_labels",
]
"""Kinds that need labelled rows alone."""
ProbeKind = Literal[LabelledKind, "ccs", "ttpd"]
Centring = Literal["none", "train_mean", "per_dataset"]
NEGATED = "neg_"
"""Begins the name of the set that negates another one, row by row."""
SUFFIXES: dict[Centring, str] = {"train_mean": "", "none": "_uncentred", "per_dataset": "_per_dataset"}


@dataclass(frozen=True)
class Kind:
    """What one kind of probe needs, and what its scores are."""

    path: bool = False
    """Its name may carry a C."""
    own_bias: bool = False
    """It fits a free bias, so that no shift of all rows changes it."""
    coordinate_wise: bool = False
    """It depends on the coordinates, so it is fitted in activation space itself."""
    pairs: bool = False
    """It needs statements and their negations."""
    polarities: bool = False
    """It needs affirmative and negated statements."""
    log_odds: bool = True
    """Its scores are meant as log-odds of true."""


KINDS: dict[ProbeKind, Kind] = {
    "logistic_regression": Kind(path=True, own_bias=True),
    "logistic_regression_no_bias": Kind(path=True),
    "logistic_regression_adamw": Kind(coordinate_wise=True),
    "mass_mean": Kind(log_odds=False),
    "mass_mean_covariance": Kind(),
    "mass_mean_pseudo_inverse": Kind(),
    "shuffled_logistic_regression": Kind(own_bias=True, coordinate_wise=True),
    "ccs": Kind(coordinate_wise=True, pairs=True),
    "ttpd": Kind(polarities=True),
    "random_direction": Kind(coordinate_wise=True, log_odds=False),
    "shuffled_labels": Kind(own_bias=True),
}
_PATTERN = re.compile(rf"({'|'.join(KINDS)})(?:_c([\d.]+(?:e-?\d+)?))?({'|'.join(SUFFIXES.values())})")


@dataclass(frozen=True)
class ProbeName:
    """A name taken apart."""

    name: str
    kind: ProbeKind
    C: float | None
    centring: Centring

    @property
    def about(self) -> Kind:
        """What its kind needs."""
        return KINDS[self.kind]


def parse(name: str) -> ProbeName:
    """Take the name of a probe apart; raise a StudyError if there is none of this name."""
    match = _PATTERN.fullmatch(name)
    if match is None or (match[2] and not KINDS[_kind(match[1])].path):
        raise StudyError(f"probes: there is no probe '{name}'; there are {', '.join(KINDS)}")
    centring = next(centring for centring, suffix in SUFFIXES.items() if suffix == match[3])
    return ProbeName(name, _kind(match[1]), float(match[2]) if match[2] else None, centring)


def _kind(name: str) -> ProbeKind:
    return next(kind for kind in get_args(ProbeKind) if kind == name)


def expand(
    kinds: Iterable[ProbeKind], path: Iterable[float] = (), centrings: Iterable[Centring] = ("train_mean",)
) -> list[str]:
    """List the probes of a study: every kind, with every C of the path where it has one, under every centring.

    A probe with a bias of its own is the same on centred rows and on rows as they are, and is listed once.
    """
    found = []
    for kind in kinds:
        penalties = ["", *(f"_c{_written(C)}" for C in path)] if KINDS[kind].path else [""]
        chosen = ["train_mean" if KINDS[kind].own_bias and c == "none" else c for c in centrings]
        found += [f"{kind}{penalty}{SUFFIXES[centring]}" for centring in chosen for penalty in penalties]
    return list(dict.fromkeys(found))


def _written(C: float) -> str:
    """Write a number as short as it goes, without signs and zeros that say nothing: 0.01, 30, 1e-5."""
    return re.sub(r"e\+?(-?)0*", r"e\1", f"{C:.12g}")
