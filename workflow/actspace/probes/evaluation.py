"""Probes in every layer: fit on the training entities of one set, test on the held-out entities of every set.

Source: Marks & Tegmark, The Geometry of Truth (2023), section on generalisation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations, repeat
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from actspace.activations.store import Rows
from actspace.errors import StudyError
from actspace.probes import fits, linear, metrics, names
from actspace.probes.entities import sides
from actspace.probes.fits import Settings, Training
from actspace.probes.linear import POOLED, Array, Frame, LinearProbe
from actspace.probes.names import Centring, ProbeName
from actspace.probes.statements import polarities, rows_at
from actspace.probes.summary import KEYS, interval, layers_of
from actspace.seeds import rng_for, seed_for
from actspace.threads import limited_to

SCORE_COLUMNS = [*KEYS[:-1], "seed", "metric", "value", "n_train", "n_test"]
ANGLE_COLUMNS = ["hook", "layer", "train_set", "probe_a", "probe_b", "value", "low", "high"]
FACT_COLUMNS = ["hook", "layer", "probe", "train_set", "seed", "fact", "value"]
TILTED = names.parse("mass_mean_covariance")
"""Its direction is Sigma^-1 theta, which all others are compared with."""
SIGMA_INV_THETA = "sigma_inv_theta"


class Evaluation(NamedTuple):
    """What `evaluate` finds."""

    scores: pd.DataFrame
    """One row per hook, probe, training set, test set, split (`seed`) and metric, with n_train and n_test. The metrics
    are accuracy, auroc, and brier and calibration_error of P(true)."""
    angles: pd.DataFrame
    """Cosines of the probes' directions by hook, mean and 95% interval over splits, for the training set named in
    `train_set`: "all" if it was trained on, else the first one. Without mass_mean_covariance among the probes, whose
    direction it is, they are also compared with `sigma_inv_theta`."""
    facts: pd.DataFrame
    """What fits report about themselves (shrinkage, effective_rank, rank), one row per fit and fact."""
    directions: dict[str, LinearProbe]
    """By "hook/train_set/probe/split", in float64. Probes that are centred `per_dataset` score rows less the mean of
    their set, the others rows as they are."""


@dataclass(frozen=True)
class Task:
    """What every layer has in common: labels, sets, splits and settings."""

    labels: NDArray[np.int64]  # (row,)
    sets: NDArray  # (row,)
    polarity: NDArray[np.int64]  # (row,)
    pairs: NDArray[np.int64]  # (pair, 2), row numbers
    members: dict[str, NDArray[np.bool_]]  # the rows of each set, and of all of them
    splits: list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]  # the training and the held-out rows of each split
    train_sets: list[str]
    probes: list[ProbeName]
    settings: Settings
    seed: int

    @property
    def tests(self) -> list[NDArray[np.bool_]]:
        """The held-out rows of each split."""
        return [test for _, test in self.splits]

    @property
    def test_sets(self) -> list[str]:
        """Names of the sets proper."""
        return [name for name in self.members if name != POOLED]

    @property
    def compared_on(self) -> str:
        """The training set whose directions are compared with each other."""
        return POOLED if POOLED in self.train_sets else self.train_sets[0]

    def fitted_on(self, train_set: str) -> list[ProbeName]:
        """List the probes for which a training set has what they need: negations, or both polarities."""
        member = self.members[train_set]
        both = len(np.unique(self.polarity[member])) == 2
        paired = bool(member[self.pairs].all(axis=1).any())
        return [p for p in self.probes if (both or not p.about.polarities) and (paired or not p.about.pairs)]

    def training(self, train_set: str, split: int) -> NDArray[np.bool_]:
        """Mark the rows of a training set that speak of nothing which a split holds out, (row,)."""
        return self.members[train_set] & self.splits[split][0]


def activations_at(
    stored: Mapping[str, Rows], lengths: Sequence[int] | NDArray, position: int | Literal["last"]
) -> dict[str, NDArray]:
    """Return the activations of statements at one position, (statement, d_model), by hook point; else as `rows_at`."""
    first = next(iter(stored.values()))
    chosen = rows_at(first.column("sequence_id"), first.column("position"), lengths, position)
    return {hook: rows.x[chosen].numpy() for hook, rows in stored.items()}


def evaluate(
    activations: Mapping[str, NDArray],
    labels: Sequence[int] | NDArray,
    groups: Sequence[str] | NDArray,
    sets: Sequence[str] | NDArray,
    cfg: Mapping[str, Any],
    *,
    seed: int,
    pairs: NDArray | None = None,
    n_jobs: int = 1,
) -> Evaluation:
    """Fit and test every probe at every hook, for every split by entity.

    Parameters
    ----------
    activations : hook -> float (row, d_model), one row per statement
    labels : (row,) of 0 and 1
    groups : (row,) entities, several between separators; none is on both sides of a split, in any set
    sets : (row,) names of sets; those that begin with `neg_` are negated
    cfg : `probes` (names as `names.expand` gives them), `splits` (how many), `test_fraction`, `C` of logistic
        regression, and optionally `pseudo_inverse_tolerance`, and `train_sets`; without it probes are trained on each
        set and on "all" of them pooled. A probe that needs negations is trained where they are.
    seed : seed of the probe study; a split's own seed depends on it and on the split's number alone
    pairs : integer (pair, 2), the rows of statements and of their negations; None if there are none
    n_jobs : threads

    Raises
    ------
    StudyError
        If shapes do not agree, an activation is NaN or infinite, a set lacks a label on a side of a split, or no
        training set has what a probe needs.
    """
    task = _task(labels, groups, sets, np.empty((0, 2), dtype=np.int64) if pairs is None else pairs, cfg, seed)
    for hook, X in activations.items():
        _check_activations(hook, X, len(task.labels))
    layers = layers_of(activations)
    # The matrices are small: threads inside their products cost more than they give.
    with limited_to(1), ThreadPoolExecutor(n_jobs) as pool:
        fitted = list(pool.map(_fit_hook, activations.keys(), activations.values(), repeat(task)))
        tested = list(pool.map(_test_hook, activations.keys(), activations.values(), fitted, repeat(task)))
        tilted = list(pool.map(_tilted, activations.values(), repeat(task)))
    directions = {key: probe for probes in fitted for key, probe in probes.items()}
    scores = pd.concat(tested, ignore_index=True)
    scores = scores.assign(layer=scores["hook"].map(layers))[SCORE_COLUMNS]
    angles = _angles(directions, dict(zip(activations, tilted, strict=True)), task)
    angles = angles.assign(layer=angles["hook"].map(layers))[ANGLE_COLUMNS]
    return Evaluation(scores, angles, _facts(directions, layers), directions)


def _task(
    labels: Sequence[int] | NDArray,
    groups: Sequence[str] | NDArray,
    sets: Sequence[str] | NDArray,
    pairs: NDArray,
    cfg: Mapping[str, Any],
    seed: int,
) -> Task:
    truth, of_rows = np.asarray(labels, dtype=np.int64), np.asarray(sets, dtype=str)
    if not len(truth) == len(of_rows) == len(groups):
        found = f"{len(truth)} labels, {len(groups)} groups and {len(of_rows)} sets"
        raise StudyError(f"probes: {found}; give one of each per statement")
    known = list(dict.fromkeys(of_rows.tolist()))
    if POOLED in known:
        raise StudyError(f"probes: a set is named '{POOLED}', which stands for all sets together; rename it")
    members = {name: of_rows == name for name in known} | {POOLED: np.ones(len(of_rows), dtype=bool)}
    train_sets = list(cfg.get("train_sets") or members)
    if unknown := [name for name in train_sets if name not in members]:
        raise StudyError(f"probes: `train_sets` names '{unknown[0]}'; there are {', '.join(members)}")
    splits = splits_of(groups, cfg["splits"], cfg["test_fraction"], seed)
    settings = Settings(**{key: cfg[key] for key in ("C", "pseudo_inverse_tolerance") if key in cfg})
    probes = [names.parse(name) for name in cfg["probes"]]
    task = Task(truth, of_rows, polarities(of_rows), pairs, members, splits, train_sets, probes, settings, seed)
    _check_splits(task)
    _check_needs(task)
    return task


def splits_of(
    groups: Sequence[str] | NDArray, n_splits: int, test_fraction: float, seed: int
) -> list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """Mark the training rows and the held-out rows, both (row,), of each split of a probe study with this seed."""
    seeds = [seed_for(seed, "split", split) for split in range(n_splits)]
    return [sides(groups, test_fraction, split_seed) for split_seed in seeds]


def _check_splits(task: Task) -> None:
    for split, (train, test) in enumerate(task.splits):
        both = [("training", train, task.train_sets), ("test", test, task.test_sets)]
        for side, name, rows in ((side, name, rows) for side, rows, listed in both for name in listed):
            if len(np.unique(task.labels[rows & task.members[name]])) < 2:
                what = f"the {side} part of set '{name}' lacks true or false statements in split {split}"
                raise StudyError(f"probes: {what}; add statements or change `test_fraction`")


def _check_needs(task: Task) -> None:
    """Check that each probe has a training set, and there, in every split, what it needs."""
    fitted = {name: task.fitted_on(name) for name in task.train_sets}
    for probe in task.probes:
        places = [name for name, probes in fitted.items() if probe in probes]
        what = "statements and their negations" if probe.about.pairs else "affirmative and negated statements"
        if not places:
            raise StudyError(
                f"probes: '{probe.name}' needs {what} in one training set; leave it out, or add `neg_` sets"
            )
        for place, split in ((place, split) for place in places for split in range(len(task.tests))):
            train = task.training(place, split)
            pairs = train[task.pairs].all(axis=1)
            lacks_pairs = probe.about.pairs and len(np.unique(task.labels[task.pairs[pairs, 0]])) < 2
            if lacks_pairs or (probe.about.polarities and len(np.unique(task.polarity[train])) < 2):
                found = f"'{probe.name}' lacks {what} in the training part of set '{place}' in split {split}"
                raise StudyError(f"probes: {found}; add statements or change `test_fraction`")


def _check_activations(hook: str, X: NDArray, n_rows: int) -> None:
    if np.ndim(X) != 2 or len(X) != n_rows:
        found = f"activations of shape {np.shape(X)} do not belong to {n_rows} statements"
        raise StudyError(f"{hook}: {found}; capture again")
    finite = np.isfinite(X).all(axis=1)
    if not finite.all():
        found = f"the activation of row {int((~finite).argmax())} is NaN or infinite"
        raise StudyError(f"{hook}: {found}; store the capture as float32")


def _rows(X: NDArray, task: Task, centring: Centring) -> Array:
    """Return all rows in float64, for `per_dataset` less the mean of their set, held-out rows and all."""
    rows = np.array(X, dtype=np.float64)
    for name in task.test_sets if centring == "per_dataset" else []:
        rows[task.members[name]] = linear.centred_rows(rows[task.members[name]])[0]
    return rows


def _fit_hook(hook: str, X: NDArray, task: Task) -> dict[str, LinearProbe]:
    found: dict[str, LinearProbe] = {}
    for centring in dict.fromkeys(probe.centring for probe in task.probes):
        rows = _rows(X, task, centring)
        for train_set in task.train_sets:
            if probes := [probe for probe in task.fitted_on(train_set) if probe.centring == centring]:
                found |= _fit_set(hook, rows, train_set, probes, task)
    return found


def _fit_set(hook: str, rows: Array, train_set: str, probes: list[ProbeName], task: Task) -> dict[str, LinearProbe]:
    """Fit probes of one centring on the rows (row, d_model) of one training set, in every split."""
    found = {}
    in_frame = any(not probe.about.coordinate_wise for probe in probes)
    member = task.members[train_set]
    frame = Frame.of(rows[member], centre=probes[0].centring != "none") if in_frame else None
    for split in range(len(task.tests)):
        train = task.training(train_set, split)
        for probe in probes:
            rng = rng_for(task.seed, probe.name, hook, train_set, split)
            if probe.about.coordinate_wise or frame is None:
                fitted = fits.fit(probe, _training(rows[train], train, task, rows.shape[1], rng), task.settings)
            else:
                inside = _training(frame.coordinates[train[member]], train, task, rows.shape[1], rng)
                fitted = frame.back(fits.fit(probe, inside, task.settings))
            found[_key(hook, train_set, probe.name, split)] = fitted
    return found


def _training(X: Array, train: NDArray[np.bool_], task: Task, d_model: int, rng: np.random.Generator) -> Training:
    """Gather what probes need of the training rows `train` (row,), whose activations or coordinates are X."""
    place = np.cumsum(train) - 1
    pairs = place[task.pairs[train[task.pairs].all(axis=1)]]
    return Training(X, task.labels[train], d_model, rng, task.sets[train], task.polarity[train], pairs)


def _key(hook: str, train_set: str, probe: str, split: int) -> str:
    return f"{hook}/{train_set}/{probe}/{split}"


def _test_hook(hook: str, X: NDArray, fitted: dict[str, LinearProbe], task: Task) -> pd.DataFrame:
    """Score every row with the probes of a split at once, then read off the metrics of each set's test rows."""
    fitted_on = [(probe, train_set) for train_set in task.train_sets for probe in task.fitted_on(train_set)]
    keys = pd.DataFrame([(probe.name, train_set) for probe, train_set in fitted_on], columns=["probe", "train_set"])
    rows = {centring: _rows(X, task, centring) for centring in {probe.centring for probe, _ in fitted_on}}
    tables = []
    for split, test in enumerate(task.tests):
        found = [fitted[_key(hook, train_set, probe.name, split)] for probe, train_set in fitted_on]
        scores = _scores(rows, [probe for probe, _ in fitted_on], found)
        log_odds = _log_odds(scores, fitted_on, task, split)
        n_train = keys["train_set"].map({name: int(task.training(name, split).sum()) for name in task.train_sets})
        for test_set in task.test_sets:
            held_out = test & task.members[test_set]
            about = {"test_set": test_set, "seed": split, "n_train": n_train, "n_test": int(held_out.sum())}
            for metric, values in _measure(scores[held_out], log_odds[held_out], task.labels[held_out]).items():
                tables.append(keys.assign(**about, metric=metric, value=values))
    return pd.concat(tables).assign(hook=hook)


