"""Statistics of perturbation experiments: medians with censoring, separability, flatness; intervals resample prompts.

A curve that never crosses the threshold has an infinite crossing: it lies above every finite one, and quantiles are
order statistics (the smallest value with at least that share of the curves at or below it), never interpolated, so that
no model of the tail is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from actspace.perturbations.shapes import ARM, CURVE, EFFECTS, SETTING, SHAPES, per_curve
from actspace.seeds import rng_for

SHAPE_COLUMNS = [f"{shape}_{effect}" for shape in SHAPES for effect in EFFECTS]
REPLICATES_AT_ONCE = 100
Array = NDArray[np.float64]
"""Values (prompt, draw) of one arm, and of every prompt as many draws."""
Statistic = Callable[[Array, Array], Array]
"""(values (prompt, draw), counts (sample, prompt)) -> (sample,)"""
Arms = dict[tuple[str, str], Array]
"""Values (prompt, draw) of every arm of a setting, by (base, direction); the arms share their prompts."""
Comparison = Callable[[Arms, Array], Iterator[tuple[str, str, Array]]]
"""(arms, counts (sample, prompt)) -> both names, and the statistic (sample,), of every two arms"""


PUBLISHED_THRESHOLD_NATS = 0.5
"""The KL divergence at which Heimersheim (2024) says that a plateau ends."""


def at_one_threshold(table: pd.DataFrame) -> pd.DataFrame:
    """Keep the rows of one threshold, the published one if it was measured and else the lowest, and those that have none."""
    levels = table["threshold_nats"].dropna().unique()
    if len(levels) < 2:
        return table
    chosen = PUBLISHED_THRESHOLD_NATS if PUBLISHED_THRESHOLD_NATS in levels else levels.min()
    return table[table["threshold_nats"].isna() | (table["threshold_nats"] == chosen)]


def resample(n_prompts: int, n_boot: int, seed: int) -> Array:
    """Draw bootstrap samples of prompts: how often each sample holds each prompt, shape (n_boot + 1, prompt).

    Row 0 is the data as they are. All arms of an experiment use the same samples, since they share their prompts.
    """
    counts = rng_for(seed, "bootstrap", n_prompts).multinomial(n_prompts, np.full(n_prompts, 1 / n_prompts), n_boot)
    return np.vstack([np.ones((1, n_prompts)), counts]).astype(np.float64)


def quantile(values: Array, counts: Array, q: float) -> Array:
    """Return the q-th quantile of values (prompt, draw) in each bootstrap sample (sample, prompt): shape (sample,)."""
    order = np.argsort(values, axis=None, kind="stable")
    ordered, prompt = values.ravel()[order], order // values.shape[1]
    found = []
    for some in np.array_split(counts, max(1, len(counts) // REPLICATES_AT_ONCE)):
        below = some[:, prompt].cumsum(1)
        found.append((below < q * below[:, -1:]).sum(1))  # counts are whole numbers: the comparison is exact enough
    return ordered[np.concatenate(found)]


def median(values: Array, counts: Array) -> Array:
    """Return the median of values (prompt, draw) in each bootstrap sample: shape (sample,)."""
    return quantile(values, counts, 0.5)


def mean(values: Array, counts: Array) -> Array:
    """Return the mean of values (prompt, draw) in each bootstrap sample: shape (sample,)."""
    return counts @ values.mean(1) / counts.sum(1)


def auroc(a: Array, b: Array, counts: Array) -> Array:
    """Return P(a < b) + P(a == b) / 2 over all pairs of draws within a prompt, averaged over prompts: shape (sample,).

    `a` and `b` have shapes (prompt, draw); two censored values are a tie.
    """
    earlier = (a[:, :, None] < b[:, None, :]) + 0.5 * (a[:, :, None] == b[:, None, :])
    return mean(earlier.mean(2), counts)


def aurocs(arms: Arms, counts: Array) -> Iterator[tuple[str, str, Array]]:
    """Yield the AUROC of every two arms."""
    for a, b in combinations(arms, 2):
        yield "|".join(a), "|".join(b), auroc(arms[a], arms[b], counts)


def median_differences(arms: Arms, counts: Array) -> Iterator[tuple[str, str, Array]]:
    """Yield median(a) - median(b) of every two arms in each bootstrap sample; NaN where both are censored."""
    medians = {arm: median(values, counts) for arm, values in arms.items()}
    for a, b in combinations(arms, 2):
        with np.errstate(invalid="ignore"):
            yield "|".join(a), "|".join(b), medians[a] - medians[b]


CROSSING_STATISTICS: dict[str, Statistic] = {
    "median_crossing": median,
    "lower_quartile_crossing": lambda values, counts: quantile(values, counts, 0.25),
    "upper_quartile_crossing": lambda values, counts: quantile(values, counts, 0.75),
    "fraction_crossed": lambda values, counts: mean(np.isfinite(values).astype(np.float64), counts),
}


def interval(samples: Array) -> dict[str, float]:
    """Return value (of row 0, the data), low and high (95% percentile interval of the bootstrap samples).

    A sample that is NaN says nothing about where the statistic lies: it counts as low for `low` and as high for `high`.
    """
    low, high = (np.where(np.isnan(samples[1:]), end, samples[1:]) for end in (-np.inf, np.inf))
    value = float(samples[0])
    return {
        "value": value,
        "low": float(np.quantile(low, 0.025, method="inverted_cdf")),
        "high": float(np.quantile(high, 0.975, method="inverted_cdf")),
    }


def summarise(curves: pd.DataFrame, thresholds: pd.DataFrame, seed: int, n_boot: int = 1000) -> pd.DataFrame:
    """Summarise each arm (base and direction) of an experiment, with 95% bootstrap intervals over prompts.

    Parameters
    ----------
    curves, thresholds : DataFrame
        As `experiment.run_experiment` gives them, of one or more experiments.

    Returns
    -------
    DataFrame
        experiment, site, weights, path, threshold_nats, base, direction, statistic, value, low, high, n_prompts,
        n_directions. Statistics of each threshold: median_crossing, lower_quartile_crossing, upper_quartile_crossing
        and fraction_crossed. With `threshold_nats` NaN, as they have none: mean_cosine_minus_deviation,
        median_kl_at_end, and median_s_sqrt_2kl and median_s_l2 of each shape s: max_slope, plateau_score, area,
        flatness and excess.
    """
    cosines = thresholds.drop_duplicates(CURVE).assign(threshold_nats=np.nan)
    shapes = per_curve(curves)
    tables = [
        _of_arms(thresholds, "crossing", CROSSING_STATISTICS, seed, n_boot),
        _of_arms(cosines, "cosine_minus_deviation", {"mean_cosine_minus_deviation": mean}, seed, n_boot),
    ]
    for name in ("kl_at_end", *SHAPE_COLUMNS):
        tables += [_of_arms(shapes, name, {f"median_{name}": median}, seed, n_boot)]
    return pd.concat(tables, ignore_index=True)


def compare(curves: pd.DataFrame, thresholds: pd.DataFrame, seed: int, n_boot: int = 1000) -> pd.DataFrame:
    """Compare every two arms of an experiment within prompts, with 95% bootstrap intervals over prompts.

    Returns
    -------
    DataFrame
        experiment, site, weights, path, threshold_nats, statistic, a, b, value, low, high, n_prompts; `a` and `b` name
        arms as "base|direction". Statistics of each threshold: auroc (the share of pairs of draws in which a crosses
        before b, ties half) and median_difference_crossing (a minus b). With `threshold_nats` NaN, as they have none:
        median_difference_s_sqrt_2kl and median_difference_s_l2 (a minus b) of each shape s, as in `summarise`.
    """
    tables = [
        _of_pairs(thresholds, "crossing", "auroc", aurocs, seed, n_boot),
        _of_pairs(thresholds, "crossing", "median_difference_crossing", median_differences, seed, n_boot),
    ]
    shapes = per_curve(curves)
    for name in SHAPE_COLUMNS:
        tables += [_of_pairs(shapes, name, f"median_difference_{name}", median_differences, seed, n_boot)]
    return pd.concat(tables, ignore_index=True)


def _arms(table: pd.DataFrame, column: str) -> Iterator[tuple[dict[str, Any], Arms]]:
    """Yield for each setting and threshold the values (prompt, draw) of every arm, by (base, direction)."""
    keys = [*SETTING, "threshold_nats"]
    ordered = table.sort_values(["prompt", "draw"], kind="stable")
    for setting, rows in ordered.groupby(keys, observed=True, sort=False, dropna=False):
        arms = {
            (str(base), str(direction)): arm[column].to_numpy(np.float64).reshape(arm["prompt"].nunique(), -1)
            for (base, direction), arm in rows.groupby(ARM, observed=True, sort=False)
        }
        yield dict(zip(keys, setting, strict=True)), arms


def _of_arms(
    table: pd.DataFrame, column: str, statistics: dict[str, Statistic], seed: int, n_boot: int
) -> pd.DataFrame:
    """Apply statistics to a column of every arm."""
    rows = []
    for setting, arms in _arms(table, column):
        for (base, direction), values in arms.items():
            counts = resample(len(values), n_boot, seed)
            size = {"n_prompts": len(values), "n_directions": values.size}
            for name, statistic in statistics.items():
                labels = setting | {"base": base, "direction": direction, "statistic": name}
                rows.append(labels | interval(statistic(values, counts)) | size)
    return pd.DataFrame(rows)


def _of_pairs(
    table: pd.DataFrame, column: str, statistic: str, comparison: Comparison, seed: int, n_boot: int
) -> pd.DataFrame:
    """Apply a comparison to a column of every two arms of a setting."""
    rows = []
    for setting, arms in _arms(table, column):
        n_prompts = len(next(iter(arms.values())))
        for a, b, samples in comparison(arms, resample(n_prompts, n_boot, seed)):
            labels = setting | {"statistic": statistic, "a": a, "b": b}
            rows.append(labels | interval(samples) | {"n_prompts": n_prompts})
    return pd.DataFrame(rows)
