"""Directions of perturbation. `toward` ones contain minus the base; mixtures of two targets are free of it, and so are
the directions of a fit, but for what they choose by the base: its latents, its reconstruction error.

Source: Heimersheim (2024) for directions towards an activation; Lee & Heimersheim (2024) for mixtures, which remove the
artefact that a direction towards any activation also undoes the base's own deviation from the mean, and for latents."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from actspace.errors import StudyError
from actspace.perturbations.bases import NOTHING_FITTED, Array, Gaussian, isotropic
from actspace.perturbations.families import Family, parse_direction
from actspace.perturbations.fitted import Fitted
from actspace.perturbations.paths import Path
from actspace.seeds import rng_for


@dataclass(frozen=True)
class Pool:
    """Real activations to draw targets from, and the document that each belongs to."""

    activations: Array
    """(row, d_model)"""
    documents: NDArray
    """(row,)"""

    def pairs(self, rng: np.random.Generator, document: object, n: int) -> NDArray[np.int64]:
        """Draw n pairs of rows from two different documents, neither of them `document`; shape (n, 2).

        Raises
        ------
        StudyError
            If the pool has fewer than two other documents.
        """
        others = np.flatnonzero(self.documents != document)
        names = self.documents[others]
        if len(others) == 0 or (names == names[0]).all():
            raise StudyError(f"perturbations: targets for document {document} need two other documents; use more text")
        pairs = rng.integers(len(others), size=(n, 2))
        while (same := names[pairs[:, 0]] == names[pairs[:, 1]]).any():
            pairs[same] = rng.integers(len(others), size=(int(same.sum()), 2))
        return others[pairs]


@dataclass(frozen=True)
class Targets:
    """The draws of one or more prompts, from which every family builds its directions; none depends on the base.

    Families, bases and paths share them, so that whatever is compared is compared on the same draws.
    """

    real: Tensor
    """(prompt, draw, 2, d_model): two real activations from other documents."""
    covariance_random: Tensor
    """(prompt, draw, 2, d_model): two samples with the mean and covariance of real activations."""
    isotropic: Tensor
    """(prompt, draw, d_model): standard normal."""
    gaussian: Gaussian
    """Of real activations: its principal components."""
    fitted: Fitted
    """What families of directions that come from a fit are made from."""
    seed: int
    first: int
    """Number of the first prompt."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Numbers of prompts, draws and dimensions."""
        return tuple(self.isotropic.shape)  # type: ignore[return-value]

    def rngs(self, family: str) -> list[np.random.Generator]:
        """Return a generator for the choices of a family, one per prompt."""
        return [rng_for(self.seed, "directions", family, self.first + i) for i in range(self.shape[0])]


def draw_targets(
    pool: Pool,
    gaussian: Gaussian,
    documents: Iterable[object],
    draws: int,
    gauge: str,
    seed: int,
    first: int = 0,
    fitted: Fitted = NOTHING_FITTED,
) -> Targets:
    """Draw the targets of some prompts, float64 on the CPU.

    Parameters
    ----------
    documents : iterable of length prompt
        Document of each prompt: none of its targets comes from there.
    first : int
        Number of the first of these prompts. A prompt's draws depend on its number alone, and not on the batch.
    fitted : Fitted
        What was fitted at the site, for families that are made from it.
    """
    real, random, plain = [], [], []
    d_model = pool.activations.shape[1]
    for number, document in enumerate(documents, start=first):
        real.append(pool.activations[pool.pairs(rng_for(seed, "targets", "real", number), document, draws)])
        sampled = gaussian.sample(rng_for(seed, "targets", "covariance_random", number), 2 * draws)
        random.append(sampled.reshape(draws, 2, d_model))
        plain.append(isotropic(rng_for(seed, "targets", "isotropic", number), draws, d_model, gauge))
    stacked = [torch.from_numpy(np.stack(part).astype(np.float64, copy=False)) for part in (real, random, plain)]
    return Targets(stacked[0], stacked[1], stacked[2], gaussian, fitted, seed, first)


def directions(family: str, targets: Targets, base: Tensor) -> Tensor:
    """Build the directions of one family.

    With targets t, t1 and t2 and the base x: `toward_*` is t - x, `*_mixture` is t1 - t2, `isotropic` a standard normal
    vector as it is. `principal_component`: draw d is the component with the d-th largest variance, with a random sign.
    `decoder_active_x8`: the sum of the unit decoder rows of eight latents that are active on the base (all, where it
    has fewer); `_inactive`: alive but inactive; `_dead`: never active on the pool; with `minus_` before it, minus that.
    `reconstruction_error`: decode(encode(x)) - x. `cluster_difference`: between two random centroids. `probe_<name>`:
    towards "true", by the probe of the split d modulo their number.

    Parameters
    ----------
    base : float64 Tensor of shape (prompt, d_model)

    Returns
    -------
    float64 Tensor of shape (prompt, draw, d_model)

    Raises
    ------
    StudyError
        If the family is unknown, what it is made from is absent, or a prompt has no latents of the class needed.
    """
    known = parse_direction(family)
    found = FAMILIES[known.kind](known, targets, base)
    return (known.sign * found).expand(targets.shape)