def _scores(rows: Mapping[Centring, Array], probes: list[ProbeName], fitted: list[LinearProbe]) -> Array:
    """Score all rows with all probes, (row, probe), each on the rows of its centring."""
    directions, centrings = np.stack([probe.direction for probe in fitted], axis=1), [p.centring for p in probes]
    scores = np.empty((len(next(iter(rows.values()))), len(probes)))
    for centring, X in rows.items():
        columns = np.array([c == centring for c in centrings])
        scores[:, columns] = X @ directions[:, columns]
    return scores + np.array([probe.bias for probe in fitted])


def _log_odds(scores: Array, fitted_on: list[tuple[ProbeName, str]], task: Task, split: int) -> Array:
    """Turn scores that are no log-odds into such by Platt scaling on the training rows, (row, probe)."""
    log_odds = scores.copy()
    for column, (probe, train_set) in enumerate(fitted_on):
        if not probe.about.log_odds:
            train = task.training(train_set, split)
            slope, offset = linear.platt(scores[train, column], task.labels[train])
            log_odds[:, column] = slope * scores[:, column] + offset
    return log_odds


def _measure(scores: Array, log_odds: Array, labels: NDArray) -> dict[str, Array]:
    """Return the metrics of scores and log-odds (row, probe), each (probe,)."""
    return {
        "accuracy": metrics.accuracy(scores, labels),
        "auroc": metrics.auroc(scores, labels),
        "brier": metrics.brier(log_odds, labels),
        "calibration_error": metrics.calibration_error(log_odds, labels),
    }


