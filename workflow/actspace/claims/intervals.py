"""Estimates with 95% intervals, their arithmetic, and the criteria that turn an interval into a verdict.

Intervals are combined by interval arithmetic: the difference of two estimates runs from low minus high to high minus
low. The tables do not tell how far two estimates share their noise (both often rest on the same documents), and this
rule keeps its level whatever the dependence; it is wider than need be, so verdicts err towards "undecided"."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

HOLDS, FAILS, UNDECIDED = "holds", "fails", "undecided"


@dataclass(frozen=True)
class Estimate:
    """A statistic with its interval.

    Parameters
    ----------
    value, low, high : float
        NaN ends mean that no interval is known; no criterion decides such an estimate.
    detail : str
        What went into it in this study: fits, layers, statement sets.
    reservation : str
        Why the claim must not be said to hold even if the criterion is met; empty where nothing stands against it.
    """

    value: float
    low: float
    high: float
    detail: str = ""
    reservation: str = ""


def difference(a: Estimate, b: Estimate, detail: str = "") -> Estimate:
    """Return a minus b, with the widest interval that the two allow."""
    return Estimate(a.value - b.value, a.low - b.high, a.high - b.low, detail)


def complement(a: Estimate) -> Estimate:
    """Return one minus a: explained from unexplained variance, or an AUROC with its two groups exchanged."""
    return Estimate(1 - a.value, 1 - a.high, 1 - a.low, a.detail)


def distance(a: Estimate, centre: float) -> Estimate:
    """Return the absolute distance of an estimate from a fixed number; zero is its low end where they overlap."""
    ends = sorted((abs(a.low - centre), abs(a.high - centre)))
    low = 0.0 if a.low <= centre <= a.high else ends[0]
    return Estimate(abs(a.value - centre), low, ends[1], a.detail)


def mean(parts: list[Estimate]) -> Estimate:
    """Average values and ends: valid whatever the dependence between the parts."""
    n = len(parts)
    return Estimate(sum(p.value for p in parts) / n, sum(p.low for p in parts) / n, sum(p.high for p in parts) / n)


def everywhere(places: Mapping[str, Estimate]) -> Estimate:
    """Join one estimate per place (hook point, statement set): the mean, with an interval that spans all of them.

    A criterion met by the whole interval is then met at every place.
    """
    parts = list(places.values())
    spread = [end for p in parts for end in (p.low, p.high)]
    unknown = any(math.isnan(end) for end in spread)
    low, high = (math.nan, math.nan) if unknown else (min(spread), max(spread))
    detail = "; ".join(
        f"{place}: {p.value:.3g}" + (f" ({p.detail})" if p.detail else "") for place, p in places.items()
    )
    reservation = "; ".join(dict.fromkeys(p.reservation for p in parts if p.reservation))
    return Estimate(mean(parts).value, low, high, detail, reservation)


@dataclass(frozen=True)
class Above:
    """Met by values greater than the limit."""

    limit: float

    @property
    def ends(self) -> tuple[float, float]:
        """Lowest and highest value that meet it."""
        return self.limit, math.inf

    @property
    def text(self) -> str:
        """Say the criterion in words."""
        return f"greater than {self.limit:g}"

    def verdict(self, low: float, high: float) -> str:
        """Judge an interval: all of it above, none of it above, or neither."""
        if low > self.limit:
            return HOLDS
        return FAILS if high <= self.limit else UNDECIDED


@dataclass(frozen=True)
class Within:
    """Met by values from `lowest` to `highest`, both included."""

    lowest: float
    highest: float

    @property
    def ends(self) -> tuple[float, float]:
        """Lowest and highest value that meet it."""
        return self.lowest, self.highest

    @property
    def text(self) -> str:
        """Say the criterion in words."""
        return f"between {self.lowest:g} and {self.highest:g}"

    def verdict(self, low: float, high: float) -> str:
        """Judge an interval: all of it inside, none of it inside, or neither."""
        if low >= self.lowest and high <= self.highest:
            return HOLDS
        return FAILS if high < self.lowest or low > self.highest else UNDECIDED


Criterion = Above | Within


def judge(estimate: Estimate, criterion: Criterion) -> str:
    """Return "holds", "fails" or "undecided"; comparisons with NaN are false, so an unknown interval decides "
    "nothing."""
    verdict = criterion.verdict(estimate.low, estimate.high)
    return UNDECIDED if verdict == HOLDS and estimate.reservation else verdict
