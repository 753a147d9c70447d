"""One interface to all probes: labelled rows in, a direction and a bias out, by the probe's name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actspace.probes import linear, published
from actspace.probes.linear import Array, LinearProbe
from actspace.probes.names import ProbeKind, ProbeName


@dataclass(frozen=True)
class Training:
    """Labelled rows, and what some probes need to know of them beyond their labels."""

    X: Array  # (row, axis)
    y: NDArray[np.int64]  # (row,) of 0 and 1
    d_model: int  # dimensions of activation space; X may be coordinates of a `Frame`
    rng: np.random.Generator
    sets: NDArray = field(default_factory=lambda: np.empty(0))  # (row,)
    polarity: NDArray = field(default_factory=lambda: np.empty(0))  # (row,), 1 or, of negated statements, -1
    pairs: NDArray = field(default_factory=lambda: np.empty((0, 2), dtype=np.int64))  # (pair, 2): statement, negation


@dataclass(frozen=True)
class Settings:
    """Of all fits of a study; a probe's name may carry another C, and says whether rows are centred."""

    C: float = 1.0
    tolerance: float = 1e-6
    pseudo_inverse_tolerance: float = 1e-4
    centre: bool = True


def fit(probe: ProbeName, data: Training, settings: Settings) -> LinearProbe:
    """Fit the probe of a name; coordinate-wise ones only on rows of activation space itself."""
    centre = probe.centring != "none"
    chosen = replace(settings, C=settings.C if probe.C is None else probe.C, centre=centre)
    return replace(FITS[probe.kind](data, chosen), name=probe.name)


def logistic_regression(data: Training, settings: Settings, *, bias: bool = True) -> LinearProbe:
    """With a free bias, or with none."""
    solver: dict[str, Any] = {"C": settings.C, "tolerance": settings.tolerance, "d_model": data.d_model}
    return linear.logistic_regression(data.X, data.y, **solver, bias=bias, centre=settings.centre)


def logistic_regression_no_bias(data: Training, settings: Settings) -> LinearProbe:
    """Fit no bias: the log-odds are 0 at the rows' mean, or at the origin."""
    return logistic_regression(data, settings, bias=False)


def logistic_regression_adamw(data: Training, settings: Settings) -> LinearProbe:
    """Fit as the Geometry of Truth does."""
    return published.logistic_regression_adamw(data.X, data.y, data.rng, centre=settings.centre)


def mass_mean(data: Training, settings: Settings) -> LinearProbe:
    """Take the difference of the class means."""
    return linear.mass_mean(data.X, data.y, centre=settings.centre)


def mass_mean_covariance(data: Training, settings: Settings) -> LinearProbe:
    """Tilt it by the shrunk covariance."""
    return linear.mass_mean_covariance(data.X, data.y, d_model=data.d_model, centre=settings.centre)


def mass_mean_pseudo_inverse(data: Training, settings: Settings) -> LinearProbe:
    """Tilt it by the covariance's pseudo-inverse."""
    tolerance = settings.pseudo_inverse_tolerance
    return linear.mass_mean_pseudo_inverse(data.X, data.y, tolerance=tolerance, centre=settings.centre)


def shuffled_logistic_regression(data: Training, settings: Settings) -> LinearProbe:
    """Shuffle each coordinate within classes first."""
    solver = {"C": settings.C, "tolerance": settings.tolerance}
    return linear.shuffled_logistic_regression(data.X, data.y, data.rng, **solver)


def ccs(data: Training, settings: Settings) -> LinearProbe:
    """Fit on pairs of statements and negations."""
    statements, negations = data.pairs.T
    labels = data.y[statements]
    return published.ccs(data.X[statements], data.X[negations], labels, data.rng, centre=settings.centre)


def ttpd(data: Training, settings: Settings) -> LinearProbe:
    """Train on the truth and polarity directions."""
    solver: dict[str, Any] = {"C": settings.C, "tolerance": settings.tolerance, "d_model": data.d_model}
    return published.ttpd(data.X, data.y, data.polarity, data.sets, **solver, centre=settings.centre)


def random_direction(data: Training, settings: Settings) -> LinearProbe:
    """Draw, and fit nothing."""
    return linear.random_direction(data.X, data.rng, centre=settings.centre)


def shuffled_labels(data: Training, settings: Settings) -> LinearProbe:
    """Fit logistic regression on labels in random order."""
    solver: dict[str, Any] = {"C": settings.C, "tolerance": settings.tolerance, "d_model": data.d_model}
    return linear.shuffled_labels(data.X, data.y, data.rng, **solver)


FITS: dict[ProbeKind, Callable[[Training, Settings], LinearProbe]] = {
    "logistic_regression": logistic_regression,
    "logistic_regression_no_bias": logistic_regression_no_bias,
    "logistic_regression_adamw": logistic_regression_adamw,
    "mass_mean": mass_mean,
    "mass_mean_covariance": mass_mean_covariance,
    "mass_mean_pseudo_inverse": mass_mean_pseudo_inverse,
    "shuffled_logistic_regression": shuffled_logistic_regression,
    "ccs": ccs,
    "ttpd": ttpd,
    "random_direction": random_direction,
    "shuffled_labels": shuffled_labels,
}
