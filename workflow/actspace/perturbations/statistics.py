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

from actspace.errors import StudyError
from actspace.seeds import rng_for

SETTING = ["experiment", "site", "weights", "path"]
ARM = ["base", "direction"]
REPLICATES_AT_ONCE = 100
Array = NDArray[np.float64]
"""Values (prompt, draw) of one arm, and of every prompt as many draws."""
Statistic = Callable[[Array, Array], Array]
"""(values (prompt, draw), counts (sample, prompt)) -> (sample,)"""
Comparison = Callable[[Array, Array, Array], Array]
"""(a (prompt, draw), b (prompt, draw), counts (sample, prompt)) -> (sample,)"""


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


def median_difference(a: Array, b: Array, counts: Array) -> Array:
    """Return median(a) - median(b) in each bootstrap sample; NaN where both are censored."""
    with np.errstate(invalid="ignore"):
        return median(a, counts) - median(b, counts)


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


def flatness(distance: Array, size: Array) -> Array:
    """Say how slowly an effect starts: its mean slope over the first third of the path, over that of the whole path.

    The slope is taken against the distance from the base. An effect that is linear in the perturbation gives exactly 1
    on either path; a plateau gives less than 1, an effect that rises at once and saturates gives more. KL itself would
    give less than 1 even for a linear model, since it is quadratic at zero: give sqrt(2 KL) or an L2 distance.

    Parameters
    ----------
    distance, size : arrays of shape (..., step)
        Distance from the base and size of the effect, at evenly spaced positions from the base to the end of the path.

    Returns
    -------
    array of shape (...); NaN where nothing has changed at the end
    """
    third = round((size.shape[-1] - 1) / 3)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = (size[..., third] / distance[..., third]) / (size[..., -1] / distance[..., -1])
    return np.where(size[..., -1] > 0, ratio, np.nan)


def per_curve(curves: pd.DataFrame) -> pd.DataFrame:
    """Reduce each curve to one row: kl_at_end (nats), flatness_sqrt_2kl, flatness_l2; threshold_nats is NaN."""
    keys = [*SETTING, *ARM, "prompt", "draw"]
    n_steps = int(curves["step"].max()) + 1
    ordered = curves.sort_values([*keys, "step"], kind="stable")
    if len(ordered) % n_steps or (ordered["step"].to_numpy().reshape(-1, n_steps) != np.arange(n_steps)).any():
        raise StudyError("perturbation curves: some curves lack steps; give whole curves of one length")
    columns = ("relative_distance", "kl_base_pert_nats", "l2_late")
    distance, kl, l2 = (ordered[name].to_numpy(np.float64).reshape(-1, n_steps) for name in columns)
    table = ordered[keys].iloc[::n_steps].reset_index(drop=True)
    shapes = {"flatness_sqrt_2kl": flatness(distance, np.sqrt(2 * kl)), "flatness_l2": flatness(distance, l2)}
    return table.assign(threshold_nats=np.nan, kl_at_end=kl[:, -1], **shapes)


def local_linear(curves: pd.DataFrame) -> pd.Series:
    """Extend each curve's sqrt(2 KL) from its first step in proportion to the distance from the base.

    This is the matched null of a plateau: the same model, direction and start, but an output that goes on as it begins.
    KL is quadratic at zero even then, so a flat start of KL alone shows nothing.

    Returns
    -------
    Series in the order of `curves`, in sqrt(nats); 0 at the base
    """
    keys = [*SETTING, *ARM, "prompt", "draw"]
    first = curves[curves["step"] == 1].set_index(keys)
    slope = np.sqrt(2 * first["kl_base_pert_nats"]) / first["relative_distance"]
    return curves["relative_distance"] * slope.reindex(pd.MultiIndex.from_frame(curves[keys])).to_numpy()


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
        median_kl_at_end, median_flatness_sqrt_2kl and median_flatness_l2.
    """
    cosines = thresholds.drop_duplicates([*SETTING, *ARM, "prompt", "draw"]).assign(threshold_nats=np.nan)
    shapes = per_curve(curves)
    tables = [
        _of_arms(thresholds, "crossing", CROSSING_STATISTICS, seed, n_boot),
        _of_arms(cosines, "cosine_minus_deviation", {"mean_cosine_minus_deviation": mean}, seed, n_boot),
    ]
    for name in ("kl_at_end", "flatness_sqrt_2kl", "flatness_l2"):
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
        median_difference_flatness_sqrt_2kl and median_difference_flatness_l2 (a minus b).
    """
    crossing: dict[str, Comparison] = {"auroc": auroc, "median_difference_crossing": median_difference}
    tables = [_of_pairs(thresholds, "crossing", crossing, seed, n_boot)]
    shapes = per_curve(curves)
    for name in ("flatness_sqrt_2kl", "flatness_l2"):
        difference: dict[str, Comparison] = {f"median_difference_{name}": median_difference}
        tables += [_of_pairs(shapes, name, difference, seed, n_boot)]
    return pd.concat(tables, ignore_index=True)


def _arms(table: pd.DataFrame, column: str) -> Iterator[tuple[dict[str, Any], dict[tuple[str, str], Array]]]:
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
    table: pd.DataFrame, column: str, comparisons: dict[str, Comparison], seed: int, n_boot: int
) -> pd.DataFrame:
    """Apply comparisons to a column of every two arms of a setting."""
    rows = []
    for setting, arms in _arms(table, column):
        for a, b in combinations(arms, 2):
            counts = resample(len(arms[a]), n_boot, seed)
            for name, comparison in comparisons.items():
                labels = setting | {"statistic": name, "a": "|".join(a), "b": "|".join(b)}
                found = interval(comparison(arms[a], arms[b], counts))
                rows.append(labels | found | {"n_prompts": len(arms[a])})
    return pd.DataFrame(rows)
