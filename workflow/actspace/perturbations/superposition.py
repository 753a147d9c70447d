"""A toy model of superposition, in which it is known how error and active latents change between two activations.

Activations are sparse sums of unit directions, sum_i f_i w_i, more of them than dimensions. The dictionary is the truth:
its decoder rows are the directions, and its latents the projections on them, above a threshold or the k largest. With no
more features than dimensions the directions are orthonormal, projections are the features themselves, and both
quantities follow in closed form: between f and g, at the fraction a, feature i has the size (1 - a) f_i + a g_i; it is
active if that exceeds the threshold, and lost, with the square of its size, if not. In superposition interference adds
to both.

Source: the toy data of Elhage et al., Toy Models of Superposition (2022); the read-outs are those of `spikes`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from actspace.dictionaries.base import SAE, Codes, Dictionary, TopK
from actspace.perturbations import spikes
from actspace.perturbations.bases import fit_gaussian
from actspace.perturbations.spike_statistics import TOY
from actspace.perturbations.spikes import Pairs
from actspace.seeds import rng_for

HOOK = "toy"
Array = NDArray[np.float64]
MOMENTS = {"uniform": (1 / 2, 1 / 3), "exponential": (1.0, 2.0)}
"""First and second moment of an active feature's value."""
ROUNDING = 1e-9
"""Subtracted from projections, as half of those on absent features are a hair above zero, and would count as active."""


class Threshold(SAE):
    """Pre-activations above one threshold stay active, at their full size: the JumpReLU of a known dictionary."""

    family: ClassVar[str] = "threshold"

    def __init__(self, tensors: dict[str, Tensor], threshold: float):
        super().__init__(tensors, threshold=threshold)
        self.threshold = threshold

    def encode_rows(self, x: Tensor) -> Codes:
        """Keep the pre-activations above the threshold, in as many columns as the busiest row needs."""
        p = self.pre_activations(x)
        latents = p.where(p > self.threshold, 0)
        width = max(1, int(torch.count_nonzero(latents, dim=1).max())) if len(x) else 1
        values, indices = latents.topk(width, sorted=False)
        return Codes(indices, values)


@dataclass(frozen=True)
class Toy:
    """Sparse sums of feature directions."""

    directions: Array
    """(feature, d_model), of unit length"""
    probability: float
    """That a feature is active."""
    values: str
    """Distribution of the active ones: "uniform" on [0, 1] or "exponential" with mean 1."""

    def features(self, rng: np.random.Generator, n: int) -> Array:
        """Draw the features of n activations, (n, feature)."""
        shape = (n, len(self.directions))
        sizes = rng.random(shape) if self.values == "uniform" else rng.standard_exponential(shape)
        return np.where(rng.random(shape) < self.probability, sizes, 0.0)

    @property
    def variance(self) -> float:
        """Variance of one feature."""
        first, second = MOMENTS[self.values]
        return self.probability * second - (self.probability * first) ** 2

    @property
    def mean(self) -> Array:
        """Mean activation, (d_model,)."""
        return self.probability * MOMENTS[self.values][0] * self.directions.sum(0)

    @property
    def covariance(self) -> Array:
        """Covariance of activations, (d_model, d_model): features are independent."""
        return self.variance * self.directions.T @ self.directions


def make(n_features: int, d_model: int, probability: float, values: str, seed: int) -> Toy:
    """Make a toy: orthonormal directions while there is room for them, else random ones of unit length."""
    drawn = rng_for(seed, "directions", n_features).standard_normal((n_features, d_model))
    orthonormal = n_features <= d_model
    directions = np.linalg.qr(drawn.T)[0].T if orthonormal else drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return Toy(np.ascontiguousarray(directions), probability, values)


