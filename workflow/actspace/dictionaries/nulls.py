"""Nulls: data without the structure that dictionaries look for, and dictionaries that nobody fitted.

Data: the Gaussian surrogate keeps mean and covariance, shuffled dimensions keep each dimension's values. Dictionaries:
random data points as centroids, mean activations by token, random directions. Source: methods reference, 0.4 and 1.2.
The covariance may be singular (it is, in the centred gauge), so rows are drawn through
its eigendecomposition, never through a Cholesky factor."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from actspace.activations.moments import Moments
from actspace.activations.store import Activations
from actspace.dictionaries.base import KMeans, TokenIdentity, TopK, check_finite
from actspace.errors import StudyError

ROWS_AT_ONCE = 8192


class Spectrum(NamedTuple):
    """The part of a covariance that is not numerically zero.

    `variances` (rank,) descend and `directions` (rank, d_model) are orthonormal, both float64; `condition_number` is
    the largest variance over the smallest of these.
    """

    variances: np.ndarray
    directions: np.ndarray

    @property
    def rank(self) -> int:
        """Number of directions with variance."""
        return len(self.variances)

    @property
    def condition_number(self) -> float:
        """Largest over smallest variance that is kept."""
        return float(self.variances[0] / self.variances[-1])


def spectrum(covariance: np.ndarray) -> Spectrum:
    """Decompose a float64 covariance (d_model, d_model); what rounding cannot tell from zero is dropped.

    Raises
    ------
    StudyError
        If the covariance is not finite, or zero.
    """
    if not np.isfinite(covariance).all():
        raise StudyError(
            "gaussian surrogate: the covariance is not finite; capture again, in float32 if the storage overflowed"
        )
    variances, directions = np.linalg.eigh(covariance)
    kept = variances > len(variances) * np.finfo(np.float64).eps * max(variances[-1], 0.0)
    if not kept.any():
        raise StudyError("gaussian surrogate: the covariance is zero, all rows are alike; use more than one row")
    return Spectrum(variances[kept][::-1], directions.T[kept][::-1])


def surrogate(null: str, moments: Moments, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return what draws as many rows as x (row, d_model) has from one of the two nulls of data, by name: for one block of the data after the other.

    The Gaussian has `moments`; dimensions are shuffled within a block.
    """
    rng = np.random.default_rng(seed)
    if null == "shuffled":
        return partial(shuffled_dimensions, rng=rng)
    mean, root = moments.mean.numpy(), _root(moments.covariance.numpy())
    return lambda x: _gaussian(mean, root, len(x), rng)


def gaussian_surrogate(mean: np.ndarray, covariance: np.ndarray, n_rows: int, rng: np.random.Generator) -> np.ndarray:
    """Draw rows x = mean + U sqrt(lambda) z from a Gaussian of given mean (d_model,) and covariance, both float64.

    Returns
    -------
    float32 array of shape (n_rows, d_model)
    """
    return _gaussian(mean, _root(covariance), n_rows, rng)


def _root(covariance: np.ndarray) -> np.ndarray:
    """Return the rows (rank, d_model) whose sums with independent standard normal weights have a covariance."""
    variances, directions = spectrum(covariance)
    return np.sqrt(variances)[:, None] * directions


def _gaussian(mean: np.ndarray, root: np.ndarray, n_rows: int, rng: np.random.Generator) -> np.ndarray:
    rows = np.empty((n_rows, len(mean)), dtype=np.float32)
    for start in range(0, n_rows, ROWS_AT_ONCE):
        z = rng.standard_normal((min(ROWS_AT_ONCE, n_rows - start), len(root)))
        rows[start : start + len(z)] = mean + z @ root
    return rows


def shuffled_dimensions(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the rows (row, d_model) with each column in a random order of its own: no two dimensions correlate."""
    return np.stack([rng.permutation(column) for column in x.T], axis=1)


def random_points(rows: Activations, n_clusters: int, seed: int) -> KMeans:
    """Take different random rows of the store for centroids.

    Raises
    ------
    StudyError
        If there are fewer rows than `n_clusters`, or a value is not finite.
    """
    drawn = rows.sample(n_clusters, np.random.default_rng(seed)).x
    if not 1 <= n_clusters <= len(drawn):
        raise StudyError(f"random_points: {n_clusters} of {len(drawn)} rows; choose fewer (at least 1), or more rows")
    check_finite(drawn, "random_points data")
    return KMeans({"centroids": drawn.float()})


def token_identity(x: Tensor, token_ids: np.ndarray) -> TokenIdentity:
    """Average the rows of x (row, d_model) by their tokens (row,), in float64; the mean of all rows stands for others.

    Raises StudyError if a value is not finite.
    """
    check_finite(x, "token_identity data")
    tokens, place = np.unique(token_ids, return_inverse=True)
    sums = torch.zeros(len(tokens), x.shape[1], dtype=torch.float64).index_add_(0, torch.from_numpy(place), x.double())
    means = sums / torch.from_numpy(np.bincount(place))[:, None]
    centroids = torch.cat([x.double().mean(0, keepdim=True), means]).float()
    return TokenIdentity(
        {"centroids": centroids, "token_ids": torch.from_numpy(np.append(-1, tokens).astype(np.int64))}
    )


def random_directions(x: Tensor, n_latents: int, k: int, seed: int) -> TopK:
    """Draw random unit vectors as the encoder and decoder rows of a TopK SAE around the mean of x (row, d_model)."""
    check_finite(x, "random_directions data")
    drawn = torch.from_numpy(np.random.default_rng(seed).standard_normal((n_latents, x.shape[1])))
    rows = functional.normalize(drawn, dim=1).float()
    mean = x.double().mean(0).float()
    return TopK({"W_enc": rows.T.contiguous(), "b_enc": torch.zeros(n_latents), "W_dec": rows, "b_dec": mean}, k=k)
