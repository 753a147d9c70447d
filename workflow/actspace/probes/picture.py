"""What a picture of statements shows: their activations at one hook in each set's plane of most variance, and probe directions.

Source: Marks & Tegmark, The Geometry of Truth (2023), whose first figure is such a picture.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from actspace.probes.linear import POOLED, Array, Frame, LinearProbe, centred_rows
from actspace.probes.summary import BASELINES

POINT_COLUMNS = ["hook", "layer", "set", "label", "x", "y", "x_share", "y_share"]
DIRECTION_COLUMNS = ["hook", "layer", "set", "train_set", "name", "x", "y"]


def statement_planes(
    hook: str,
    layer: int,
    X: NDArray,
    labels: NDArray,
    sets: NDArray,
    directions: Mapping[str, LinearProbe],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Project the statements of each set on its own two principal components, and directions of probes beside them.

    Parameters
    ----------
    X : float (row, d_model), activations at the hook
    labels, sets : (row,)
    directions : "hook/train_set/probe/split" -> probe

    Returns
    -------
    points : one row per statement, with the shares of its set's variance along both axes
    directions : one row per set and probe that is no baseline: the mean over splits of its unit direction, which is
        shorter than one in the plane by as much as lies outside. It was trained on the set itself, or on all of them
        (`train_set`) where it needs more than one.
    """
    points, arrows = [], []
    for name in dict.fromkeys(sets.tolist()):
        rows, means = np.asarray(X)[sets == name], _means(hook, name, directions)
        frame = Frame.of(rows)
        plane = _signed(frame.axes[:, [-1, -2]])
        variance = (frame.coordinates**2).sum(axis=0)
        shares = variance / variance.sum() if variance.any() else variance
        x, y = (centred_rows(rows)[0] @ plane).T
        about = {"set": name, "label": labels[sets == name], "x_share": shares[-1], "y_share": shares[-2]}
        points.append(pd.DataFrame({"x": x, "y": y}).assign(**about))
        arrows += [(name, train_set, probe, *(mean @ plane)) for probe, (train_set, mean) in means.items()]
    where = {"hook": hook, "layer": layer}
    drawn = pd.DataFrame(arrows, columns=["set", "train_set", "name", "x", "y"]).assign(**where)
    return pd.concat(points, ignore_index=True).assign(**where)[POINT_COLUMNS], drawn[DIRECTION_COLUMNS]


def _signed(axes: Array) -> Array:
    """Turn axes (d_model, axis) round whose largest entry is negative: a decomposition leaves their signs open."""
    largest = np.abs(axes).argmax(axis=0)
    return axes * np.where(axes[largest, range(axes.shape[1])] < 0, -1.0, 1.0)


def _means(hook: str, name: str, directions: Mapping[str, LinearProbe]) -> dict[str, tuple[str, Array]]:
    """Return the training set, and the mean over splits of the unit directions (d_model,), of each probe that has one."""
    found: dict[str, dict[str, list[Array]]] = {}
    for key, probe in directions.items():
        place, train_set, kind, _ = key.rsplit("/", 3)
        norm = np.linalg.norm(probe.direction)
        if place == hook and train_set in (name, POOLED) and norm > 0 and not kind.startswith(BASELINES):
            found.setdefault(kind, {}).setdefault(train_set, []).append(probe.direction / norm)
    chosen = {kind: name if name in units else POOLED for kind, units in found.items()}
    return {kind: (chosen[kind], np.mean(units[chosen[kind]], axis=0)) for kind, units in found.items()}
