"""Data without structure beyond its mean and covariance: the Gaussian surrogate.

Source: methods reference, 0.4. The covariance may be singular (it is, in the centred gauge), so rows are drawn through
its eigendecomposition, never through a Cholesky factor."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

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


def gaussian_surrogate(mean: np.ndarray, covariance: np.ndarray, n_rows: int, rng: np.random.Generator) -> np.ndarray:
    """Draw rows x = mean + U sqrt(lambda) z from a Gaussian of given mean (d_model,) and covariance, both float64.

    Returns
    -------
    float32 array of shape (n_rows, d_model)
    """
    variances, directions = spectrum(covariance)
    root = np.sqrt(variances)[:, None] * directions
    rows = np.empty((n_rows, len(mean)), dtype=np.float32)
    for start in range(0, n_rows, ROWS_AT_ONCE):
        z = rng.standard_normal((min(ROWS_AT_ONCE, n_rows - start), len(root)))
        rows[start : start + len(z)] = mean + z @ root
    return rows
