"""The plane through three real activations: how the output changes all over it, seen from the first of them.

Source: Heimersheim (2024), the picture that motivates plateaus; there with a KL divergence that its author calls wrongly
normalised, here in nats."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from actspace.errors import StudyError
from actspace.models import to_gauge
from actspace.perturbations.plane_statistics import CORNERS, SETTING
from actspace.perturbations.setting import Setting
from actspace.perturbations.starts import Start, starts

MARGIN = 0.5
"""How far a window reaches beyond the three activations on every side, over their spread."""


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