def truth(toy: Toy, threshold: float, k: int) -> dict[str, Dictionary]:
    """Return the true dictionary with both encoders, in float64, named by encoder and number of features."""
    rows, n = torch.from_numpy(toy.directions), len(toy.directions)
    biases = {"b_enc": rows.new_full((n,), -ROUNDING), "b_dec": rows.new_zeros(rows.shape[1])}
    tensors = {"W_enc": rows.T.contiguous(), "W_dec": rows, **biases}
    return {f"threshold-n{n}": Threshold(tensors, threshold), f"topk-n{n}-k{k}": TopK(tensors, k)}


def known_answer(features: Array, dictionary: Dictionary) -> tuple[Array, NDArray[np.int64]]:
    """Say what the true dictionary makes of vectors with these features if directions are orthonormal.

    Parameters
    ----------
    features : array of shape (row, feature), not negative

    Returns
    -------
    error : float64 array of shape (row,)
        Sum of the squares of the features that are lost: those up to the threshold, or all but the k largest.
    active : int64 array of shape (row,)
        Features above the threshold; for TopK, above zero.
    """
    if isinstance(dictionary, Threshold):
        active = features > dictionary.threshold
        return (features**2 * ~active).sum(1), active.sum(1)
    assert isinstance(dictionary, TopK)
    smallest = np.sort(features, axis=1)[:, : -dictionary.k]
    return (smallest**2).sum(1), (features > 0).sum(1)


def run(cfg: Mapping[str, Any], seed: int) -> pd.DataFrame:
    """Read the true dictionaries out along real and covariance-random pairs, for each number of features.

    Parameters
    ----------
    cfg : mapping
        `features` (list of numbers), `active` (how many of them on average), `d_model`, `values`, `threshold`, `k`,
        `pairs` and `steps`.

    Returns
    -------
    DataFrame
        As `spikes.run` gives it, with the hook `toy`, and `known_error` and `known_latents`: the closed form for
        orthonormal directions; NaN for random pairs, which are made of no features.
    """
    parts = []
    for n_features in cfg["features"]:
        toy = make(n_features, cfg["d_model"], cfg["active"] / n_features, cfg["values"], seed)
        features = _feature_pairs(toy, cfg["pairs"], seed)
        ends = torch.from_numpy(features @ toy.directions)
        real = Pairs("real", ends[:, 0], ends[:, 1], np.arange(cfg["pairs"]))
        random = spikes.random_pairs(fit_gaussian(toy.mean, toy.covariance), cfg["pairs"], seed)
        mean, total = torch.from_numpy(toy.mean), float(np.trace(toy.covariance))
        fits = truth(toy, cfg["threshold"], cfg["k"])
        labels = {"experiment": TOY, "dictionaries": TOY, "hook": HOOK}
        table = spikes.run(fits, [real, random], cfg["steps"], mean, total, labels)
        parts.append(_with_known(table, fits, features, cfg["steps"], total))
    return pd.concat(parts, ignore_index=True)


def _feature_pairs(toy: Toy, pairs: int, seed: int) -> Array:
    """Draw the features of both ends of each pair, (pair, 2, feature); a pair depends on its number alone."""
    n = len(toy.directions)
    return np.stack([toy.features(rng_for(seed, "features", n, number), 2) for number in range(pairs)])


def _with_known(
    table: pd.DataFrame, fits: Mapping[str, Dictionary], features: Array, steps: int, total: float
) -> pd.DataFrame:
    """Add the closed form to the rows of real pairs, which stand in the order of pairs and steps."""
    table = table.assign(known_error=np.nan, known_latents=np.nan)
    ends = torch.from_numpy(features)
    between = Pairs("real", ends[:, 0], ends[:, 1], np.arange(len(ends))).points(spikes.fractions(steps))
    for fit, dictionary in fits.items():
        error, active = known_answer(between.flatten(0, 1).numpy(), dictionary)
        rows = (table["fit"] == fit) & (table["source"] == "real")
        table.loc[rows, "known_error"] = error / total
        table.loc[rows, "known_latents"] = active.astype(np.float64)
    return table