def _tilted(X: NDArray, task: Task) -> dict[str, list[Array]]:
    """Return Sigma^-1 theta of every split if no probe has it already, by its name."""
    if TILTED in task.probes:
        return {}
    rows = np.asarray(X, dtype=np.float64)
    fitted = _fit_set("", rows, task.compared_on, [TILTED], task)
    return {SIGMA_INV_THETA: [probe.direction for probe in fitted.values()]}


def _angles(
    directions: Mapping[str, LinearProbe], tilted: Mapping[str, dict[str, list[Array]]], task: Task
) -> pd.DataFrame:
    train_set, splits = task.compared_on, range(len(task.tests))
    rows, values = [], []
    for hook, reference in tilted.items():
        found = {
            probe.name: [directions[_key(hook, train_set, probe.name, split)].direction for split in splits]
            for probe in task.fitted_on(train_set)
        } | reference
        for a, b in combinations(found, 2):
            rows.append((hook, train_set, a, b))
            values.append([metrics.cosine(one, other) for one, other in zip(found[a], found[b], strict=True)])
    cosines = np.array(values).reshape(len(rows), len(splits))
    low, high = interval(cosines, task.seed)
    table = pd.DataFrame(rows, columns=["hook", "train_set", "probe_a", "probe_b"])
    return table.assign(value=cosines.mean(axis=1), low=low, high=high)


def _facts(directions: Mapping[str, LinearProbe], layers: Mapping[str, int]) -> pd.DataFrame:
    rows = []
    for key, probe in directions.items():
        hook, train_set, name, split = key.rsplit("/", 3)
        rows += [(hook, layers[hook], name, train_set, int(split), *fact) for fact in probe.facts.items()]
    return pd.DataFrame(rows, columns=FACT_COLUMNS)
