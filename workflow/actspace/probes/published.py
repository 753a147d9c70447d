"""Probes as papers train them: bias-free logistic regression and CCS by AdamW, and TTPD.

Source: Marks & Tegmark, The Geometry of Truth (2023), whose optimiser and settings these are; Burns et al., Discovering
Latent Knowledge (2022), for CCS; Bürger et al., Truth is Universal (2024), for TTPD.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from actspace.probes.linear import UNPENALISED, Array, LinearProbe, both_labels, centred_rows, logistic_regression

LEARNING_RATE, WEIGHT_DECAY, EPOCHS = 1e-3, 0.1, 1000


def logistic_regression_adamw(X: NDArray, y: NDArray, rng: np.random.Generator, *, centre: bool = True) -> LinearProbe:
    """Train logistic regression without a bias by 1000 full-batch steps of AdamW, as the Geometry of Truth does.

    Neither converged nor free of the scale: with a decay of 0.1 and so few steps it is another probe than the optimum
    of `linear.logistic_regression`. AdamW steps along coordinates, so X must not be those of a `Frame`.

    Parameters
    ----------
    X : float (row, d_model)
    y : (row,) of 0 and 1
    rng : draws the initial direction, uniform between -1 and 1 over sqrt(d_model)
    centre : whether the mean of the rows is taken off first
    """
    both_labels(y)
    rows, shift = _shifted(X, centre)
    inputs, labels = _float32(rows), _float32(y)

    def loss(weight: Tensor) -> Tensor:
        return torch.nn.functional.binary_cross_entropy_with_logits(inputs @ weight, labels)

    direction = _adamw(loss, rows, rng)
    return LinearProbe(direction, float(-direction @ shift), "logistic_regression_adamw")


def ccs(X: NDArray, negated: NDArray, y: NDArray, rng: np.random.Generator, *, centre: bool = True) -> LinearProbe:
    """Find a direction that is consistent on statements and their negations, and confident: no label is used but one.

    Minimises the mean of (p(x+) - (1 - p(x-)))^2 + min(p(x+), p(x-))^2 without a bias, with the optimiser of
    `logistic_regression_adamw`. Labels tell only which sign means true. Centred, statements and negations each lose
    their own mean: else the word "not" would be the easiest answer.

    Parameters
    ----------
    X, negated : float (pair, d_model)
        Statements and their negations.
    y : (pair,) of 0 and 1
        Labels of the statements; their negations have the opposite ones.
    rng : draws the initial direction
    centre : whether means are taken off first
    """
    (rows, shift), (opposite, other) = _shifted(X, centre), _shifted(negated, centre)
    positive, negative = _float32(rows), _float32(opposite)

    def loss(weight: Tensor) -> Tensor:
        p, q = torch.sigmoid(positive @ weight), torch.sigmoid(negative @ weight)
        return ((p - (1 - q)) ** 2 + torch.minimum(p, q) ** 2).mean()

    direction = _adamw(loss, np.vstack([rows, opposite]), rng)
    right = np.concatenate([(rows @ direction > 0) == (y == 1), (opposite @ direction > 0) == (y == 0)])
    direction = direction if right.mean() >= 0.5 else -direction
    return LinearProbe(direction, float(-direction @ (shift + other) / 2), "ccs")


def _adamw(loss: Callable[[Tensor], Tensor], rows: Array, rng: np.random.Generator) -> Array:
    """Minimise a loss of a direction (d_model,) as the paper does; rows that are all zero give the zero direction."""
    bound = rows.shape[1] ** -0.5
    weight = _float32(rng.uniform(-bound, bound, rows.shape[1])).requires_grad_()
    if not np.ptp(rows, axis=0).any():
        return np.zeros(rows.shape[1])
    optimiser = torch.optim.AdamW([weight], lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)
    for _ in range(EPOCHS):
        optimiser.zero_grad()
        loss(weight).backward()
        optimiser.step()
    return weight.detach().double().numpy()


def _shifted(X: NDArray, centre: bool) -> tuple[Array, Array]:
    """Return rows less their mean and that mean, or the rows and zeros."""
    if centre:
        return centred_rows(X)
    return np.asarray(X, dtype=np.float64), np.zeros(np.shape(X)[1])


def _float32(values: NDArray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))


def ttpd(
    X: NDArray,
    y: NDArray,
    polarity: NDArray,
    sets: NDArray,
    *,
    C: float = 1.0,
    tolerance: float = 1e-6,
    d_model: int | None = None,
    centre: bool = True,
) -> LinearProbe:
    """Train on the truth and polarity directions: what is common to affirmative and negated statements, and what is not.

    Least squares of the activations, each set less its own mean, on [tau, tau p] (truth tau and polarity p, both +-1)
    give the general truth direction t_G = ((D'D)^-1 D'A)_1. The polarity direction is that of logistic regression of p.
    Logistic regression on the two projections, hardly penalised, is the probe. The polarity is penalised with the C of
    the study: the paper's fit has no penalty, and then no optimum where polarities can be told apart.

    Parameters
    ----------
    X : float (row, d_model), or coordinates of a `Frame`
    y : (row,) of 0 and 1
    polarity : (row,) of 1 (affirmative) and -1 (negated), both of them
    sets : (row,) the set of each row
    C, tolerance, d_model : of the logistic regressions, as for `linear.logistic_regression`
    centre : whether sets lose their mean before the least squares
    """
    truth = 2.0 * np.asarray(y) - 1
    rows = np.array(X, dtype=np.float64)
    for name in np.unique(sets) if centre else []:
        rows[sets == name] = centred_rows(rows[sets == name])[0]
    design = np.stack([truth, truth * polarity], axis=1)
    general = np.linalg.lstsq(design, rows, rcond=None)[0][0]
    affirmative = (np.asarray(polarity) > 0).astype(int)
    polar = logistic_regression(X, affirmative, C=C, tolerance=tolerance, d_model=d_model).direction
    plane = np.stack([_unit(general), _unit(polar)], axis=1)
    final = logistic_regression(X @ plane, y, C=UNPENALISED, tolerance=tolerance)
    return LinearProbe(plane @ final.direction, final.bias, "ttpd")


def _unit(direction: Array) -> Array:
    norm = np.linalg.norm(direction)
    return direction / norm if norm > 0 else direction