def _principal_component(family: Family, targets: Targets, base: Tensor) -> Tensor:
    draws, rank = targets.shape[1], targets.gaussian.rank
    if draws > rank:
        raise StudyError(f"draws: {draws}, but the activations have only {rank} principal components; lower it")
    components = targets.gaussian.factor[:, ::-1].T[:draws]  # eigenvalues ascend
    signs = np.stack([rng.choice([-1.0, 1.0], draws) for rng in targets.rngs(family.kind)])
    # LAPACK leaves an eigenvector's sign open; the drawn one must not depend on it.
    largest = np.take_along_axis(components, np.abs(components).argmax(1, keepdims=True), axis=1)
    components = components * np.sign(largest) / np.linalg.norm(components, axis=1, keepdims=True)
    return torch.from_numpy(signs[..., None] * components)


def _decoder(family: Family, targets: Targets, base: Tensor) -> Tensor:
    latents, which = targets.fitted.latents_for(family.name), family.kind.removeprefix("decoder_")
    summed = []
    # One key for all classes, signs and counts: what is compared differs in nothing else.
    for i, (code, rng) in enumerate(zip(latents.codes(base.cpu().numpy()), targets.rngs("decoder"), strict=True)):
        chosen = latents.choose(which, code, family.count, targets.shape[1], rng, targets.first + i)
        rows = np.stack([latents.rows(ids) for ids in chosen])
        summed.append((rows / np.linalg.norm(rows, axis=-1, keepdims=True)).sum(1))
    return torch.from_numpy(np.stack(summed))


def _reconstruction_error(family: Family, targets: Targets, base: Tensor) -> Tensor:
    x = base.cpu()
    return (torch.from_numpy(targets.fitted.latents_for(family.name).reconstruct(x.numpy())) - x)[:, None]


def _cluster_difference(family: Family, targets: Targets, base: Tensor) -> Tensor:
    centroids, draws = targets.fitted.centroids_for(family.name), targets.shape[1]
    differences = []
    for rng in targets.rngs(family.kind):
        one = rng.integers(len(centroids), size=draws)
        other = (one + rng.integers(1, len(centroids), size=draws)) % len(centroids)
        differences.append(centroids[other] - centroids[one])
    return torch.from_numpy(np.stack(differences))


def _probe(family: Family, targets: Targets, base: Tensor) -> Tensor:
    splits = targets.fitted.probe_for(family)
    return torch.from_numpy(splits[np.arange(targets.shape[1]) % len(splits)])[None]


FAMILIES: dict[str, Callable[[Family, Targets, Tensor], Tensor]] = {
    "toward_real": lambda _, targets, base: targets.real[:, :, 0] - base[:, None],
    "toward_covariance_random": lambda _, targets, base: targets.covariance_random[:, :, 0] - base[:, None],
    "isotropic": lambda _, targets, base: targets.isotropic,
    "real_mixture": lambda _, targets, base: targets.real[:, :, 0] - targets.real[:, :, 1],
    "covariance_mixture": lambda _, targets, base: (
        targets.covariance_random[:, :, 0] - targets.covariance_random[:, :, 1]
    ),
    "principal_component": _principal_component,
    **dict.fromkeys(("decoder_active", "decoder_inactive", "decoder_dead"), _decoder),
    "reconstruction_error": _reconstruction_error,
    "cluster_difference": _cluster_difference,
    "probe": _probe,
}


def cosine_minus_deviation(path: Path, base: Tensor, direction: Tensor, mean: Tensor | ArrayLike) -> Tensor:
    """Say how much a direction undoes the base's deviation from the mean: its cosine with -(x - mu).

    On the sphere both vectors count only by their components orthogonal to the base. Where there is none (a mean that
    is zero or parallel to the base) the cosine is NaN.

    Parameters
    ----------
    base : Tensor of shape (prompt, d_model)
    direction : Tensor of shape (prompt, draw, d_model)
    mean : of shape (d_model,)

    Returns
    -------
    Tensor of shape (prompt, draw)
    """
    x = base[:, None]
    mu = torch.as_tensor(mean, dtype=base.dtype, device=base.device)
    deviation = path.component(x, x - mu)
    used = path.component(x, direction)
    length = deviation.norm(dim=-1)
    cosine = -(used * deviation).sum(-1) / (used.norm(dim=-1) * length)
    rounding = 8 * torch.finfo(base.dtype).eps * (x.norm(dim=-1) + mu.norm())
    return cosine.masked_fill(length <= rounding, torch.nan)
