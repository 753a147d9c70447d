"""Base activations: where a perturbation starts. Real ones, and random ones with more or less of their statistics.

Source: Heimersheim (2024). The covariance of centred activations is singular by construction, so samples are taken
through its eigendecomposition and never through a Cholesky factor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from actspace.errors import StudyError
from actspace.seeds import rng_for

BASES = ("real", "covariance_random", "isotropic_random")
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Gaussian:
    """The normal distribution with the mean and covariance of real activations: mu + U sqrt(lambda) z."""

    mean: Array
    factor: Array
    """(d_model, rank): the eigenvectors with a positive eigenvalue, times its root."""
    condition: float
    """Largest over smallest of the eigenvalues kept."""

    @property
    def rank(self) -> int:
        """Number of directions in which samples vary."""
        return self.factor.shape[1]

    def sample(self, rng: np.random.Generator, n: int) -> Array:
        """Draw n vectors, float64 of shape (n, d_model)."""
        return self.mean + rng.standard_normal((n, self.rank)) @ self.factor.T


def fit_gaussian(mean: ArrayLike, covariance: ArrayLike) -> Gaussian:
    """Decompose a covariance (d_model, d_model) for sampling, in float64, dropping the directions without variance.

    Eigenvalues up to d_model * eps * the largest are rounding of zero.

    Raises
    ------
    StudyError
        If a moment is not finite, or no direction has variance.
    """
    mu, sigma = np.asarray(mean, np.float64), np.asarray(covariance, np.float64)
    if not (np.isfinite(mu).all() and np.isfinite(sigma).all()):
        raise StudyError("perturbations: mean or covariance of the activations is not finite; check the capture")
    eigenvalues, vectors = np.linalg.eigh((sigma + sigma.T) / 2)
    keep = eigenvalues > len(mu) * np.finfo(np.float64).eps * max(eigenvalues[-1], 0)
    if not keep.any():
        raise StudyError("perturbations: the activations have no variance; use more, or other, documents")
    kept = eigenvalues[keep]
    return Gaussian(mu, vectors[:, keep] * np.sqrt(kept), float(kept[-1] / kept[0]))


def isotropic(rng: np.random.Generator, n: int, d_model: int, gauge: str) -> Array:
    """Draw n standard normal vectors, float64 of shape (n, d_model); in the centred gauge without their mean."""
    vectors = rng.standard_normal((n, d_model))
    return vectors - vectors.mean(-1, keepdims=True) if gauge == "centred" else vectors


def base_activations(
    kind: str, real: ArrayLike, gaussian: Gaussian, mean_norm: float, gauge: str, seed: int, first: int = 0
) -> Array:
    """Return one base activation per prompt.

    Parameters
    ----------
    kind : "real", "covariance_random" or "isotropic_random"
        The activation itself; a sample with the mean and covariance of real activations, its norm as it falls;
        or a random direction, isotropic, at exactly the mean norm of real activations.
    real : array of shape (prompt, d_model)
    mean_norm : float
        Mean L2 norm of real activations at this site.
    first : int
        Number of the first of these prompts. A prompt's random base depends on its number alone.

    Returns
    -------
    float64 array of shape (prompt, d_model)
    """
    vectors = np.asarray(real, np.float64)
    if kind == "real":
        return vectors
    rngs = [rng_for(seed, "base", kind, first + i) for i in range(len(vectors))]
    if kind == "covariance_random":
        return np.concatenate([gaussian.sample(rng, 1) for rng in rngs])
    if kind == "isotropic_random":
        drawn = np.concatenate([isotropic(rng, 1, vectors.shape[1], gauge) for rng in rngs])
        return mean_norm * drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    raise StudyError(f"bases: '{kind}' is unknown; use one of {', '.join(BASES)}")
