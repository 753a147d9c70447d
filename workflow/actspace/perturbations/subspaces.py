"""Is a direction a local optimum of sensitivity in a random subspace? One step downhill, in more and more dimensions.

A triangle tries two directions out of hundreds. Here crossings on both sides of a direction, along each axis of a random
frame, give the gradient of the crossing in that subspace; a direction that still crosses before the one a step downhill
is an optimum there. Ours, prompted by the caveat in Heimersheim (2024)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from actspace.errors import StudyError
from actspace.perturbations.bases import Gaussian
from actspace.perturbations.curves import POSITIONS_AT_ONCE
from actspace.perturbations.directions import directions
from actspace.perturbations.optima_statistics import KINDS, SETTING
from actspace.perturbations.paths import orthogonal
from actspace.perturbations.setting import Setting
from actspace.perturbations.starts import SPHERE, Start, starts
from actspace.seeds import rng_for

COLUMNS = {
    **dict.fromkeys((*SETTING, "kind", "direction"), "str"),
    **dict.fromkeys(("prompt", "draw", "dimension"), "int64"),
    **dict.fromkeys(("threshold_nats", "crossing_at_direction_deg", "crossing_after_step_deg"), "float64"),
}


def orthonormal_frame(base: Tensor, direction: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
    """Make drawn vectors orthonormal one after the other, and orthogonal to the base and to a direction.

    Parameters
    ----------
    base, direction : float64 Tensors of shape (..., d_model)
    drawn : float64 Tensor of shape (..., dimension, d_model)

    Returns
    -------
    centre : Tensor of shape (..., d_model)
        The direction's unit component orthogonal to the base.
    frame : Tensor of shape (..., dimension, d_model)
        Its first k rows depend on the first k of the drawn alone, whatever follows.

    Raises
    ------
    StudyError
        If a direction is parallel to its base, or the drawn vectors do not add one dimension each.
    """
    side = orthogonal(base, direction)
    if not (side.norm(dim=-1) > 1e-6 * direction.norm(dim=-1)).all():
        raise StudyError("subspaces: a direction is zero or parallel to its base; leave this prompt out")
    stacked = torch.cat([torch.stack(torch.broadcast_tensors(base, side), -2), drawn], -2)
    unit = stacked / stacked.norm(dim=-1, keepdim=True)
    q, r = torch.linalg.qr(unit.transpose(-1, -2))
    added = r.diagonal(dim1=-2, dim2=-1).abs()
    if unit.shape[-2] > unit.shape[-1] or not (added > 1e-6).all():
        raise StudyError(f"subspaces: {drawn.shape[-2]} random directions span fewer dimensions; lower `dimensions`")
    return unit[..., 1, :], q.transpose(-1, -2)[..., 2:, :]


def slope(forward: Tensor, backward: Tensor) -> Tensor:
    """Return the difference of the crossings (..., dimension) on both sides of a direction, in degrees.

    A side that never crosses counts as crossing at the path's end; where neither side crosses there is no slope.
    """
    return forward.clamp_max(SPHERE.end) - backward.clamp_max(SPHERE.end)


def turned(centre: Tensor, side: Tensor, angle_deg: float) -> Tensor:
    """Turn unit directions by an angle towards unit directions orthogonal to them. Shapes (..., d_model)."""
    angle = math.radians(angle_deg)
    return math.cos(angle) * centre + math.sin(angle) * side


def step_downhill(centre: Tensor, frame: Tensor, slopes: Tensor, angle_deg: float) -> Tensor:
    """Turn a direction by one step towards earlier crossings; without any slope it stays where it is.

    Parameters
    ----------
    centre : Tensor of shape (..., d_model), of unit length
    frame : Tensor of shape (..., dimension, d_model), orthonormal and orthogonal to `centre`
    slopes : Tensor of shape (..., dimension)

    Returns
    -------
    Tensor of shape (..., d_model), of unit length
    """
    length = slopes.norm(dim=-1, keepdim=True)
    downhill = -torch.einsum("...k,...km->...m", slopes, frame) / torch.where(length > 0, length, 1.0)
    return torch.where(length > 0, turned(centre, downhill, angle_deg), centre)


def run_subspaces(
    setting: Setting,
    cfg: Mapping[str, Any],
    seed: int,
    progress: Callable[[int], None] = lambda _prompts: None,
) -> pd.DataFrame:
    """Compare directions with those one step downhill in random subspaces, on the sphere from real activations.

    The axes are differences of two covariance-random vectors. All families of a prompt share them, and a subspace holds
    every smaller one.

    Parameters
    ----------
    cfg : mapping
        `experiment` and `weights` (labels); `kinds`, `steps` and `thresholds_nats` as for `run_triangles`; and
        `subspaces`, None or a mapping: `n_prompts`, `draws` (directions per prompt and family), `dimensions` (list of
        sizes) and `angle_deg` (of the step, and of the sides that give the gradient).
    progress : callable
        Told how many prompts are done.

    Returns
    -------
    DataFrame
        One row per direction, dimension and threshold: experiment, site, weights, kind, direction, prompt, draw,
        dimension, threshold_nats, crossing_at_direction_deg, crossing_after_step_deg; +inf where there is none. Without
        rows if `subspaces` is None.

    Raises
    ------
    StudyError
        If there are too few prompts or documents, or the activations vary in too few dimensions.
    """
    if (own := cfg["subspaces"]) is None:
        return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in COLUMNS.items()})
    labels = {"experiment": cfg["experiment"], "site": setting.engine.site, "weights": cfg["weights"]}
    families = [(kind, family) for kind in cfg["kinds"] for family in KINDS[kind]]
    largest = max(own["dimensions"])
    rows = len(families) * own["draws"] * (1 + 2 * largest) * POSITIONS_AT_ONCE
    tables = []
    for start in starts(setting, own["n_prompts"], own["draws"], seed, rows):
        built = torch.stack([directions(family, start.targets, start.bases) for _, family in families], 1)
        drawn = _axes(setting.activations.gaussian, start.numbers, own["draws"], largest, seed)
        drawn = drawn[:, None].expand(-1, len(families), -1, -1, -1)
        centre, frame = orthonormal_frame(start.bases[:, None, None], built, drawn)
        for level in cfg["thresholds_nats"]:
            before, after = _before_and_after(start, centre, frame, cfg, level)
            tables.append(_table(start, families, own, before, after).assign(**labels, threshold_nats=level))
        progress(len(start.numbers))
    return pd.concat(tables, ignore_index=True)[list(COLUMNS)].astype(COLUMNS)


def n_prompts(cfg: Mapping[str, Any]) -> int:
    """Count the prompts of which subspaces are tried."""
    return cfg["subspaces"]["n_prompts"] if cfg["subspaces"] else 0


def _axes(gaussian: Gaussian, numbers: NDArray, draws: int, dimension: int, seed: int) -> Tensor:
    """Draw covariance-random mixtures (prompt, draw, dimension, d_model)."""
    drawn = []
    for number in numbers:
        pairs = gaussian.sample(rng_for(seed, "subspaces", int(number)), 2 * draws * dimension)
        pairs = pairs.reshape(draws, dimension, 2, -1)
        drawn.append(pairs[:, :, 0] - pairs[:, :, 1])
    return torch.from_numpy(np.stack(drawn))


def _before_and_after(
    start: Start, centre: Tensor, frame: Tensor, cfg: Mapping[str, Any], threshold_nats: float
) -> tuple[Tensor, Tensor]:
    """Find crossings at directions (prompt, family, draw), and after a step in each dimension (..., dimension)."""
    angle, dimensions, n_axes = cfg["subspaces"]["angle_deg"], cfg["subspaces"]["dimensions"], frame.shape[-2]
    middle = centre[..., None, :]
    around = torch.cat([middle, turned(middle, frame, angle), turned(middle, -frame, angle)], -2)
    found = start.crossings(around, cfg["steps"], threshold_nats)
    slopes = slope(found[..., 1 : 1 + n_axes], found[..., 1 + n_axes :])
    steps = [step_downhill(centre, frame[..., :k, :], slopes[..., :k], angle) for k in dimensions]
    return found[..., 0], start.crossings(torch.stack(steps, -2), cfg["steps"], threshold_nats)


def _table(
    start: Start, families: list[tuple[str, str]], own: Mapping[str, Any], before: Tensor, after: Tensor
) -> pd.DataFrame:
    """Lay the crossings of one threshold out, one row per direction and dimension."""
    axes = [start.numbers, range(len(families)), range(own["draws"]), own["dimensions"]]
    index = pd.MultiIndex.from_product(axes, names=["prompt", "family", "draw", "dimension"])
    rows = index.to_frame(index=False)
    rows[["kind", "direction"]] = np.array(families)[rows.pop("family")]
    return rows.assign(
        crossing_at_direction_deg=before[..., None].expand_as(after).numpy().ravel(),
        crossing_after_step_deg=after.numpy().ravel(),
    )
