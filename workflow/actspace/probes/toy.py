"""Truth in a toy: two Gaussians a truth direction apart, and a strong nuisance direction at an angle to it.

Labels are +-1 in equal numbers, x = +-theta / 2 + noise of covariance Sigma = I + s^2 v v'. Every answer is known.
Logistic regression tends to Sigma^-1 theta, which separates best and is not the truth direction; the difference of
means tends to theta, which separates badly. Shuffling each coordinate within its class, said to give theta, gives
diag(Sigma)^-1 theta.

Source: Marks & Tegmark, The Geometry of Truth (2023); Heimersheim's post on it, and a comment there on shuffling.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm

from actspace.errors import StudyError
from actspace.probes import fits, names
from actspace.probes.fits import Settings, Training
from actspace.probes.linear import UNPENALISED, Array, Frame, LinearProbe
from actspace.probes.metrics import accuracy, cosine
from actspace.probes.names import ProbeName
from actspace.probes.summary import interval
from actspace.seeds import rng_for
from actspace.threads import limited_to

SETTINGS = Settings(C=UNPENALISED, tolerance=1e-8)  # the closed forms have no penalty
SHOWN = 2000  # points in the picture
Draw = tuple[dict[str, LinearProbe], dict[str, float]]  # the probes and their accuracies
COLUMNS = ["probe", "metric", "value", "low", "high", "expected", "n_draws", "n_points"]


@dataclass(frozen=True)
class Toy:
    """Two Gaussian classes at +-theta / 2 with one covariance."""

    theta: Array  # (d_model,), the truth direction: the difference of the class means
    nuisance: Array  # (d_model,), unit vector v
    scale: float  # s, the extra standard deviation along v

    @property
    def sigma(self) -> Array:
        """Covariance within a class, (d_model, d_model)."""
        return np.eye(len(self.theta)) + self.scale**2 * np.outer(self.nuisance, self.nuisance)

    def directions(self) -> dict[str, Array]:
        """Return what theta, its tilt by the covariance, and its tilt by the variances alone are, each (d_model,)."""
        return {
            "theta": self.theta,
            "sigma_inv_theta": np.linalg.solve(self.sigma, self.theta),
            "diag_inv_theta": self.theta / np.diag(self.sigma),
        }

    def accuracy(self, direction: Array) -> float:
        """Return the accuracy of a direction with its threshold half-way: Phi(w.theta / (2 sqrt(w' Sigma w)))."""
        return float(norm.cdf(direction @ self.theta / (2 * np.sqrt(direction @ self.sigma @ direction))))

    def draw(self, n: int, rng: np.random.Generator) -> tuple[Array, np.ndarray]:
        """Draw n points (n, d_model) and their labels (n,), half of them 1."""
        y = rng.permutation(np.arange(n) % 2)
        noise = rng.standard_normal((n, len(self.theta))) + self.scale * rng.standard_normal((n, 1)) * self.nuisance
        return noise + (y - 0.5)[:, None] * self.theta, y


# The direction that each probe tends to. AdamW's 1000 steps end before any limit, and the baselines tend nowhere. CCS and
# TTPD are left out: the toy has no negations.
LIMIT = {
    "logistic_regression": "sigma_inv_theta",
    "logistic_regression_no_bias": "sigma_inv_theta",
    "mass_mean": "theta",
    "mass_mean_covariance": "sigma_inv_theta",
    "mass_mean_pseudo_inverse": "sigma_inv_theta",
    "shuffled_logistic_regression": "diag_inv_theta",
}
AT_CHANCE = ("random_direction", "shuffled_labels")


def make(d_model: int, nuisance_scale: float, cosine: float, separation: float, rng: np.random.Generator) -> Toy:
    """Make a toy in a random orientation: theta of length `separation`, the nuisance at the given cosine to it.

    Were the nuisance along an axis, or the same in all coordinates, shuffling would do nothing, or give theta.
    """
    if d_model < 2:
        raise StudyError(f"toy: `d_model` is {d_model}; two directions need 2 dimensions or more")
    axes = np.linalg.qr(rng.standard_normal((d_model, 2)))[0]
    return Toy(separation * axes[:, 0], cosine * axes[:, 0] + np.sqrt(1 - cosine**2) * axes[:, 1], nuisance_scale)


def run(settings: Mapping[str, Any], seed: int) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Fit probes on independent draws of one toy and compare them with the closed forms.

    Parameters
    ----------
    settings : probes (names), d_model, points (per draw, to fit and again to test), draws, nuisance_scale (s), cosine (of v with
        theta), separation (|theta|)
    seed : seed of the toy

    Returns
    -------
    table : probe, metric (cosines with the three closed forms, and accuracy on fresh points), mean over draws with its
        95% bootstrap interval, and the closed form `expected`, NaN where there is none. Baselines have cosine 0 and
        accuracy 1/2; their directions are drawn evenly from all, so that single draws stray from 0 by d_model^-1/2
    points : x, y, label of some points, in the plane of theta (x) and the nuisance (y is its part orthogonal to theta)
    directions : name, x, y: the closed forms, the nuisance, and the probes of the first draw that have a limit, as unit
        vectors, projected on that plane
    """
    geometry = (settings["d_model"], settings["nuisance_scale"], settings["cosine"], settings["separation"])
    toy = make(*geometry, rng_for(seed, "geometry"))
    probes = [names.parse(name) for name in settings["probes"]]
    with limited_to(1):
        rngs = [rng_for(seed, "draw", draw) for draw in range(settings["draws"])]
        draws = [_draw(toy, probes, settings["points"], rng) for rng in rngs]
    return _table(toy, draws, settings["points"], seed), *_picture(toy, draws[0][0], rng_for(seed, "picture"))


def _draw(toy: Toy, probes: list[ProbeName], n: int, rng: np.random.Generator) -> Draw:
    """Fit probes on n points; return them and their accuracies on n others."""
    X, y = toy.draw(n, rng)
    frame = Frame.of(X)
    found = {}
    for probe in probes:
        if probe.about.coordinate_wise:
            found[probe.name] = fits.fit(probe, Training(X, y, X.shape[1], rng), SETTINGS)
        else:
            inside = Training(frame.coordinates, y, X.shape[1], rng)
            found[probe.name] = frame.back(fits.fit(probe, inside, SETTINGS))
    fresh, truth = toy.draw(n, rng)
    return found, {name: float(accuracy(probe.scores(fresh)[:, None], truth)[0]) for name, probe in found.items()}


def _table(toy: Toy, draws: list[Draw], n_points: int, seed: int) -> pd.DataFrame:
    forms = toy.directions()
    rows: list[tuple[str, str, list[float], float]] = []
    for name in draws[0][0]:
        for form, direction in forms.items():
            found = [cosine(probes[name].direction, direction) for probes, _ in draws]
            rows.append((name, f"cosine_to_{form}", found, _expected_cosine(name, forms, direction)))
        rows.append((name, "accuracy", [accuracies[name] for _, accuracies in draws], _expected_accuracy(name, toy)))
    values = np.array([found for _, _, found, _ in rows])
    low, high = interval(values, seed)
    table = pd.DataFrame([(probe, metric, expected) for probe, metric, _, expected in rows])
    table.columns = ["probe", "metric", "expected"]
    table = table.assign(value=values.mean(axis=1), low=low, high=high, n_draws=len(draws), n_points=n_points)
    return table[COLUMNS]


def _expected_cosine(probe: str, forms: Mapping[str, Array], direction: Array) -> float:
    if probe in AT_CHANCE:
        return 0.0
    return cosine(forms[LIMIT[probe]], direction) if probe in LIMIT else float("nan")


def _expected_accuracy(probe: str, toy: Toy) -> float:
    if probe in AT_CHANCE:
        return 0.5
    return toy.accuracy(toy.directions()[LIMIT[probe]]) if probe in LIMIT else float("nan")


def _picture(toy: Toy, probes: dict[str, LinearProbe], rng: np.random.Generator) -> tuple[pd.DataFrame, pd.DataFrame]:
    across = toy.theta / np.linalg.norm(toy.theta)
    up = toy.nuisance - (toy.nuisance @ across) * across
    plane = np.stack([across, up / np.linalg.norm(up)], axis=1)
    X, y = toy.draw(SHOWN, rng)
    found = {name: probe.direction for name, probe in probes.items() if name in LIMIT}
    shown = toy.directions() | {"nuisance": toy.nuisance} | found
    arrows = np.stack([direction / np.linalg.norm(direction) for direction in shown.values()]) @ plane
    points = pd.DataFrame({"x": X @ plane[:, 0], "y": X @ plane[:, 1], "label": y})
    return points, pd.DataFrame({"name": list(shown), "x": arrows[:, 0], "y": arrows[:, 1]})
