"""Is a direction a local optimum of sensitivity? Threshold angles over triangles of directions.

Source: Heimersheim (2024), sensitivity optima: directions between a real and two random targets, on the sphere, beside
directions between three random ones. The triangles of mixtures, which do not contain the base, are ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from actspace.perturbations.curves import POSITIONS_AT_ONCE
from actspace.perturbations.directions import Targets, cosine_minus_deviation, directions
from actspace.perturbations.optima_statistics import CORNERS, KINDS, SETTING, WEIGHTS
from actspace.perturbations.setting import Setting
from actspace.perturbations.starts import SPHERE, Start, starts


def barycentric(resolution: int) -> Tensor:
    """Return the points of a triangular grid: all weights that are multiples of 1/resolution and sum to 1.

    Returns
    -------
    float64 Tensor of shape ((resolution + 1)(resolution + 2) / 2, 3)
        From the first corner, (1, 0, 0), to the last, (0, 0, 1).
    """
    steps = range(resolution, -1, -1)
    points = [(a, b, resolution - a - b) for a in steps for b in steps if a + b <= resolution]
    return torch.tensor(points, dtype=torch.float64) / resolution


def triangles(kind: str, targets: Targets, base: Tensor, weights: Tensor) -> dict[str, Tensor]:
    """Build the directions of both triangles of a kind; they share their second and third corner.

    With corner targets t and weights w the direction is sum(w t) - x towards targets, and sum(w (t - t')) for mixtures.

    Parameters
    ----------
    targets : Targets
        Three draws for each triangle, as `draw_targets` gives them.
    base : float64 Tensor of shape (prompt, d_model)
    weights : float64 Tensor of shape (point, 3)

    Returns
    -------
    dict from `three_random` and `real_and_two_random` to float64 Tensor of shape (prompt, draw, point, d_model)
    """
    # The weights sum to one: interpolating t - x is interpolating t and then taking the base away.
    real, random = (directions(family, targets, base).unflatten(1, (-1, 3)) for family in KINDS[kind])
    corners = (random, torch.cat([real[:, :, :1], random[:, :, 1:]], 2))
    return {name: torch.einsum("wc,pdcm->pdwm", weights, corner) for name, corner in zip(CORNERS, corners, strict=True)}


def run_triangles(
    setting: Setting,
    cfg: Mapping[str, Any],
    seed: int,
    progress: Callable[[int], None] = lambda _prompts: None,
) -> pd.DataFrame:
    """Find the threshold angle of every direction of the triangles, on the sphere from real activations.

    All kinds and both sets of corners of a prompt share their draws, which depend on the seed and its number alone.

    Parameters
    ----------
    cfg : mapping
        `experiment` and `weights` (labels); `kinds` (of `toward`, `mixture`); `n_prompts`; `draws` (triangles per
        prompt, kind and set of corners); `resolution` (of the triangles); `steps` (positions on the path, with both
        ends); `thresholds_nats` (list).
    progress : callable
        Told how many prompts are done.

    Returns
    -------
    DataFrame
        One row per direction and threshold: experiment, site, weights, kind, corners, prompt, draw, weight_a, weight_b,
        weight_c, threshold_nats, crossing_deg (+inf where the path stays under the threshold), cosine_minus_deviation.

    Raises
    ------
    StudyError
        If there are too few prompts or documents, the grid is too coarse, or a direction has no path.
    """
    labels = {"experiment": cfg["experiment"], "site": setting.engine.site, "weights": cfg["weights"]}
    points = barycentric(cfg["resolution"])
    rows = len(cfg["kinds"]) * len(CORNERS) * cfg["draws"] * len(points) * POSITIONS_AT_ONCE
    tables = []
    for start in starts(setting, cfg["n_prompts"], 3 * cfg["draws"], seed, rows):
        found = {kind: triangles(kind, start.targets, start.bases, points) for kind in cfg["kinds"]}
        stacked = torch.stack([found[kind][name] for kind in cfg["kinds"] for name in CORNERS], 1)
        tables.append(_table(start, stacked, cfg, points, setting.activations.mean).assign(**labels))
        progress(len(start.numbers))
    table = pd.concat(tables, ignore_index=True)
    keys = [*SETTING, "kind", "corners", "prompt", "draw", *WEIGHTS, "threshold_nats"]
    return table[[*keys, "crossing_deg", "cosine_minus_deviation"]].astype(dict.fromkeys(SETTING, "category"))


def _table(start: Start, stacked: Tensor, cfg: Mapping[str, Any], points: Tensor, mean: NDArray) -> pd.DataFrame:
    """Measure directions (prompt, kind and corners, draw, point, d_model) and lay them out, one per row."""
    axes = [start.numbers, cfg["kinds"], CORNERS, range(stacked.shape[2]), range(len(points))]
    index = pd.MultiIndex.from_product(axes, names=["prompt", "kind", "corners", "draw", "point"])
    rows = index.to_frame(index=False)
    rows[WEIGHTS] = points.numpy()[rows.pop("point")]
    cosine = cosine_minus_deviation(SPHERE, start.bases, stacked.flatten(1, -2), mean)
    rows["cosine_minus_deviation"] = cosine.numpy().ravel()
    crossings = {level: start.crossings(stacked, cfg["steps"], level) for level in cfg["thresholds_nats"]}
    return pd.concat(
        rows.assign(threshold_nats=level, crossing_deg=found.numpy().ravel()) for level, found in crossings.items()
    )
