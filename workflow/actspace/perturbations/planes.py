"""The plane through three real activations: how the output changes all over it, seen from the first of them.

Source: Heimersheim (2024), the picture that motivates plateaus; there with a KL divergence that its author calls wrongly
normalised, here in nats."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from actspace.errors import StudyError
from actspace.models import to_gauge
from actspace.perturbations.setting import Setting
from actspace.perturbations.starts import Start, starts
from actspace.perturbations.statistics import Array, interval, mean, resample

SETTING = ["experiment", "site", "weights", "read_hook"]
CORNERS = ("base", "first_other", "second_other")
MARGIN = 0.5
"""How far a window reaches beyond the three activations on every side, over their spread."""
NEIGHBOURHOOD = 0.25
"""Radius of the neighbourhood of a point, over the mean distance between the three activations."""


def plane_axes(corners: Tensor) -> Tensor:
    """Return orthonormal axes of the plane through three points: from the first to the second, and across.

    Parameters
    ----------
    corners : float64 Tensor of shape (3, d_model)

    Returns
    -------
    float64 Tensor of shape (2, d_model)

    Raises
    ------
    StudyError
        If the three points lie on a line.
    """
    sides = corners[1:] - corners[0]
    along = sides[0] / sides[0].norm()
    across = sides[1] - (sides[1] @ along) * along
    if not across.norm() > 1e-6 * sides[1].norm():  # NaN where the first two points are one
        raise StudyError("planes: three activations lie on a line; leave this prompt out or use more text")
    return torch.stack([along, across / across.norm()])


def window(coordinates: Tensor, resolution: int) -> Tensor:
    """Lay a grid over three points of a plane, with a margin of half their spread on every side.

    Parameters
    ----------
    coordinates : float64 Tensor of shape (3, 2)

    Returns
    -------
    float64 Tensor of shape (resolution ** 2, 2)
        x changes fastest.
    """
    low, high = coordinates.amin(0), coordinates.amax(0)
    margin = MARGIN * (high - low)
    ends = zip((low - margin).tolist(), (high + margin).tolist(), strict=True)
    x, y = (torch.linspace(*end, resolution, dtype=torch.float64) for end in ends)
    return torch.cartesian_prod(y, x).flip(-1)


def run_planes(
    setting: Setting,
    cfg: Mapping[str, Any],
    seed: int,
    progress: Callable[[int], None] = lambda _prompts: None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Measure the output over the plane through each prompt's activation and two real ones of other documents.

    Every point takes the place of the first prompt's activation, in its context.

    Parameters
    ----------
    cfg : mapping
        `experiment` and `weights` (labels); `n_prompts`; `resolution` (points along each side of the grid).
    progress : callable
        Told how many prompts are done.

    Returns
    -------
    planes : DataFrame
        One row per point: experiment, site, weights, read_hook, prompt, x, y, kl_base_pert_nats, l2_late. Coordinates
        are distances in activation space, from the base; x towards the first other activation.
    corners : DataFrame
        One row per activation: the same columns and `corner`, one of base, first_other, second_other.

    Raises
    ------
    StudyError
        If there are too few prompts or documents, or three activations lie on a line.
    """
    labels = {"experiment": cfg["experiment"], "site": setting.engine.site, "weights": cfg["weights"]}
    labels["read_hook"] = setting.engine.read_hook
    planes, corners = [], []
    # A plane fills launches of its own: one prompt at a time.
    for start in starts(setting, cfg["n_prompts"], 1, seed, setting.engine.rows_per_launch):
        table = _plane(start, cfg["resolution"]).assign(**labels, prompt=int(start.numbers[0]))
        planes.append(table[table["corner"].isna()].drop(columns="corner"))
        corners.append(table[table["corner"].notna()])
        progress(1)
    return _ordered(planes), _ordered(corners)


def _plane(start: Start, resolution: int) -> pd.DataFrame:
    """Measure the plane of one prompt: the three activations, then the grid."""
    activations = torch.cat([start.bases, to_gauge(start.targets.real[0, 0], start.engine.gauge)])
    axes = plane_axes(activations)
    named = (activations - start.bases) @ axes.T
    points = torch.cat([named, window(named, resolution)])
    out = start.engine.measure(start.prompts, start.reference, (start.bases + points @ axes)[None])
    return pd.DataFrame(
        {
            "corner": [*CORNERS, *[None] * resolution**2],
            "x": points[:, 0].numpy(),
            "y": points[:, 1].numpy(),
            "kl_base_pert_nats": out.kl_base_pert_nats[0].cpu().numpy(),
            "l2_late": out.l2_late[0].cpu().numpy(),
        }
    )


def _ordered(parts: list[pd.DataFrame]) -> pd.DataFrame:
    """Put the planes under each other; labels become categories."""
    table = pd.concat(parts, ignore_index=True)
    columns = [*SETTING, "prompt", "corner", "x", "y", "kl_base_pert_nats", "l2_late"]
    return table[[name for name in columns if name in table]].astype(dict.fromkeys(SETTING, "category"))


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
