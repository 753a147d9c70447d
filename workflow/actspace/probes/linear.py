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

from actspace.errors import StudyError

Array = NDArray[np.floating]
MAX_ITERATIONS = 20_000
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
    def of(cls, X: NDArray) -> Frame:
        """Find the axes of rows (row, d_model)."""
        centred, mean = _centre(X)
        axes = np.eye(len(mean))
        if len(centred) < len(mean):
            axes, triangle = qr(centred.T, mode="economic", check_finite=False)
            centred = triangle.T
        rotation = eigh(centred.T @ centred, check_finite=False)[1]
        return cls(centred @ rotation, axes @ rotation, mean)

    def back(self, probe: LinearProbe) -> LinearProbe:
        """Express a probe fitted on `coordinates` in activation space."""
        direction = self.axes @ probe.direction
        return replace(probe, direction=direction, bias=float(probe.bias - direction @ self.mean))


def logistic_regression(
    X: NDArray, y: NDArray, *, C: float = 1.0, tolerance: float = 1e-6, d_model: int | None = None
) -> LinearProbe:
    """Fit logistic regression with an L2 penalty and a free bias.

    Minimises |w|^2 / 2 + C * (sum of log-losses) on centred rows divided by their root mean square over all
    coordinates: C means the same in every layer. The optimum is scikit-learn's; the way there is shorter, because
    L-BFGS works on coordinates scaled by their curvature at zero.

    Parameters
    ----------
    X : float (row, d_model)
    y : (row,) of 0 and 1
    C : inverse strength of the penalty
    tolerance : largest entry of the gradient of the mean loss at which to stop
    d_model : dimensions of activation space, if X are coordinates of a `Frame`

    Raises
    ------
    StudyError
        If both labels do not occur, or the optimum is not reached.
    """
    _both_labels(y)
    centred, mean = _centre(X)
    scale = np.sqrt((centred**2).sum() / (len(centred) * (d_model or centred.shape[1])))
    if scale == 0:
        return LinearProbe(np.zeros(len(mean)), _log_odds(y), "logistic_regression")
    weight, bias = _minimise(centred / scale, np.asarray(y, dtype=np.float64), C, tolerance)
    direction = weight / scale
    return LinearProbe(direction, float(bias - direction @ mean), "logistic_regression")


def _minimise(X: Array, y: Array, C: float, tolerance: float) -> tuple[Array, float]:
    """Minimise the mean log-loss plus |w|^2 / (2 C n), the objective above divided by C n."""
    ridge = 1 / (C * len(y))
    unit = 1 / np.sqrt((X**2).mean(axis=0) / 4 + ridge)
    scaled, penalty, sign = X * unit, ridge * unit**2, 2 * y - 1

    def loss_and_gradient(parameters: Array) -> tuple[float, Array]:
        weight, logits = parameters[:-1], scaled @ parameters[:-1] + parameters[-1]
        residual = (expit(logits) - y) / len(y)
        loss = np.logaddexp(0, -sign * logits).mean() + weight @ (penalty * weight) / 2
        return loss, np.append(residual @ scaled + penalty * weight, residual.sum())

    options = {"gtol": tolerance, "ftol": 1e-16, "maxiter": MAX_ITERATIONS, "maxfun": 2 * MAX_ITERATIONS, "maxcor": 20}
    found = minimize(loss_and_gradient, np.zeros(X.shape[1] + 1), jac=True, method="L-BFGS-B", options=options)
    # Status 2, no better point along the line, is where rounding ends the descent.
    if found.status == 1:
        raise StudyError(f"logistic regression did not converge in {found.nit} iterations; lower C (now {C:g})")
    return found.x[:-1] * unit, float(found.x[-1])


def mass_mean(X: NDArray, y: NDArray) -> LinearProbe:
    """Take the difference of the class means as the direction, and the point half-way between them as the threshold.

    X is float (row, d_model), y is (row,) of 0 and 1.
    """
    theta, middle, _ = _class_means(X, y)
    return LinearProbe(theta, float(-theta @ middle), "mass_mean")


def mass_mean_covariance(
    X: NDArray, y: NDArray, *, shrinkage: float | None = None, d_model: int | None = None
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
    return LinearProbe(theta, float(_log_odds(y) - theta @ middle), "mass_mean_covariance", facts)


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
    _both_labels(y)
    centred, mean = _centre(X)
    means = np.stack([centred[y == label].mean(axis=0) for label in (0, 1)])
    return means[1] - means[0], means.mean(axis=0) + mean, centred - means[np.asarray(y, dtype=int)]


def _centre(X: NDArray) -> tuple[Array, Array]:
    """Return rows less their mean, and the mean; rows that differ by rounding alone are exactly zero."""
    rows = np.asarray(X, dtype=np.float64)
    mean = rows.mean(axis=0)
    centred = rows - mean
    # The embedding of the last token, a full stop, is the same for all statements: do not scale up rounding.
    rounding = 16 * np.finfo(np.float64).eps * np.abs(rows).max(initial=0.0)
    constant = np.abs(centred).max(initial=0.0) <= rounding
    return (np.zeros_like(centred), mean) if constant else (centred, mean)


def _both_labels(y: NDArray) -> None:
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
    """Read what `save` wrote."""
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
