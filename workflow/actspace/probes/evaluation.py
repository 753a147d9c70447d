"""Probes in every layer: fit on the training entities of one set, test on the held-out entities of every set.

Source: Marks & Tegmark, The Geometry of Truth (2023), section on generalisation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations, repeat
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata
from threadpoolctl import threadpool_limits

from actspace.errors import StudyError
from actspace.probes import linear
from actspace.probes.linear import POOLED, Array, Frame, LinearProbe
from actspace.probes.statements import entity_split
from actspace.seeds import rng_for, seed_for

KEYS = ["hook", "layer", "probe", "train_set", "test_set", "metric"]
SCORE_COLUMNS = [*KEYS[:-1], "seed", "metric", "value", "n_train", "n_test"]
ANGLE_COLUMNS = ["hook", "layer", "train_set", "probe_a", "probe_b", "value", "low", "high"]
# These depend on the coordinates, so they are fitted in activation space itself.
COORDINATE_WISE = {"shuffled_logistic_regression"}
RESAMPLES = 2000


@dataclass(frozen=True)
class Task:
    """What every layer has in common: labels, sets, splits and settings."""

    labels: NDArray[np.int64]  # (row,)
    members: dict[str, NDArray[np.bool_]]  # the rows of each set, and of all of them
    tests: list[NDArray[np.bool_]]  # the held-out rows of each split
    train_sets: list[str]
    probes: list[str]
    C: float
    seed: int

    @property
    def test_sets(self) -> list[str]:
        """Names of the sets proper."""
        return [name for name in self.members if name != POOLED]


def evaluate(
    activations: Mapping[str, NDArray],
    labels: Sequence[int] | NDArray,
    groups: Sequence[str] | NDArray,
    sets: Sequence[str] | NDArray,
    cfg: Mapping[str, Any],
    *,
    seed: int,
    n_jobs: int = 1,
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, LinearProbe]]:
    """Fit and test every probe at every hook, for every split by entity.

    Parameters
    ----------
    activations : hook -> float (row, d_model), one row per statement
    labels : (row,) of 0 and 1
    groups : (row,) entities; no entity is on both sides of a split, in any set
    sets : (row,) names of sets
    cfg : `probes` (names), `splits` (how many), `test_fraction`, `C` of logistic regression, and optionally
        `train_sets`; without it probes are trained on each set and on "all" of them pooled
    seed : seed of the probe study; a split's own seed depends on it and on the split's number alone
    n_jobs : threads

    Returns
    -------
    scores : one row per hook, probe, training set, test set, split (`seed`) and metric (accuracy, auroc), with n_train
        and n_test
    angles : cosines of the probes' directions by hook, mean and 95% interval over splits, for the training set named in
        `train_set`: "all" if it was trained on, else the first one
    directions : "hook/train_set/probe/split" -> probe, in float64

    Raises
    ------
    StudyError
        If shapes do not agree, an activation is NaN or infinite, or a set lacks a label on a side of a split.
    """
    task = _task(labels, groups, sets, cfg, seed)
    for hook, X in activations.items():
        _check_activations(hook, X, len(task.labels))
    layers = _layers(activations)
    # The matrices are small: threads inside their products cost more than they give.
    with threadpool_limits(1), ThreadPoolExecutor(n_jobs) as pool:
        fitted = list(pool.map(_fit_hook, activations.keys(), activations.values(), repeat(task)))
        tested = list(pool.map(_test_hook, activations.keys(), activations.values(), fitted, repeat(task)))
    directions = {key: probe for probes in fitted for key, probe in probes.items()}
    scores = pd.concat(tested, ignore_index=True)
    scores = scores.assign(layer=scores["hook"].map(layers))[SCORE_COLUMNS]
    angles = [row for hook in activations for row in _angles(hook, layers[hook], directions, task)]
    return scores, pd.DataFrame(angles, columns=ANGLE_COLUMNS), directions


def _task(
    labels: Sequence[int] | NDArray,
    groups: Sequence[str] | NDArray,
    sets: Sequence[str] | NDArray,
    cfg: Mapping[str, Any],
    seed: int,
) -> Task:
    truth, names = np.asarray(labels, dtype=np.int64), np.asarray(sets, dtype=str)
    if not len(truth) == len(names) == len(groups):
        found = f"{len(truth)} labels, {len(groups)} groups and {len(names)} sets"
        raise StudyError(f"probes: {found}; give one of each per statement")
    known = list(dict.fromkeys(names.tolist()))
    if POOLED in known:
        raise StudyError(f"probes: a set is named '{POOLED}', which stands for all sets together; rename it")
    members = {name: names == name for name in known} | {POOLED: np.ones(len(names), dtype=bool)}
    train_sets = list(cfg.get("train_sets") or members)
    if unknown := [name for name in train_sets if name not in members]:
        raise StudyError(f"probes: `train_sets` names '{unknown[0]}'; there are {', '.join(members)}")
    seeds = [seed_for(seed, "split", split) for split in range(cfg["splits"])]
    tests = [entity_split(groups, cfg["test_fraction"], split_seed) for split_seed in seeds]
    task = Task(truth, members, tests, train_sets, list(cfg["probes"]), cfg["C"], seed)
    _check_splits(task)
    return task


def _check_splits(task: Task) -> None:
    for split, test in enumerate(task.tests):
        sides = [("training", ~test, task.train_sets), ("test", test, task.test_sets)]
        for side, name, rows in ((side, name, rows) for side, rows, names in sides for name in names):
            if len(np.unique(task.labels[rows & task.members[name]])) < 2:
                what = f"the {side} part of set '{name}' lacks true or false statements in split {split}"
                raise StudyError(f"probes: {what}; add statements or change `test_fraction`")


def _check_activations(hook: str, X: NDArray, n_rows: int) -> None:
    if np.ndim(X) != 2 or len(X) != n_rows:
        found = f"activations of shape {np.shape(X)} do not belong to {n_rows} statements"
        raise StudyError(f"{hook}: {found}; capture again")
    finite = np.isfinite(X).all(axis=1)
    if not finite.all():
        found = f"the activation of row {int((~finite).argmax())} is NaN or infinite"
        raise StudyError(f"{hook}: {found}; store the capture as float32")


def _fit_hook(hook: str, X: NDArray, task: Task) -> dict[str, LinearProbe]:
    probes = {}
    for train_set in task.train_sets:
        member = task.members[train_set]
        rows, labels = np.asarray(X, dtype=np.float64)[member], task.labels[member]
        frame = Frame.of(rows)
        for split, test in enumerate(task.tests):
            train = ~test[member]
            for name in task.probes:
                rng = rng_for(task.seed, name, hook, train_set, split)
                in_frame = name not in COORDINATE_WISE
                data = frame.coordinates if in_frame else rows
                probe = _fit(name, data[train], labels[train], task.C, rows.shape[1], rng)
                probes[_key(hook, train_set, name, split)] = frame.back(probe) if in_frame else probe
    return probes


def _key(hook: str, train_set: str, probe: str, split: int) -> str:
    return f"{hook}/{train_set}/{probe}/{split}"


def _fit(name: str, X: Array, y: NDArray[np.int64], C: float, d_model: int, rng: np.random.Generator) -> LinearProbe:
    if name == "logistic_regression":
        return linear.logistic_regression(X, y, C=C, d_model=d_model)
    if name == "mass_mean":
        return linear.mass_mean(X, y)
    if name == "mass_mean_covariance":
        return linear.mass_mean_covariance(X, y, d_model=d_model)
    if name == "shuffled_labels":
        return linear.shuffled_labels(X, y, rng, C=C, d_model=d_model)
    if name == "shuffled_logistic_regression":
        return linear.shuffled_logistic_regression(X, y, rng, C=C)
    raise StudyError(f"probes: there is no probe '{name}'")


def _test_hook(hook: str, X: NDArray, probes: dict[str, LinearProbe], task: Task) -> pd.DataFrame:
    """Score every row with the probes of a split at once, then read off the metrics of each set's test rows."""
    keys = pd.DataFrame([(name, train_set) for train_set in task.train_sets for name in task.probes])
    keys.columns = ["probe", "train_set"]
    tables = []
    for split, test in enumerate(task.tests):
        found = [probes[_key(hook, row.train_set, row.probe, split)] for row in keys.itertuples()]
        scores = np.asarray(X, dtype=np.float64) @ np.stack([probe.direction for probe in found], axis=1)
        scores += np.array([probe.bias for probe in found])
        n_train = keys["train_set"].map({name: int((task.members[name] & ~test).sum()) for name in task.train_sets})
        for test_set in task.test_sets:
            rows = test & task.members[test_set]
            about = {"test_set": test_set, "seed": split, "n_train": n_train, "n_test": int(rows.sum())}
            for metric, measure in (("accuracy", accuracy), ("auroc", auroc)):
                tables.append(keys.assign(**about, metric=metric, value=measure(scores[rows], task.labels[rows])))
    return pd.concat(tables).assign(hook=hook)


