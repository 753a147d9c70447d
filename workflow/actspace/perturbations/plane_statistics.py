"""Statistics of planes through three activations: how steep the output is around them. Intervals resample prompts."""

from __future__ import annotations

import numpy as np
import pandas as pd

from actspace.perturbations.statistics import Array, interval, mean, resample

SETTING = ["experiment", "site", "weights", "read_hook"]
CORNERS = ("base", "first_other", "second_other")
NEIGHBOURHOOD = 0.25
"""Radius of the neighbourhood of a point, over the mean distance between the three activations."""


def as_grid(rows: pd.DataFrame, column: str) -> tuple[Array, Array, Array]:
    """Return x (column,), y (row,) and the values (row, column) of one plane."""
    wide = rows.pivot(index="y", columns="x", values=column)
    return wide.columns.to_numpy(np.float64), wide.index.to_numpy(np.float64), wide.to_numpy(np.float64)


def relative_slopes(plane: pd.DataFrame, corners: pd.DataFrame) -> dict[str, float]:
    """Compare how fast the output changes around each activation with how fast it does halfway to the other two.

    The slope is the length of the gradient of the late L2 distance in the plane, averaged over the points of the grid
    within a quarter of the mean distance between the activations. In a linear model it depends on the direction from the
    base alone, so that around the base the ratio is near 1; an activation on a plateau has less. Away from the base only
    changes of the distance from the base's own output are seen, not all changes.

    Parameters
    ----------
    plane, corners : DataFrame
        Rows of one prompt, as `run_planes` gives them.

    Returns
    -------
    dict from corner to slope around it over slope around the midpoints of its two sides; NaN where a neighbourhood
    holds no point of the grid
    """
    x, y, late = as_grid(plane, "l2_late")
    slope = np.hypot(*np.gradient(late, y, x))
    points = corners.set_index("corner")[["x", "y"]].loc[list(CORNERS)].to_numpy()
    sides = [(points[i] + points[j]) / 2 for i, j in ((0, 1), (0, 2), (1, 2))]
    radius = NEIGHBOURHOOD * np.mean([np.linalg.norm(points[i] - points[j]) for i, j in ((0, 1), (0, 2), (1, 2))])

    def around(*centres: Array) -> float:
        near = [slope[np.hypot(x[None] - c[0], y[:, None] - c[1]) <= radius] for c in centres]
        return float(np.mean([part.mean() if part.size else np.nan for part in near]))

    touching = ((0, 1), (0, 2), (1, 2))
    return {name: around(points[i]) / around(*(sides[side] for side in touching[i])) for i, name in enumerate(CORNERS)}


def plane_statistics(planes: pd.DataFrame, corners: pd.DataFrame, seed: int, n_boot: int = 1000) -> pd.DataFrame:
    """Average the relative slopes of planes, with 95% bootstrap intervals over prompts.

    Returns
    -------
    DataFrame
        experiment, site, weights, read_hook, corner, statistic (relative_slope), value, low, high, n_prompts.
    """
    rows = []
    for key, some in planes.groupby(SETTING, observed=True, sort=False):
        setting = dict(zip(SETTING, key, strict=True))
        own = corners[(corners[SETTING] == pd.Series(setting)).all(axis=1)]
        found = pd.DataFrame(
            [relative_slopes(plane, own[own["prompt"] == prompt]) for prompt, plane in some.groupby("prompt")]
        )
        counts = resample(len(found), n_boot, seed)
        for corner in CORNERS:
            labels = setting | {"corner": corner, "statistic": "relative_slope"}
            values = found[[corner]].to_numpy()
            rows.append(labels | interval(mean(values, counts)) | {"n_prompts": len(found)})
    return pd.DataFrame(rows)
