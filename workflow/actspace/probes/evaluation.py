"""Probes in every layer: fit on the training entities of one set, test on the held-out entities of every set.

Source: Marks & Tegmark, The Geometry of Truth (2023), section on generalisation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from numpy.typing import NDArray
from scipy.stats import rankdata
from threadpoolctl import threadpool_limits

from actspace.errors import StudyError
from actspace.probes import linear
from actspace.probes.linear import Array, Frame, LinearProbe
from actspace.probes.statements import entity_split
from actspace.seeds import rng_for, seed_for

POOLED = "all"
KEYS = ["hook", "layer", "probe", "train_set", "test_set", "metric"]
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
    cfg : `probes` (names), `splits` (how many), `test_fraction`, `C` of logistic regression, and optionally `train_sets`; without it
        probes are trained on each set and on "all" of them pooled
    seed : seed of the probe study; a split's own seed depends on it and on the split's number alone
    n_jobs : threads

    Returns
    -------
    scores : one row per hook, probe, training set, test set, split (`seed`) and metric (accuracy, auroc), with n_train and n_test
    angles : cosines of the probes' directions by hook, mean and 95% interval over splits, for the training set named in `train_set`:
        "all" if it was trained on, else the first one
    directions : "hook/train_set/probe/split" -> probe, in float64

    Raises
    ------
    StudyError
        If shapes do not agree, an activation is NaN or infinite, or a set has only one label on a side of a split.
    """
    task = _task(labels, groups, sets, cfg, seed)
    for hook, X in activations.items():
        _check_activations(hook, X, len(task.labels))
    layers = _layers(activations)
    with threadpool_limits(1):  # one core per hook: threads inside these small products cost more than they give
        jobs = (delayed(_fit_hook)(hook, X, task) for hook, X in activations.items())
        fitted = Parallel(n_jobs=n_jobs, prefer="threads")(jobs)
        tested = [_test_hook(X, probes, task) for X, probes in zip(activations.values(), fitted, strict=True)]
    directions = {key: probe for probes in fitted for key, probe in probes.items()}
    scores = pd.concat(tested, ignore_index=True)
    scores.insert(1, "layer", scores["hook"].map(layers))
    angles = pd.DataFrame([row for hook in activations for row in _angles(hook, layers[hook], directions, task)], columns=ANGLE_COLUMNS)
    return scores, angles, directions


ANGLE_COLUMNS = ["hook", "layer", "train_set", "probe_a", "probe_b", "value", "low", "high"]


def _task(labels: Sequence[int] | NDArray, groups: Sequence[str] | NDArray, sets: Sequence[str] | NDArray, cfg: Mapping[str, Any], seed: int) -> Task:
    truth, names = np.asarray(labels, dtype=np.int64), np.asarray(sets, dtype=str)
    if not len(truth) == len(names) == len(groups):
        raise StudyError(f"probes: {len(truth)} labels, {len(groups)} groups and {len(names)} sets; give one of each per statement")
    known = list(dict.fromkeys(names.tolist()))
    if POOLED in known:
        raise StudyError(f"probes: a set is named '{POOLED}', which stands for all sets together; rename it")
    members = {name: names == name for name in known} | {POOLED: np.ones(len(names), dtype=bool)}
    train_sets = list(cfg.get("train_sets") or members)
    if unknown := [name for name in train_sets if name not in members]:
        raise StudyError(f"probes: `train_sets` names '{unknown[0]}'; there are {', '.join(members)}")
    tests = [entity_split(groups, cfg["test_fraction"], seed_for(seed, "split", split)) for split in range(cfg["splits"])]
    task = Task(truth, members, tests, train_sets, list(cfg["probes"]), cfg["C"], seed)
    _check_splits(task)
    return task


def _check_splits(task: Task) -> None:
    for split, test in enumerate(task.tests):
        sides = [("training", name, ~test) for name in task.train_sets] + [("test", name, test) for name in task.test_sets]
        for side, name, rows in sides:
            if len(set(task.labels[rows & task.members[name]].tolist())) < 2:
                raise StudyError(f"probes: the {side} part of set '{name}' lacks true or false statements in split {split}; add entities")


def _check_activations(hook: str, X: NDArray, n_rows: int) -> None:
    if np.ndim(X) != 2 or len(X) != n_rows:
        raise StudyError(f"{hook}: activations of shape {np.shape(X)} do not belong to {n_rows} statements; capture again")
    finite = np.isfinite(X).all(axis=1)
    if not finite.all():
        raise StudyError(f"{hook}: the activation of row {int((~finite).argmax())} is NaN or infinite; store the capture as float32")


def _fit_hook(hook: str, X: NDArray, task: Task) -> dict[str, LinearProbe]:
    rows = np.asarray(X, dtype=np.float64)
    probes = {}
    for train_set in task.train_sets:
        member = task.members[train_set]
        frame = Frame.of(rows[member])
        for split, test in enumerate(task.tests):
            train = ~test[member]
            for name in task.probes:
                key = f"{hook}/{train_set}/{name}/{split}"
                rng = rng_for(task.seed, name, hook, train_set, split)
                probes[key] = _fit(name, rows[member], frame, train, task.labels[member], task.C, rng)
    return probes


