"""Fit k-means: Lloyd's iterations from one greedy k-means++ start.

Source: scikit-learn's `KMeans`; the dictionary is K1 of the methods reference, 1.2."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import torch
from sklearn import cluster
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits
from torch import Tensor

from actspace.dictionaries.base import KMeans, check_finite
from actspace.errors import StudyError

ROWS_AT_ONCE = 8192


class KMeansFit(NamedTuple):
    """A fitted dictionary and how the fit went; `inertia` sums the squared distances to the nearest centroids."""

    dictionary: KMeans
    inertia: float
    iterations: int
    converged: bool


def fit(
    x: np.ndarray, n_clusters: int, seed: int, tolerance: float, max_iterations: int, n_threads: int = 1
) -> KMeansFit:
    """Fit centroids to activations.

    Parameters
    ----------
    x : float32 array of shape (row, d_model)
    n_clusters
        Number of centroids K.
    seed
        Non-negative integer of any size.
    tolerance
        Stop when the centroids together move by less than this, squared, in units of the data's variance averaged over
        dimensions.
    max_iterations
        Stop after so many passes over the data.
    n_threads
        Threads for this fit. Each thread sums its own rows first, so another number of threads rounds otherwise, and
        with three or more the order of these sums is left to chance: one thread gives the same centroids in every run.

    Raises
    ------
    StudyError
        If x has fewer rows, or fewer distinct rows, than K, or a row that is not finite.
    """
    if not 1 <= n_clusters <= len(x):
        raise StudyError(
            f"k-means: {n_clusters} clusters of {len(x)} rows; choose fewer clusters (at least 1), or more rows"
        )
    x = np.ascontiguousarray(x, dtype=np.float32)
    check_finite(torch.from_numpy(x), "k-means data")
    start = x[plus_plus(torch.from_numpy(x), n_clusters, np.random.default_rng(seed))]
    lloyd = cluster.KMeans(n_clusters, init=start, n_init=1, max_iter=max_iterations, tol=tolerance)
    with threadpool_limits(n_threads), warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            lloyd.fit(x)
        except ConvergenceWarning as warning:
            raise StudyError(
                f"k-means: {n_clusters} clusters, but the {len(x)} rows hold fewer distinct ones; choose fewer clusters"
            ) from warning
    dictionary = KMeans({"centroids": torch.from_numpy(lloyd.cluster_centers_)})
    return KMeansFit(dictionary, inertia(dictionary, x), int(lloyd.n_iter_), bool(lloyd.n_iter_ < max_iterations))


def plus_plus(x: Tensor, n_clusters: int, rng: np.random.Generator) -> list[int]:
    """Choose rows to start from, far from one another: greedy k-means++.

    Each is the best of 2 + log K rows drawn with probability proportional to the squared distance from the rows chosen so far
    (Arthur & Vassilvitskii 2007, with the trials that scikit-learn makes; its own version computes in float64 and takes three times as long).

    Parameters
    ----------
    x : float32 Tensor of shape (row, d_model)
    n_clusters : K
    rng : draws the rows

    Returns
    -------
    K row numbers
    """
    x = x - x.mean(0)  # distances come from scalar products, which a common offset would swamp
    squares = x.square().sum(1)
    trials = 2 + int(np.log(n_clusters))
    chosen = [int(rng.integers(len(x)))]
    nearest = (squares + squares[chosen[0]] - 2 * (x @ x[chosen[0]])).clamp_(min=0)
    while len(chosen) < n_clusters:
        cumulative = nearest.double().cumsum(0)
        drawn = torch.searchsorted(cumulative, torch.from_numpy(rng.random(trials)) * cumulative[-1])
        drawn = drawn.clamp_(max=len(x) - 1)
        distances = squares + squares[drawn, None] - 2 * (x[drawn] @ x.T)
        distances = torch.minimum(distances.clamp_(min=0), nearest)
        best = int(distances.sum(1).argmin())
        chosen.append(int(drawn[best]))
        nearest = distances[best]
    return chosen


def inertia(dictionary: KMeans, x: np.ndarray) -> float:
    """Sum the squared distances of the rows (row, d_model) to their nearest centroids, in float64."""
    chunks = torch.from_numpy(x).split(ROWS_AT_ONCE)
    return float(sum((rows.double() - dictionary(rows).double()).square().sum() for rows in chunks))