def accuracy(scores: Array, labels: NDArray) -> Array:
    """Return the share of rows on the right side of 0 for each column of scores (row, probe); 0 itself counts half."""
    return ((np.sign(scores) * (2 * labels - 1)[:, None] + 1) / 2).mean(axis=0)


def auroc(scores: Array, labels: NDArray) -> Array:
    """Return P(score of a true statement > score of a false one), ties half, for each column of scores (row, probe)."""
    n_true = int((labels == 1).sum())
    ranks = rankdata(scores, axis=0)[labels == 1].sum(axis=0)
    return (ranks - n_true * (n_true + 1) / 2) / (n_true * (len(labels) - n_true))


def _angles(hook: str, layer: int, directions: dict[str, LinearProbe], task: Task) -> Iterable[tuple[Any, ...]]:
    train_set = POOLED if POOLED in task.train_sets else task.train_sets[0]
    fitted = {
        name: [directions[_key(hook, train_set, name, split)].direction for split in range(len(task.tests))]
        for name in task.probes
    }
    for a, b in combinations(task.probes, 2):
        values = np.array([[cosine(one, other) for one, other in zip(fitted[a], fitted[b], strict=True)]])
        low, high = interval(values, task.seed)
        yield hook, layer, train_set, a, b, float(values.mean()), low[0], high[0]


def cosine(a: Array, b: Array) -> float:
    """Return the cosine of two directions (d_model,); NaN if one of them is zero."""
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / norms) if norms > 0 else float("nan")


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


def _layers(hooks: Iterable[str]) -> dict[str, int]:
    """Return each hook's layer: 0 is the embedding, l + 1 what block l wrote, any other hook one past the deepest."""
    layers = {}
    for hook in hooks:
        if match := re.match(r"blocks\.(\d+)\.(.+)", hook):
            layers[hook] = int(match[1]) + (match[2] != "hook_resid_pre")
    deepest = max(layers.values(), default=-1)
    return {hook: layers.get(hook, deepest + 1) for hook in hooks}
