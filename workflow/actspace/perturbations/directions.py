"""Directions of perturbation. `toward` ones contain minus the base; mixtures of two targets are free of it.

Source: Heimersheim (2024) for directions towards an activation; Lee & Heimersheim (2024) for mixtures, which remove the
artefact that a direction towards any activation also undoes the base's own deviation from the mean."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from actspace.errors import StudyError
from actspace.perturbations.bases import Array, Gaussian, isotropic
from actspace.perturbations.paths import Path
from actspace.seeds import rng_for

DIRECTIONS = ("toward_real", "toward_covariance_random", "isotropic", "real_mixture", "covariance_mixture")


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


def draw_targets(
    pool: Pool,
    gaussian: Gaussian,
    documents: Iterable[object],
    draws: int,
    gauge: str,
    seed: int,
    first: int = 0,
) -> Targets:
    """Draw the targets of some prompts, float64 on the CPU.

    Parameters
    ----------
    documents : iterable of length prompt
        Document of each prompt: none of its targets comes from there.
    first : int
        Number of the first of these prompts. A prompt's draws depend on its number alone, and not on the batch.
    """
    real, random, plain = [], [], []
    d_model = pool.activations.shape[1]
    for number, document in enumerate(documents, start=first):
        real.append(pool.activations[pool.pairs(rng_for(seed, "targets", "real", number), document, draws)])
        sampled = gaussian.sample(rng_for(seed, "targets", "covariance_random", number), 2 * draws)
        random.append(sampled.reshape(draws, 2, d_model))
        plain.append(isotropic(rng_for(seed, "targets", "isotropic", number), draws, d_model, gauge))
    return Targets(*(torch.from_numpy(np.stack(part).astype(np.float64, copy=False)) for part in (real, random, plain)))


def directions(family: str, targets: Targets, base: Tensor) -> Tensor:
    """Build the directions of one family.

    With targets t, t1 and t2 and the base x: `toward_*` is t - x, `*_mixture` is t1 - t2, `isotropic` a standard normal
    vector as it is.

    Parameters
    ----------
    base : float64 Tensor of shape (prompt, d_model)

    Returns
    -------
    float64 Tensor of shape (prompt, draw, d_model)
    """
    if family == "toward_real":
        return targets.real[:, :, 0] - base[:, None]
    if family == "toward_covariance_random":
        return targets.covariance_random[:, :, 0] - base[:, None]
    if family == "real_mixture":
        return targets.real[:, :, 0] - targets.real[:, :, 1]
    if family == "covariance_mixture":
        return targets.covariance_random[:, :, 0] - targets.covariance_random[:, :, 1]
    if family == "isotropic":
        return targets.isotropic
    raise StudyError(f"directions: '{family}' is unknown; use one of {', '.join(DIRECTIONS)}")


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
