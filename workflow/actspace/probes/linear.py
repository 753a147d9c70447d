"""Linear probes: a direction and a bias, fitted on labelled activations; a positive score says "true".

Source: Marks & Tegmark, The Geometry of Truth (2023), for mass-mean probes; Ledoit & Wolf (2004) for the shrinkage.

A probe's direction is compared with others by its angle. So data are centred and divided by one number, never each
coordinate by its own: that would turn the direction.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file
from scipy.linalg import cho_factor, cho_solve, eigh, qr
from scipy.optimize import minimize
from scipy.special import expit

from actspace import provenance
from actspace.errors import StudyError

Array = NDArray[np.floating]
MAX_ITERATIONS = 20_000
UNPENALISED = 1e6  # as C: hardly any penalty, yet an optimum where the classes can be told apart
POOLED = "all"
"""In the keys of saved probes, the training set of those fitted on all sets together."""


@dataclass(frozen=True)
class LinearProbe:
    """A direction (d_model,) and a bias in float64; `facts` holds what the fit reports about itself."""

    direction: Array
    bias: float
    name: str
    facts: Mapping[str, float] = field(default_factory=dict)

    def scores(self, X: NDArray) -> Array:
        """Score activations (row, d_model); above 0 the probe says true."""
        return np.asarray(X, dtype=np.float64) @ self.direction + self.bias


@dataclass(frozen=True)
class Frame:
    """Rows in their own principal axes: a shift and a rotation that leave every probe the same and make fits cheap.

    Fewer rows than dimensions span fewer axes, and along principal axes logistic regression needs a tenth of the
    iterations. No label is used, and no axis along which the rows differ is left out.
    """

    coordinates: Array  # (row, axis)
    axes: Array  # (d_model, axis), orthonormal columns
    mean: Array  # (d_model,)

    @classmethod
    def of(cls, X: NDArray, centre: bool = True) -> Frame:
        """Find the axes of rows (row, d_model), about their mean or, not centred, about the origin."""
        centred, mean = centred_rows(X)
        axes = np.eye(len(mean))
        if len(centred) < len(mean):
            spanning = centred if centre else np.vstack([centred, mean])
            axes, triangle = qr(spanning.T, mode="economic", check_finite=False)
            centred = triangle.T[: len(centred)]
        rotation = eigh(centred.T @ centred, check_finite=False)[1]
        axes = axes @ rotation
        if centre:
            return cls(centred @ rotation, axes, mean)
        return cls(centred @ rotation + mean @ axes, axes, np.zeros_like(mean))

    def back(self, probe: LinearProbe) -> LinearProbe:
        """Express a probe fitted on `coordinates` in activation space."""
        direction = self.axes @ probe.direction
        return replace(probe, direction=direction, bias=float(probe.bias - direction @ self.mean))


def logistic_regression(
    X: NDArray,
    y: NDArray,
    *,
    C: float = 1.0,
    tolerance: float = 1e-6,
    d_model: int | None = None,
    bias: bool = True,
    centre: bool = True,
) -> LinearProbe:
    """Fit logistic regression with an L2 penalty and a free bias, or with none.

    Minimises |w|^2 / 2 + C * (sum of log-losses) on rows divided by the root mean square over all coordinates of the
    centred rows: C means the same in every layer. The optimum is scikit-learn's; the way there is shorter, because
    L-BFGS works on coordinates scaled by their curvature at zero.

    Parameters
    ----------
    X : float (row, d_model)
    y : (row,) of 0 and 1
    C : inverse strength of the penalty
    tolerance : largest entry of the gradient of the mean loss at which to stop
    d_model : dimensions of activation space, if X are coordinates of a `Frame`
    bias : whether a bias is fitted; without one the log-odds are 0 where the rows are, at their mean if centred
    centre : whether a fit without bias is one of rows less their mean; with a bias it makes no difference

    Raises
    ------
    StudyError
        If both labels do not occur, or the optimum is not reached.
    """
    both_labels(y)
    name = "logistic_regression" if bias else "logistic_regression_no_bias"
    centred, mean = centred_rows(X)
    scale = np.sqrt((centred**2).sum() / (len(centred) * (d_model or centred.shape[1])))
    if scale == 0:
        return LinearProbe(np.zeros(len(mean)), _log_odds(y) if bias else 0.0, name)
    if not bias and not centre:
        centred, mean = np.asarray(X, dtype=np.float64), np.zeros_like(mean)
    weight, offset = _minimise(centred / scale, np.asarray(y, dtype=np.float64), C, tolerance, bias)
    direction = weight / scale
    return LinearProbe(direction, float(offset - direction @ mean), name)


def platt(scores: NDArray, y: NDArray) -> tuple[float, float]:
    """Return slope and offset that turn scores (row,) into log-odds of the label 1, fitted on the same rows.

    The labels are those of Platt (1999), (n_1 + 1) / (n_1 + 2) and 1 / (n_0 + 2), so that scores which tell all labels
    apart keep a finite slope.
    """
    both_labels(y)
    n_true, n_false = int(np.sum(y == 1)), int(np.sum(y == 0))
    targets = np.where(np.asarray(y) == 1, (n_true + 1) / (n_true + 2), 1 / (n_false + 2))
    centred, mean = centred_rows(np.asarray(scores)[:, None])
    if not (scale := float(np.sqrt((centred**2).mean()))):
        return 0.0, _log_odds(y)
    weight, offset = _minimise(centred / scale, targets, UNPENALISED, 1e-6)
    slope = float(weight[0]) / scale
    return slope, float(offset - slope * mean[0])


def _minimise(X: Array, y: Array, C: float, tolerance: float, bias: bool = True) -> tuple[Array, float]:
    """Minimise the mean log-loss plus |w|^2 / (2 C n), the objective above divided by C n; y is from 0 to 1."""
    ridge = 1 / (C * len(y))
    unit = 1 / np.sqrt((X**2).mean(axis=0) / 4 + ridge)
    scaled, penalty, sign = X * unit, ridge * unit**2, np.where(y < 0.5, -1.0, 1.0)
    doubt = sign * np.minimum(y, 1 - y) / len(y)  # zero for labels of 0 and 1

    def loss_and_gradient(parameters: Array) -> tuple[float, Array]:
        weight, logits = parameters[:-1], scaled @ parameters[:-1] + parameters[-1]
        residual = (expit(logits) - y) / len(y)
        loss = np.logaddexp(0, -sign * logits).mean() + doubt @ logits + weight @ (penalty * weight) / 2
        return loss, np.append(residual @ scaled + penalty * weight, residual.sum() if bias else 0.0)

    options = {"gtol": tolerance, "ftol": 1e-16, "maxiter": MAX_ITERATIONS, "maxfun": 2 * MAX_ITERATIONS, "maxcor": 20}
    found = minimize(loss_and_gradient, np.zeros(X.shape[1] + 1), jac=True, method="L-BFGS-B", options=options)
    # Status 2, no better point along the line, is where rounding ends the descent.
    if found.status == 1:
        raise StudyError(f"logistic regression did not converge in {found.nit} iterations; lower C (now {C:g})")
    return found.x[:-1] * unit, float(found.x[-1])


def mass_mean(X: NDArray, y: NDArray, *, centre: bool = True) -> LinearProbe:
    """Take the difference of the class means as the direction, and the point half-way between them as the threshold.

    X is float (row, d_model), y is (row,) of 0 and 1. Not centred, the threshold is at the origin.
    """
    theta, middle, _ = _class_means(X, y)
    return LinearProbe(theta, float(-theta @ middle) if centre else 0.0, "mass_mean")


def mass_mean_covariance(
    X: NDArray, y: NDArray, *, shrinkage: float | None = None, d_model: int | None = None, centre: bool = True
) -> LinearProbe:
    """Tilt the mass-mean direction by the inverse covariance: discriminant analysis, optimal for Gaussian classes.

    The covariance is the pooled one within classes, divided by the number of rows, and shrunk towards a multiple of the
    identity after Ledoit and Wolf: the same at every scale of the activations, where a pseudo-inverse with an absolute
    tolerance is not.

    Parameters
    ----------
    X : float (row, d_model)
    y : (row,) of 0 and 1
    shrinkage : 0 (none) to 1 (all); without it the one that Ledoit and Wolf estimate
    d_model : dimensions of activation space, if X are coordinates of a `Frame`
    centre : whether the threshold is half-way between the classes, shifted by their log-odds, or at the origin

    Returns
    -------
    LinearProbe with the facts `shrinkage` (0 to 1) and `effective_rank`, the participation ratio tr(S)^2 / tr(S^2) of
    the covariance before shrinking
    """
    theta, middle, within = _class_means(X, y)
    covariance = within.T @ within / len(within)
    estimate, isotropic, rank = ledoit_wolf(within, covariance, d_model or covariance.shape[1])
    shrinkage = estimate if shrinkage is None else shrinkage
    facts = {"shrinkage": shrinkage, "effective_rank": rank}
    if isotropic > 0:
        shrunk = (1 - shrinkage) * covariance
        shrunk.flat[:: len(shrunk) + 1] += shrinkage * isotropic
        theta = _solve(shrunk, theta)
    return LinearProbe(theta, _tilted_bias(theta, middle, y, centre), "mass_mean_covariance", facts)


def mass_mean_pseudo_inverse(X: NDArray, y: NDArray, *, tolerance: float, centre: bool = True) -> LinearProbe:
    """Tilt the mass-mean direction by the pseudo-inverse of the covariance within classes.

    Marks & Tegmark leave out eigenvalues below 1e-3. Here the tolerance is relative to the largest eigenvalue, so that
    the probe is the same at every scale of the activations.

    Parameters
    ----------
    X : float (row, d_model)
    y : (row,) of 0 and 1
    tolerance : eigenvalues up to this fraction of the largest one are left out
    centre : as for `mass_mean_covariance`

    Returns
    -------
    LinearProbe with the facts `rank`, the number of eigenvalues that are kept, and `effective_rank`, as for
    `mass_mean_covariance`
    """
    theta, middle, within = _class_means(X, y)
    covariance = within.T @ within / len(within)
    values, vectors = eigh(covariance, check_finite=False)
    kept = values > max(tolerance, len(values) * np.finfo(values.dtype).eps) * max(values[-1], 0.0)
    facts = {"rank": float(kept.sum()), "effective_rank": _participation(covariance)}
    if kept.any():
        theta = vectors[:, kept] @ (vectors[:, kept].T @ theta / values[kept])
    return LinearProbe(theta, _tilted_bias(theta, middle, y, centre), "mass_mean_pseudo_inverse", facts)


def _tilted_bias(theta: Array, middle: Array, y: NDArray, centre: bool) -> float:
    return float(_log_odds(y) - theta @ middle) if centre else 0.0


def _participation(covariance: Array) -> float:
    """Return tr(S)^2 / tr(S^2), which counts the directions that share the variance; 0 of nothing."""
    squares = float((covariance**2).sum())
    return float(np.trace(covariance)) ** 2 / squares if squares else 0.0


def random_direction(X: NDArray, rng: np.random.Generator, *, centre: bool = True) -> LinearProbe:
    """Draw a direction from the unit sphere, its threshold at the mean of the rows: the baseline of no fit at all.

    X must not be coordinates of a `Frame`, which may span less than the whole space.
    """
    centred, mean = centred_rows(X)
    drawn = rng.standard_normal(len(mean))
    direction = drawn / np.linalg.norm(drawn) if centred.any() else np.zeros_like(drawn)
    return LinearProbe(direction, float(-direction @ mean) if centre else 0.0, "random_direction")


def _log_odds(y: NDArray) -> float:
    return float(np.log(np.sum(y == 1) / np.sum(y == 0)))


def ledoit_wolf(centred: Array, covariance: Array, d_model: int) -> tuple[float, float, float]:
    """Return the shrinkage, the variance per dimension to shrink towards, and the covariance's participation ratio.

    The formula depends on rows through inner products alone, so `centred` (row, axis) may be coordinates in a subspace
    of d_model dimensions.
    """
    trace, squares = float(np.trace(covariance)), float((covariance**2).sum())
    if trace == 0:
        return 0.0, 0.0, 0.0
    distance = squares - trace**2 / d_model
    noise = (float(((centred**2).sum(axis=1) ** 2).mean()) - squares) / len(centred)
    shrinkage = min(noise, distance) / distance if distance > 0 else 1.0
    return max(shrinkage, 0.0), trace / d_model, trace**2 / squares


def _solve(covariance: Array, theta: Array) -> Array:
    try:
        return cho_solve(cho_factor(covariance, check_finite=False), theta, check_finite=False)
    except np.linalg.LinAlgError:  # singular and not shrunk: least squares leaves out what has no variance
        return np.linalg.lstsq(covariance, theta, rcond=None)[0]


def shuffled_labels(
    X: NDArray,
    y: NDArray,
    rng: np.random.Generator,
    *,
    C: float = 1.0,
    tolerance: float = 1e-6,
    d_model: int | None = None,
) -> LinearProbe:
    """Fit logistic regression on labels in random order: the baseline of a probe that knows nothing."""
    probe = logistic_regression(X, rng.permutation(y), C=C, tolerance=tolerance, d_model=d_model)
    return replace(probe, name="shuffled_labels")


def shuffled_logistic_regression(
    X: NDArray, y: NDArray, rng: np.random.Generator, *, C: float = 1.0, tolerance: float = 1e-6
) -> LinearProbe:
    """Fit logistic regression after shuffling each coordinate within each class, which removes covariances.

    For Gaussian classes the direction tends to diag(Sigma)^-1 theta: the mass-mean direction only where all coordinates
    have one variance. It depends on the coordinates, so X must not be those of a `Frame`.
    """
    shuffled = np.array(X, dtype=np.float64)
    for label in (0, 1):
        shuffled[y == label] = rng.permuted(shuffled[y == label], axis=0)
    return replace(logistic_regression(shuffled, y, C=C, tolerance=tolerance), name="shuffled_logistic_regression")


def _class_means(X: NDArray, y: NDArray) -> tuple[Array, Array, Array]:
    """Return the difference of the class means, their middle, and the rows less their class mean."""
    both_labels(y)
    centred, mean = centred_rows(X)
    means = np.stack([centred[y == label].mean(axis=0) for label in (0, 1)])
    return means[1] - means[0], means.mean(axis=0) + mean, centred - means[np.asarray(y, dtype=int)]


def centred_rows(X: NDArray) -> tuple[Array, Array]:
    """Return rows less their mean, and the mean; rows that differ by rounding alone are exactly zero."""
    rows = np.asarray(X, dtype=np.float64)
    mean = rows.mean(axis=0)
    centred = rows - mean
    # The embedding of the last token, a full stop, is the same for all statements: do not scale up rounding.
    rounding = 16 * np.finfo(np.float64).eps * np.abs(rows).max(initial=0.0)
    constant = np.abs(centred).max(initial=0.0) <= rounding
    return (np.zeros_like(centred), mean) if constant else (centred, mean)


def both_labels(y: NDArray) -> None:
    """Raise a StudyError unless labels are 0 and 1, and both occur."""
    found = sorted(set(np.asarray(y).tolist()))
    if found != [0, 1]:
        raise StudyError(f"probes: training labels must be 0 and 1, both of them; found {found}")


def save(path: str | Path, probes: Mapping[str, LinearProbe], metadata: Mapping[str, str] | None = None) -> None:
    """Write probes to safetensors: a direction under its key, its bias under `<key>/bias`, facts in the metadata."""
    tensors = {key: np.ascontiguousarray(probe.direction) for key, probe in probes.items()}
    tensors |= {f"{key}/bias": np.array([probe.bias]) for key, probe in probes.items()}
    about = {key: {"name": probe.name, **probe.facts} for key, probe in probes.items()}
    save_file(tensors, str(path), {**(metadata or {}), "probes": json.dumps(about, sort_keys=True)})


def load(path: str | Path) -> dict[str, LinearProbe]:
    """Read what `save` wrote. Raises StudyError if the file is damaged, or not what its receipt says."""
    provenance.check(path)
    try:
        with safe_open(str(path), framework="numpy") as file:
            about = json.loads(file.metadata()["probes"])
            return {
                key: LinearProbe(
                    file.get_tensor(key), float(file.get_tensor(f"{key}/bias")[0]), facts.pop("name"), facts
                )
                for key, facts in about.items()
            }
    except Exception as error:
        raise StudyError(f"{path}: not a file of probes ({error}); delete it and run again") from None
