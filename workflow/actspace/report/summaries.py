"""Summary tables behind the figures: everything that a plot shows and that is not a row of a result table already."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from actspace.hooks import layer_of

FAMILY_KEYS = ["experiment", "site", "weights", "base", "direction", "path"]
READOUTS = ("kl_base_pert_nats", "sqrt_2kl", "l2_late", "cosine_late", "local_sqrt_2kl", "local_l2")
BINS = 15
"""Bins of a histogram of crossings, from the base to the end of the path: 12 degrees each on the sphere."""


def groups(table: pd.DataFrame, *columns: str) -> Iterator[tuple[Any, pd.DataFrame]]:
    """Yield the rows of each combination of values in some columns, with the value or the tuple of values."""
    yield from table.groupby(columns[0] if len(columns) == 1 else list(columns), sort=False)


def records(table: pd.DataFrame) -> Iterator[Any]:
    """Yield the rows as named tuples."""
    yield from table.itertuples()


def with_readouts(curves: pd.DataFrame) -> pd.DataFrame:
    """Add `sqrt_2kl`, which is linear where the KL divergence is quadratic.

    Rounding can leave a KL of minus 1e-9 at the base; it counts as zero.
    """
    curves = curves.assign(kl_base_pert_nats=curves["kl_base_pert_nats"].clip(lower=0))
    return curves.assign(sqrt_2kl=np.sqrt(2 * curves["kl_base_pert_nats"]))


def curve_summary(curves: pd.DataFrame) -> pd.DataFrame:
    """Give median and quartiles over all curves of a family, step by step.

    Returns
    -------
    DataFrame with the family's keys, step, position (the path's own), readout, median, lower_quartile, upper_quartile,
    n_prompts, n_curves
    """
    steps = with_readouts(curves).groupby([*FAMILY_KEYS, "step"], sort=False)
    counts = steps.agg(position=("position", "first"), n_prompts=("prompt", "nunique"), n_curves=("prompt", "size"))
    parts = []
    for readout in READOUTS:
        quartiles = steps[readout].quantile(np.array([0.25, 0.5, 0.75])).unstack()
        quartiles.columns = pd.Index(["lower_quartile", "median", "upper_quartile"])
        parts.append(counts.join(quartiles).assign(readout=readout))
    return pd.concat(parts).reset_index()


def end_sites(table: pd.DataFrame) -> pd.DataFrame:
    """Keep, of each experiment, the rows of its first and its last site by depth."""
    layer = layers(table)
    of_each = layer.groupby(table["experiment"].astype(str))
    return table[(layer == of_each.transform("min")) | (layer == of_each.transform("max"))]


def layers(table: pd.DataFrame) -> pd.Series:
    """Give the number of blocks below each row's site."""
    # No site is the final norm, the one hook point whose depth is that of the model.
    depth = {site: layer_of(str(site), n_layers=0) for site in table["site"].unique()}
    return table["site"].astype(str).map(depth).astype(int)


def crossing_histogram(thresholds: pd.DataFrame) -> pd.DataFrame:
    """Give, for each family, the fraction of curves that first cross the threshold in each of `BINS` equal bins.

    Returns
    -------
    DataFrame with the family's keys, low and high (ends of the bin), fraction (of all curves), end, fraction_never,
    n_curves, n_prompts
    """
    parts = []
    for keys, rows in groups(thresholds, *FAMILY_KEYS):
        crossing, end = rows["crossing"].to_numpy(dtype=float), float(rows["end"].max())
        crossed = crossing[np.isfinite(crossing)]
        counts, edges = np.histogram(crossed, bins=BINS, range=(0, end))
        part = pd.DataFrame({"low": edges[:-1], "high": edges[1:], "fraction": counts / len(rows), "end": end})
        part = part.assign(fraction_never=1 - len(crossed) / len(rows), n_curves=len(rows))
        labels = dict(zip(FAMILY_KEYS, keys, strict=True))
        parts.append(part.assign(n_prompts=rows["prompt"].nunique(), **labels))
    return pd.concat(parts, ignore_index=True)


def crossing_ecdf(thresholds: pd.DataFrame) -> pd.DataFrame:
    """Give, for each family, the fraction of curves that have crossed the threshold by each crossing point.

    A curve that never crosses has an infinite crossing: it counts in the denominator alone.

    Returns
    -------
    DataFrame with the family's keys, crossing, fraction (from 0 at the path's start to the last crossing, then to the
    path's end), end, fraction_never, n_curves, n_prompts
    """
    parts = []
    for keys, rows in groups(thresholds, *FAMILY_KEYS):
        crossed = np.sort(rows["crossing"].to_numpy(dtype=float))
        crossed = crossed[np.isfinite(crossed)]
        n, end = len(rows), float(rows["end"].max())
        points = np.concatenate([[0.0], crossed, [end]])
        heights = np.concatenate([[0.0], np.arange(1, len(crossed) + 1), [len(crossed)]]) / n
        part = pd.DataFrame({"crossing": points, "fraction": heights, "end": end})
        part = part.assign(fraction_never=1 - len(crossed) / n, n_curves=n, n_prompts=rows["prompt"].nunique())
        parts.append(part.assign(**dict(zip(FAMILY_KEYS, keys, strict=True))))
    return pd.concat(parts, ignore_index=True)


def deviation_cosines(thresholds: pd.DataFrame) -> pd.DataFrame:
    """Give the mean cosine of each family's directions with minus the base's deviation from the mean."""
    families = thresholds.groupby(["base", "direction"], sort=False)["cosine_minus_deviation"]
    return families.mean().rename("mean_cosine").reset_index()
