"""Base activations: where a perturbation starts. Real ones, random ones with more or less of their statistics, and ones
put together from the latents of a sparse autoencoder.

Source: Heimersheim (2024); Giglemiani et al. (2024) for synthetic ones. The covariance of centred activations is
singular by construction, so samples are taken through its eigendecomposition and never through a Cholesky factor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from actspace.errors import StudyError
from actspace.perturbations.families import Family, parse_base
from actspace.perturbations.fitted import Fitted
from actspace.perturbations.latents import Code, Ids, Latents
from actspace.seeds import rng_for

SAME_LOG_FREQUENCY = 0.1
"""Natural logarithm: latents whose frequencies differ by less than a tenth or so are equally sparse."""
NOTHING_FITTED = Fitted()
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
    kind: str,
    real: ArrayLike,
    gaussian: Gaussian,
    mean_norm: float,
    gauge: str,
    seed: int,
    first: int = 0,
    fitted: Fitted = NOTHING_FITTED,
) -> Array:
    """Return one base activation per prompt.

    Parameters
    ----------
    kind : str
        `real`: the activation itself. `covariance_random`: a sample with the mean and covariance of real activations,
        its norm as it falls. `isotropic_random`: a random direction, isotropic, at exactly the mean norm of real
        activations. `plus_latents_x4`: the activation and four latents, alive but inactive on it, at their mean active
        values. `minus_latents_x4`: the activation less four of its active latents (all, where it has fewer).
        `reconstruction`: what the dictionary makes of it. `synthetic_single`: one alive latent, at the mean norm of the
        codes of real activations. `synthetic_composite`: as many alive latents as are active on the activation, with
        their values. `synthetic_sparsity_matched`: the same, each of about the frequency of the one that it replaces.
    real : array of shape (prompt, d_model)
    mean_norm : float
        Mean L2 norm of real activations at this site.
    first : int
        Number of the first of these prompts. A prompt's random base depends on its number alone.
    fitted : Fitted
        With the latents, for those made from them.

    Returns
    -------
    float64 array of shape (prompt, d_model)

    Raises
    ------
    StudyError
        If the kind is unknown, a dictionary is needed and absent, or a prompt has no latents of the class needed.
    """
    family, vectors = parse_base(kind), np.asarray(real, np.float64)
    if kind == "real":
        return vectors
    if family.source:
        return _from_latents(kind, family, vectors, fitted.latents_for(kind), seed, first)
    rngs = [rng_for(seed, "base", kind, first + i) for i in range(len(vectors))]
    if kind == "covariance_random":
        return np.concatenate([gaussian.sample(rng, 1) for rng in rngs])
    drawn = np.concatenate([isotropic(rng, 1, vectors.shape[1], gauge) for rng in rngs])
    return mean_norm * drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


@dataclass(frozen=True)
class Prompt:
    """A real activation (d_model,), its code, and its number, from which all random choices follow."""

    number: int
    x: Array
    code: Code


def _from_latents(kind: str, family: Family, real: Array, latents: Latents, seed: int, first: int) -> Array:
    """Build bases (prompt, d_model) from the latents of real activations."""
    if kind == "reconstruction":
        return latents.reconstruct(real)
    build = LATENT_BASES[family.kind]
    prompts = (Prompt(first + i, *pair) for i, pair in enumerate(zip(real, latents.codes(real), strict=True)))
    # The number of latents is not part of the key: four added latents are the one added, and three more.
    return np.stack([build(latents, p, family.count, rng_for(seed, "base", family.kind, p.number)) for p in prompts])


def _plus(latents: Latents, prompt: Prompt, count: int, rng: np.random.Generator) -> Array:
    (ids,) = latents.choose("inactive", prompt.code, count, 1, rng, prompt.number)
    return prompt.x + latents.combine(ids, latents.mean_active_value[ids])


def _minus(latents: Latents, prompt: Prompt, count: int, rng: np.random.Generator) -> Array:
    (ids,) = latents.choose("active", prompt.code, count, 1, rng, prompt.number)
    return prompt.x - latents.combine(ids, prompt.code.values[np.searchsorted(prompt.code.ids, ids)])


def _single(latents: Latents, prompt: Prompt, count: int, rng: np.random.Generator) -> Array:
    ids = rng.choice(np.flatnonzero(latents.alive), 1)
    return latents.bias + latents.combine(ids, [latents.mean_code_norm])


def _composite(latents: Latents, prompt: Prompt, count: int, rng: np.random.Generator) -> Array:
    return latents.bias + latents.combine(composite_ids(latents, prompt, rng), prompt.code.values)


def _sparsity_matched(latents: Latents, prompt: Prompt, count: int, rng: np.random.Generator) -> Array:
    return latents.bias + latents.combine(matched_ids(latents, prompt, rng), prompt.code.values)


LATENT_BASES: dict[str, Callable[[Latents, Prompt, int, np.random.Generator], Array]] = {
    "plus_latents": _plus,
    "minus_latents": _minus,
    "synthetic_single": _single,
    "synthetic_composite": _composite,
    "synthetic_sparsity_matched": _sparsity_matched,
}


def composite_ids(latents: Latents, prompt: Prompt, rng: np.random.Generator) -> Ids:
    """Draw as many different alive latents as are active on a prompt, in random order; its own may be among them.

    Raises
    ------
    StudyError
        If no latent is active, or fewer are alive than active.
    """
    alive, wanted = np.flatnonzero(latents.alive), len(latents.members("active", prompt.code, prompt.number))
    if len(alive) < wanted:
        raise StudyError(_too_few(latents, prompt, len(alive)))
    return rng.choice(alive, wanted, replace=False)


def matched_ids(latents: Latents, prompt: Prompt, rng: np.random.Generator) -> Ids:
    """Replace each active latent by an alive one that is inactive, different ones each, of about its frequency.

    Frequencies are about the same if their natural logarithms differ by less than `SAME_LOG_FREQUENCY`; where no such
    latent is left, the nearest in log-frequency is taken. A latent that never fired on the pool counts as if it had
    once.

    Raises
    ------
    StudyError
        If no latent is active, or there are fewer alive ones to replace them by than active ones.
    """
    active = latents.members("active", prompt.code, prompt.number)
    candidates = latents.of_class("inactive", prompt.code)
    if len(candidates) < len(active):
        raise StudyError(_too_few(latents, prompt, len(candidates)))
    log_frequency = np.log(np.maximum(latents.frequency, 1 / latents.n_rows))
    taken = []
    for latent in active:
        gap = np.abs(log_frequency[candidates] - log_frequency[latent])
        near = np.flatnonzero(gap < SAME_LOG_FREQUENCY)
        place = rng.choice(near) if len(near) else gap.argmin()
        taken.append(candidates[place])
        candidates = np.delete(candidates, place)
    return np.array(taken, np.int64)


def _too_few(latents: Latents, prompt: Prompt, n: int) -> str:
    return (
        f"perturbations: prompt {prompt.number} has {len(prompt.code.ids)} active latents in {latents.name}, and only {n} "
        "others that fire on the pool could replace them; use a sparser fit or more text"
    )
