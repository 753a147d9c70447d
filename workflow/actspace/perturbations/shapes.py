"""The shape of one curve in a few numbers: slope, plateau, area, flatness, and what exceeds the local-linear null.

Each takes sizes of an effect, float arrays of shape (..., step) at evenly spaced positions from the base to the end of
the path, and returns shape (...); NaN where nothing has changed at the end. Give sqrt(2 KL) or an L2 distance: KL itself
is quadratic at zero even for a linear model. Sources: methods reference, 3.3; reometry (maximum slope), teren (plateau
score); flatness and excess are ours."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from actspace.errors import StudyError

SETTING = ["experiment", "site", "weights", "path"]
ARM = ["base", "direction"]
CURVE = [*SETTING, *ARM, "prompt", "draw"]
PLATEAU_LEVEL = 0.1
"""A plateau lasts while the effect is at most this fraction of its maximum on the path."""
EXCESS_DECIMALS = 3
"""The excess is given in steps of 0.001. The local slope comes from a step of a hundredth of the base's norm, and in
float32 is no better known: a model that is linear has an excess of 0 then, and not of some rounding error."""
SHAPES = ("max_slope", "plateau_score", "area", "flatness", "excess")
EFFECTS = ("sqrt_2kl", "l2")
Array = NDArray[np.float64]


def max_slope(size: Array) -> Array:
    """Return the steepest step of the curve, scaled to run from 0 to 1 and from 0 to its value at the end: 1 for a line."""
    return np.diff(size, axis=-1).max(-1) * (size.shape[-1] - 1) / _end(size)


def plateau_score(size: Array) -> Array:
    """Return the fraction of the path up to where the curve first exceeds `PLATEAU_LEVEL` of its maximum.

    Interpolated between the positions on both sides, so that the grid does not matter: `PLATEAU_LEVEL` for a line.
    """
    level = PLATEAU_LEVEL * size.max(-1, keepdims=True)
    first = np.maximum((size > level).argmax(-1), 1)[..., None]
    before, after = (np.take_along_axis(size, first - i, -1) for i in (1, 0))
    with np.errstate(invalid="ignore", divide="ignore"):
        within = np.clip((level - before) / (after - before), 0, 1)
    score = (first - 1 + within)[..., 0] / (size.shape[-1] - 1)
    return np.where(np.isnan(_end(size)), np.nan, score)


def area(size: Array) -> Array:
    """Return the area under the curve, scaled as for `max_slope`: 1/2 for a line, less for a plateau."""
    return _mean_height(size) / _end(size)


def excess(size: Array, local: Array) -> Array:
    """Return the share of the area under the curve that its local-linear null does not predict: 1 - null / curve.

    0 for a linear model; up to 1 where the base sits on a plateau, flatter than what follows; below 0 where the effect
    rises at once and saturates. `local` is the null at the same positions. Rounded to `EXCESS_DECIMALS`.
    """
    share = 1 - _mean_height(local) / np.where(np.isnan(_end(size)), np.nan, _mean_height(size))
    return np.round(share, EXCESS_DECIMALS) + 0.0  # no minus zero


def flatness(distance: Array, size: Array) -> Array:
    """Say how slowly an effect starts: its mean slope over the first third of the path, over that of the whole path.

    The slope is taken against the distance from the base, of the same shape as `size`. An effect that is proportional to
    it gives 1 on any path; a plateau gives less than 1, an effect that rises at once and saturates gives more.
    """
    third = round((size.shape[-1] - 1) / 3)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (size[..., third] / distance[..., third]) / (_end(size) / distance[..., -1])


def _end(size: Array) -> Array:
    """Return the size at the end of the path; NaN where nothing has changed there."""
    return np.where(size[..., -1] > 0, size[..., -1], np.nan)


def _mean_height(size: Array) -> Array:
    return np.asarray(np.trapezoid(size, axis=-1) / (size.shape[-1] - 1))


def per_curve(curves: pd.DataFrame) -> pd.DataFrame:
    """Reduce each curve to one row.

    Parameters
    ----------
    curves : DataFrame
        As `experiment.run_experiment` gives them.

    Returns
    -------
    DataFrame
        The keys of the curve, threshold_nats (NaN: no shape has a threshold), kl_at_end (nats), and for each shape s of
        `SHAPES` s_sqrt_2kl and s_l2.

    Raises
    ------
    StudyError
        If curves lack steps or differ in length.
    """
    n_steps = int(curves["step"].max()) + 1
    ordered = curves.sort_values([*CURVE, "step"], kind="stable")
    if len(ordered) % n_steps or (ordered["step"].to_numpy().reshape(-1, n_steps) != np.arange(n_steps)).any():
        raise StudyError("perturbation curves: some curves lack steps; give whole curves of one length")

    def along_path(column: str) -> Array:
        return ordered[column].to_numpy(np.float64).reshape(-1, n_steps)

    kl, distance = along_path("kl_base_pert_nats"), along_path("relative_distance")
    table = ordered[CURVE].iloc[::n_steps].reset_index(drop=True)
    table = table.assign(threshold_nats=np.nan, kl_at_end=kl[:, -1])
    for effect, size in (("sqrt_2kl", np.sqrt(2 * kl)), ("l2", along_path("l2_late"))):
        found = (
            max_slope(size),
            plateau_score(size),
            area(size),
            flatness(distance, size),
            excess(size, along_path(f"local_{effect}")),
        )
        table = table.assign(**{f"{shape}_{effect}": x for shape, x in zip(SHAPES, found, strict=True)})
    return table
