"""Statistics of sensitivity optima: does a direction cross before its neighbours? Intervals resample prompts.

Crossings may be infinite, so only order statistics and shares of comparisons won are taken of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from actspace.perturbations.statistics import Array, Statistic, interval, mean, median, resample

KINDS = {
    "toward": ("toward_real", "toward_covariance_random"),
    "mixture": ("real_mixture", "covariance_mixture"),
}
"""Families of directions at the real and at the covariance-random corners of each kind of triangle."""
CORNERS = ("three_random", "real_and_two_random")
SETTING = ["experiment", "site", "weights"]
WEIGHTS = ["weight_a", "weight_b", "weight_c"]
THREE_RANDOM, WITH_REAL = CORNERS
LABELS = [*SETTING, "threshold_nats", "kind", "corners", "direction", "statistic", "dimension"]
PARTS = ("corner", "neighbours", "centre")
SHARES = ("corner_before_neighbours", "direction_before_step")


def wins(a: Array, b: Array) -> Array:
    """Return 1 where a crosses before b, 1/2 where they tie (both never, too) and 0 elsewhere; they broadcast."""
    return (a < b) + 0.5 * (a == b)


def unanimous(found: Mapping[str, float], n_prompts: int) -> dict[str, float]:
    """Widen the interval of a share of 0 or 1, at which all prompts agree: resampling them cannot tell how sure that is.

    The open end becomes the exact 95% bound of a share of none, or all, of n independent prompts (Clopper & Pearson,
    1934): with 5 of 5, the true share may be 0.48.
    """
    bound = 0.025 ** (1 / n_prompts)
    widened = {0.0: {"high": 1 - bound}, 1.0: {"low": bound}}
    return dict(found) | widened.get(found["value"], {})


def places(weights: NDArray, corner: int) -> dict[str, NDArray[np.int64]]:
    """Say which points of a triangle are one corner, its two nearest neighbours on the edges, and the centre.

    Parameters
    ----------
    weights : array of shape (point, 3)
        A triangular grid, as `optima.barycentric` gives it.
    corner : 0, 1 or 2

    Returns
    -------
    dict from `corner`, `neighbours` and `centre` to indices of points
        The centre is the point, or the points, of the grid nearest to (1/3, 1/3, 1/3).
    """
    own = weights[:, corner]
    second = np.unique(own)[-2]
    off = np.abs(weights - 1 / 3).max(1).round(9)
    chosen = {"corner": own == 1, "neighbours": own == second, "centre": off == off.min()}
    return {name: np.flatnonzero(points) for name, points in chosen.items()}


def optima_statistics(triangles: pd.DataFrame, subspaces: pd.DataFrame, seed: int, n_boot: int = 1000) -> pd.DataFrame:
    """Summarise triangles and subspaces, with 95% bootstrap intervals over prompts.

    Parameters
    ----------
    triangles, subspaces : DataFrame
        As `run_triangles` and `run_subspaces` give them, of one or more experiments; `subspaces` may be empty.

    Returns
    -------
    DataFrame
        experiment, site, weights, threshold_nats, kind, corners, direction, statistic, dimension, value, low, high,
        n_prompts, n_directions. `direction` is the family at the corner, or in the subspace.
        Of triangles: corner_before_neighbours (share of comparisons in which a corner crosses before its two nearest
        neighbours on the edges, ties half); median_crossing_at_corner, _neighbours and _centre, in degrees;
        mean_cosine_at_corner, _neighbours and _centre (with minus the base's deviation); excess_over_random_corner
        (corner_before_neighbours of the real corner minus that of random corners, paired by prompt). The corner is the
        real one, and each of the three where all are random.
        Shares on which all prompts agree have exact binomial bounds.
        Of subspaces: direction_before_step for each dimension (share in which a direction crosses before the one that
        is a step downhill, ties half), and median_crossing_at_direction, _after_step.
    """
    rows = [
        *_of_triangles(triangles, seed, n_boot),
        *(_of_subspaces(subspaces, seed, n_boot) if len(subspaces) else []),
    ]
    table = pd.DataFrame(rows)
    return table[[*LABELS, "value", "low", "high", "n_prompts", "n_directions"]].astype({"dimension": "Int64"})


def triangle_medians(triangles: pd.DataFrame) -> pd.DataFrame:
    """Take the median crossing of each direction of the triangles over prompts and draws; it may be infinite.

    Returns
    -------
    DataFrame
        experiment, site, weights, threshold_nats, kind, corners, weight_a, weight_b, weight_c, crossing_deg.
    """
    keys = [*SETTING, "threshold_nats", "kind", "corners", *WEIGHTS]
    groups = triangles.groupby(keys, observed=True, sort=False)["crossing_deg"]
    medians = groups.agg(lambda values: np.quantile(values, 0.5, method="inverted_cdf"))
    return medians.reset_index()


def _of_triangles(table: pd.DataFrame, seed: int, n_boot: int) -> Iterator[dict[str, Any]]:
    """Yield the statistics of each kind and set of corners, and those of the two sets against each other."""
    keys = [*SETTING, "threshold_nats", "kind"]
    for key, rows in table.groupby(keys, observed=True, sort=False):
        setting = dict(zip(keys, key, strict=True))
        counts = resample(rows["prompt"].nunique(), n_boot, seed)
        won = {}
        for name, some in rows.groupby("corners", observed=True, sort=False):
            labels = setting | {"corners": name, "direction": KINDS[setting["kind"]][name == THREE_RANDOM]}
            measured = _at_places(some, 3 if name == THREE_RANDOM else 1)
            won[name] = wins(measured["crossing_deg"]["corner"], measured["crossing_deg"]["neighbours"])
            yield _row(labels, "corner_before_neighbours", won[name], counts)
            for part in PARTS:
                yield _row(labels, f"median_crossing_at_{part}", measured["crossing_deg"][part], counts, median)
                yield _row(labels, f"mean_cosine_at_{part}", measured["cosine_minus_deviation"][part], counts)
        if len(won) == len(CORNERS):
            excess = (won[WITH_REAL].mean(1) - won[THREE_RANDOM].mean(1))[:, None]
            labels = setting | {"corners": WITH_REAL, "direction": KINDS[setting["kind"]][0]}
            row = _row(labels, "excess_over_random_corner", excess, counts)
            yield row | {"n_directions": won[WITH_REAL].shape[0] * won[WITH_REAL].shape[1]}


def _at_places(rows: pd.DataFrame, n_corners: int) -> dict[str, dict[str, Array]]:
    """Return crossings and cosines at the corner, its neighbours and the centre.

    For `corner` each value is repeated beside the two neighbours that it is compared with, so that both have one shape,
    (prompt, draw x corner x neighbour).
    """
    ordered = rows.sort_values(["prompt", "draw", *WEIGHTS], kind="stable")
    one = ordered[(ordered["prompt"] == ordered["prompt"].iloc[0]) & (ordered["draw"] == ordered["draw"].iloc[0])]
    weights, n_prompts = one[WEIGHTS].to_numpy(), rows["prompt"].nunique()
    found = {}
    for column in ("crossing_deg", "cosine_minus_deviation"):
        values = ordered[column].to_numpy(np.float64).reshape(n_prompts, -1, len(weights))
        at = [places(weights, corner) for corner in range(n_corners)]
        parts = {name: values[:, :, np.concatenate([place[name] for place in at])] for name in PARTS}
        parts["corner"] = parts["corner"].repeat(2, -1)
        parts["centre"] = values[:, :, at[0]["centre"]]
        found[column] = {name: part.reshape(n_prompts, -1) for name, part in parts.items()}
    return found


def _of_subspaces(table: pd.DataFrame, seed: int, n_boot: int) -> Iterator[dict[str, Any]]:
    """Yield the statistics of each family and dimension."""
    keys = [*SETTING, "threshold_nats", "kind", "direction", "dimension"]
    ordered = table.sort_values(["prompt", "draw"], kind="stable")
    for key, rows in ordered.groupby(keys, observed=True, sort=False):
        labels = dict(zip(keys, key, strict=True)) | {"corners": None}
        n_prompts = rows["prompt"].nunique()
        before, after = (
            rows[name].to_numpy(np.float64).reshape(n_prompts, -1)
            for name in ("crossing_at_direction_deg", "crossing_after_step_deg")
        )
        counts = resample(n_prompts, n_boot, seed)
        yield _row(labels, "direction_before_step", wins(before, after), counts)
        yield _row(labels, "median_crossing_at_direction", before, counts, median)
        yield _row(labels, "median_crossing_after_step", after, counts, median)


def _row(
    labels: Mapping[str, Any], name: str, values: Array, counts: Array, statistic: Statistic = mean
) -> dict[str, Any]:
    """Apply a statistic to values (prompt, draw)."""
    found = interval(statistic(values, counts))
    if name in SHARES:
        found = unanimous(found, len(values))
    size = {"n_prompts": len(values), "n_directions": values.size}
    return {"dimension": None, **labels, "statistic": name, **found, **size}
