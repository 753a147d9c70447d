"""Fit k-means: Lloyd's iterations from one k-means++ start.

Source: scikit-learn's `KMeans`; the dictionary is K1 of the methods reference, 1.2."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import torch
from numpy.random import MT19937, RandomState, SeedSequence
from sklearn import cluster
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

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
    lloyd = cluster.KMeans(
        n_clusters,
        init="k-means++",
        n_init=1,
        max_iter=max_iterations,
        tol=tolerance,
        random_state=RandomState(MT19937(SeedSequence(seed))),
    )
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


def inertia(dictionary: KMeans, x: np.ndarray) -> float:
    """Sum the squared distances of the rows (row, d_model) to their nearest centroids, in float64."""
    chunks = torch.from_numpy(x).split(ROWS_AT_ONCE)
    return float(sum((rows.double() - dictionary(rows).double()).square().sum() for rows in chunks))
