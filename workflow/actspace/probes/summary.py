"""Scores of probes over splits: means with intervals, and the layer at which probes do best."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
import pandas as pd

from actspace.probes.linear import Array

KEYS = ["hook", "layer", "probe", "train_set", "test_set", "metric"]
BASELINES = ("random_direction", "shuffled_labels")
RESAMPLES = 2000
CHANCE = "chance"
"""The first stage of a cascade that passes inputs on at random: what a share passed on is worth by itself."""
FIRST_ALONE, SECOND_ALONE, BOTH = "first alone", "second alone", "cascade"
CASCADE = ["first_probe", "first_hook", "first_layer", "second_probe", "second_hook", "second_layer"]


def interval(values: Array, seed: int) -> tuple[Array, Array]:
    """Return the 95% percentile bootstrap interval of the mean of each row of values (cell, repeat).

    All cells share one set of resamples. A single repeat has no interval: NaN.
    """
    n = values.shape[1]
    if n < 2:
        return np.full(len(values), np.nan), np.full(len(values), np.nan)
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=RESAMPLES) / n
    low, high = np.percentile(values @ weights.T, [2.5, 97.5], axis=1)
    return low, high


def summarise(scores: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Average scores over splits, with the 95% interval of the mean (bootstrap over splits).

    Splits share statements, so the interval tells how much the choice of held-out entities matters, not what other
    statements would give.

    Returns
    -------
    DataFrame with `KEYS`, value, low, high, n_splits, and n_train and n_test averaged over splits
    """
    table = scores.pivot_table(index=KEYS, columns="seed", values="value", sort=False)
    low, high = interval(table.to_numpy(), seed)
    sizes = scores.groupby(KEYS, sort=False)[["n_train", "n_test"]].mean().loc[table.index]
    columns = {"value": table.mean(axis=1), "low": low, "high": high, "n_splits": table.shape[1]}
    return pd.DataFrame(columns, index=table.index).join(sizes).reset_index()


def best_hook(scores: pd.DataFrame) -> str:
    """Return the hook at which probes are most accurate on held-out entities of what they were trained on.

    The mean over all probes but the baselines, all test sets and, in a table of splits, splits; of equal ones the first.
    The embedding counts only where there is nothing else.
    """
    rows = scores[scores["metric"] == "accuracy"]
    probes = rows[~rows["probe"].str.startswith(BASELINES)]
    rows = probes if len(probes) else rows
    own = rows[(rows["train_set"] == rows["test_set"]) | (rows["train_set"] == "all")]
    rows = own if len(own) else rows
    deep = rows[rows["layer"] > 0]
    means = (deep if len(deep) else rows).groupby("hook", sort=False)["value"].mean()
    return str(means.index[int(means.to_numpy().argmax())])


def layers_of(hooks: Iterable[str]) -> dict[str, int]:
    """Return each hook's layer: 0 is the embedding, l + 1 what block l wrote, any other hook one past the deepest."""
    layers = {}
    for hook in hooks:
        if match := re.match(r"blocks\.(\d+)\.(.+)", hook):
            layers[hook] = int(match[1]) + (match[2] != "hook_resid_pre")
    deepest = max(layers.values(), default=-1)
    return {hook: layers.get(hook, deepest + 1) for hook in hooks}