def _fit(
    name: str, X: Array, frame: Frame, train: NDArray[np.bool_], labels: NDArray[np.int64], C: float, rng: np.random.Generator
) -> LinearProbe:
    """Fit one probe on the training rows, in the frame wherever the probe does not depend on the coordinates."""
    y, Z, d_model = labels[train], frame.coordinates[train], X.shape[1]
    if name == "logistic_regression":
        return frame.back(linear.logistic_regression(Z, y, C=C, d_model=d_model))
    if name == "mass_mean":
        return frame.back(linear.mass_mean(Z, y))
    if name == "mass_mean_covariance":
        return frame.back(linear.mass_mean_covariance(Z, y, d_model=d_model))
    if name == "shuffled_labels":
        return frame.back(linear.shuffled_labels(Z, y, rng, C=C, d_model=d_model))
    if name == "shuffled_logistic_regression":
        return linear.shuffled_logistic_regression(X[train], y, rng, C=C)
    raise StudyError(f"probes: there is no probe '{name}'")


def _test_hook(X: NDArray, probes: dict[str, LinearProbe], task: Task) -> pd.DataFrame:
    """Score every row with every probe at once, then read off the metrics of each split's test rows."""
    direction = np.stack([probe.direction for probe in probes.values()], axis=1)
    bias = np.array([probe.bias for probe in probes.values()])
    scores = np.asarray(X, dtype=np.float64) @ direction + bias
    keys = pd.DataFrame([key.rsplit("/", 3) for key in probes], columns=["hook", "train_set", "probe", "seed"]).astype({"seed": np.int64})
    tables = []
    for split, test in enumerate(task.tests):
        columns = np.flatnonzero(keys["seed"] == split)
        n_train = {name: int((task.members[name] & ~test).sum()) for name in task.train_sets}
        for test_set in task.test_sets:
            rows = test & task.members[test_set]
            found = {"accuracy": accuracy(scores[rows][:, columns], task.labels[rows]), "auroc": auroc(scores[rows][:, columns], task.labels[rows])}
            for metric, values in found.items():
                tables.append(
                    keys.iloc[columns].assign(
                        test_set=test_set, metric=metric, value=values, n_train=lambda t, n=n_train: t["train_set"].map(n), n_test=int(rows.sum())
                    )
                )
    return pd.concat(tables)[["hook", "probe", "train_set", "test_set", "seed", "metric", "value", "n_train", "n_test"]]


def accuracy(scores: Array, labels: NDArray) -> Array:
    """Return the share of rows on the right side of 0 for each column of scores (row, probe); a score of 0 counts half."""
    return ((np.sign(scores) * (2 * labels - 1)[:, None] + 1) / 2).mean(axis=0)


def auroc(scores: Array, labels: NDArray) -> Array:
    """Return P(score of a true statement > score of a false one), ties half, for each column of scores (row, probe)."""
    n_true = int((labels == 1).sum())
    ranks = rankdata(scores, axis=0)[labels == 1].sum(axis=0)
    return (ranks - n_true * (n_true + 1) / 2) / (n_true * (len(labels) - n_true))


def _angles(hook: str, layer: int, directions: dict[str, LinearProbe], task: Task) -> Iterable[tuple[Any, ...]]:
    train_set = POOLED if POOLED in task.train_sets else task.train_sets[0]
    for a, b in combinations(task.probes, 2):
        values = [
            cosine(directions[f"{hook}/{train_set}/{a}/{split}"].direction, directions[f"{hook}/{train_set}/{b}/{split}"].direction)
            for split in range(len(task.tests))
        ]
        low, high = interval(np.array([values]), task.seed)
        yield hook, layer, train_set, a, b, float(np.mean(values)), low[0], high[0]


def cosine(a: Array, b: Array) -> float:
    """Return the cosine of two directions (d_model,); NaN if one of them is zero."""
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / norms) if norms > 0 else float("nan")


def interval(values: Array, seed: int) -> tuple[Array, Array]:
    """Return the 95% percentile bootstrap interval of the mean of each row of values (cell, repeat); NaN for a single repeat.

    All cells share one set of resamples.
    """
    n = values.shape[1]
    if n < 2:
        return np.full(len(values), np.nan), np.full(len(values), np.nan)
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=RESAMPLES) / n
    low, high = np.percentile(values @ weights.T, [2.5, 97.5], axis=1)
    return low, high


def summarise(scores: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Average scores over splits, with the 95% interval of the mean (bootstrap over splits).

    Splits share statements, so the interval tells how much the choice of held-out entities matters, not what other statements would give.

    Returns
    -------
    DataFrame with `KEYS`, value, low, high, n_splits, and n_train and n_test averaged over splits
    """
    table = scores.pivot_table(index=KEYS, columns="seed", values="value", sort=False)
    low, high = interval(table.to_numpy(), seed)
    sizes = scores.groupby(KEYS, sort=False)[["n_train", "n_test"]].mean().loc[table.index]
    found = pd.DataFrame({"value": table.mean(axis=1), "low": low, "high": high, "n_splits": table.shape[1]}, index=table.index)
    return found.join(sizes).reset_index()


def _layers(hooks: Iterable[str]) -> dict[str, int]:
    """Return each hook's layer: 0 is the embedding, l + 1 what block l has written to, the final norm one more than the deepest."""
    layers = {}
    for hook in hooks:
        if match := re.match(r"blocks\.(\d+)\.(.+)", hook):
            layers[hook] = int(match[1]) + (match[2] != "hook_resid_pre")
    deepest = max(layers.values(), default=-1)
    return {hook: layers.get(hook, deepest + 1) for hook in hooks}
