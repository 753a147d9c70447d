"""Cascades of two probes: a cheap first stage scores every input, an expensive second one what the first passes on.

Source: Heimersheim's shortform on probes in white-box monitoring, after Hua et al., Combining Cost-Constrained Runtime
Monitors for AI Safety (2025). A probe at an early layer is the cheap one, for the forward pass may stop there.

Thresholds are never set on the rows that a probe was fitted on, where it separates far better than elsewhere and a
threshold would let through many times the false positives that it promises; nor on those it is judged by. The held-out
entities of a split are divided into folds, and each fold is judged by thresholds from the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from actspace.errors import StudyError
from actspace.probes.entities import folds, names_in
from actspace.probes.evaluation import splits_of
from actspace.probes.linear import POOLED, Array, LinearProbe
from actspace.probes.summary import BOTH, CASCADE, CHANCE, FIRST_ALONE, SECOND_ALONE, interval, layers_of
from actspace.seeds import rng_for, seed_for

FOLDS = 10
METRICS = ("recall", "false_positive_rate", "share_passed_on", "blocks_run")
KEYS = [*CASCADE, "stages", "allowed_rate", "share"]
COLUMNS = [*KEYS, "metric", "value", "low", "high", "n_splits", "n_positive", "n_negative"]
Mask = NDArray[np.bool_]
Fold = tuple[Mask, Mask]
"""The rows (row,) that set thresholds, and those that are judged by them: they share no entity."""


@dataclass(frozen=True)
class Stage:
    """A probe at a hook point; its scores rise with how likely the wanted label is."""

    probe: str
    hook: str
    layer: int
    scores: Sequence[Array]  # (row,) for each split


@dataclass(frozen=True)
class Held:
    """The rows that a split holds out: which are wanted, and the fold in which each is judged."""

    rows: Mask  # (all rows,)
    wanted: Mask  # (row,)
    folds: list[Fold]

    @property
    def judged(self) -> Mask:
        """Rows that some fold judges: all but compound ones whose entities are in two folds."""
        return np.logical_or.reduce([judged for _, judged in self.folds])


def flagged(first: Array, second: Array, wanted: Mask, fold: Fold, share: float, rate: float) -> tuple[Mask, Mask]:
    """Run a cascade whose thresholds are set on other rows than those that are judged.

    Parameters
    ----------
    first, second : float (row,), scores of both stages
    wanted : (row,)
    fold : what sets thresholds, and what is judged
    share : of the rows that set thresholds, how many the first stage passes on, those with its highest scores; 1 makes it stand aside
    rate : false-positive rate that the cascade is allowed

    Returns
    -------
    flagged, passed on : (judged row,) each

    Raises
    ------
    StudyError
        If the rows that set thresholds have too few unwanted ones for the rate.

    The cascade's score is the second stage's where the first passes a row on, and lowest elsewhere. Of n unwanted rows
    beside it, a new one is equally likely to have any rank, so it is flagged with probability at most `rate` if it must
    exceed the floor(rate (n + 1))-th highest of them (split conformal prediction: Vovk et al., 2005). The first
    threshold is set on the same rows, which makes this approximate; the rate that was met is reported beside.
    """
    beside, judged = fold
    passes = first >= first_threshold(first[beside], share)
    joint = np.where(passes, second, -np.inf)
    limit = second_threshold(joint[beside & ~wanted], rate)
    return (joint > limit)[judged], passes[judged]


def first_threshold(scores: Array, share: float) -> float:
    """Return the score that this share of rows reach, rounded to whole rows, ties included; 1 is for all there may be."""
    n_passed = round(share * len(scores))
    if share == 1:
        return -np.inf
    return float(np.sort(scores)[len(scores) - n_passed]) if n_passed else np.inf


def second_threshold(unwanted: Array, rate: float) -> float:
    """Return the score that a new unwanted row exceeds with probability `rate` at most, from those of others (row,)."""
    n_allowed = int(rate * (len(unwanted) + 1) + 1e-9)  # 0.29 * 100 is a little less than 29
    if n_allowed == 0:
        needed = int(np.ceil(1 / rate - 1e-9)) - 1
        found = f"a false-positive rate of {rate:g} needs {needed} unwanted statements to set a threshold on"
        raise StudyError(f"monitoring: {found}, found {len(unwanted)}; raise it, `test_fraction` or `per_set`")
    return float(np.sort(unwanted)[len(unwanted) - n_allowed])


def evaluate(
    activations: Mapping[str, NDArray],
    statements: pd.DataFrame,
    probes: Mapping[str, LinearProbe],
    cfg: Mapping[str, Any],
) -> pd.DataFrame:
    """Measure every pair of a first and a second stage, at every share passed on, on held-out statements.

    Parameters
    ----------
    activations : hook -> float (row, d_model), of all hooks that stages name
    statements : label and group, one row each
    probes : "hook/all/probe/split" -> probe, fitted on the rows that the split does not hold out
    cfg : `hooks` (of the capture), `splits`, `test_fraction`, `seed` (of the probe study) and `monitoring`: `first` and
        `second` (lists of `probe` and `hook`), `label`, `false_positive_rates`, `shares`

    Returns
    -------
    DataFrame with `COLUMNS`: one row per pair, way of putting stages together (`stages`), rate that is allowed, share
    and metric, with the mean over splits, its 95% bootstrap interval over splits, and the numbers of held-out rows with
    and without the wanted label, means over splits. The metrics are `recall`, the `false_positive_rate` and the
    `share_passed_on` that were met, and `blocks_run`, the mean number of blocks of the model that an input needs.
    """
    settings, groups = cfg["monitoring"], statements["group"].to_numpy()
    wanted = statements["label"].to_numpy() == settings["label"]
    splits = splits_of(groups, cfg["splits"], cfg["test_fraction"], cfg["seed"])
    held = [_held(test, wanted, groups, seed_for(cfg["seed"], "folds", i)) for i, (_, test) in enumerate(splits)]
    sign = 1.0 if settings["label"] == 1 else -1.0
    layers = layers_of(cfg["hooks"])
    first, second = (
        [
            _stage(**chosen, layers=layers, held=held, activations=activations, probes=probes, sign=sign)
            for chosen in named
        ]
        for named in (settings["first"], settings["second"])
    )
    drawn = [rng_for(cfg["seed"], CHANCE, split).random(len(part.wanted)) for split, part in enumerate(held)]
    first.append(Stage(CHANCE, "", 0, drawn))
    rates, shares = settings["false_positive_rates"], settings["shares"]
    rows = [row for a, b in product(first, second) for row in _pair(a, b, held, rates, shares)]
    table = pd.DataFrame([row[:-1] for row in rows], columns=[*KEYS, "metric"])
    values = np.array([row[-1] for row in rows])
    low, high = interval(values, cfg["seed"])
    n_positive, n_negative = (
        np.mean([np.sum(part.wanted[part.judged] == label) for part in held]) for label in (True, False)
    )
    counts = {"n_splits": len(held), "n_positive": n_positive, "n_negative": n_negative}
    return table.assign(value=values.mean(axis=1), low=low, high=high, **counts)[COLUMNS]


def _held(test: Mask, wanted: Mask, groups: NDArray, seed: int) -> Held:
    """Divide held-out rows into folds by entity: ten, or as many as there are entities."""
    entities = len(names_in(groups[test]))
    if entities < 2:
        raise StudyError("monitoring: a split holds out one entity; raise `test_fraction`")
    return Held(test, wanted[test], folds(groups[test], min(FOLDS, entities), seed))


def _stage(
    probe: str,
    hook: str,
    layers: Mapping[str, int],
    held: Sequence[Held],
    activations: Mapping[str, NDArray],
    probes: Mapping[str, LinearProbe],
    sign: float,
) -> Stage:
    found = [probes[f"{hook}/{POOLED}/{probe}/{split}"] for split in range(len(held))]
    scores = [sign * p.scores(activations[hook][part.rows]) for p, part in zip(found, held, strict=True)]
    return Stage(probe, hook, layers[hook], scores)


def _pair(
    first: Stage, second: Stage, held: Sequence[Held], rates: Sequence[float], shares: Sequence[float]
) -> list[tuple[Any, ...]]:
    """Measure one pair; the first stage alone is a cascade of itself that passes nothing on."""
    about = (first.probe, first.hook, first.layer, second.probe, second.hook, second.layer)
    ways = [(BOTH, share) for share in sorted({*shares} - {1.0})] + [(SECOND_ALONE, 1.0)]
    ways = ways if first.probe == CHANCE else [(FIRST_ALONE, 0.0), *ways]
    rows: list[tuple[Any, ...]] = []
    for rate, (stages, share) in product(rates, ways):
        final, passing = (first, 1.0) if stages == FIRST_ALONE else (second, share)
        parts = zip(first.scores, final.scores, held, strict=True)
        met = np.array([_met(one, other, part, passing, rate) for one, other, part in parts])
        if stages == FIRST_ALONE:
            met[:, 2] = 0.0
        start = 0 if stages == SECOND_ALONE else first.layer
        deeper = met[:, 2] * max(second.layer - start, 0)
        values = [*met.T, start + deeper]
        rows += [(*about, stages, rate, share, metric, v) for metric, v in zip(METRICS, values, strict=True)]
    return rows


def _met(first: Array, second: Array, held: Held, share: float, rate: float) -> tuple[float, float, float]:
    """Return recall, false-positive rate and share passed on over all folds of a split."""
    raised, passed = (np.zeros(len(held.wanted), dtype=bool) for _ in range(2))
    for fold in held.folds:
        raised[fold[1]], passed[fold[1]] = flagged(first, second, held.wanted, fold, share, rate)
    of_wanted, of_others = (held.judged & side for side in (held.wanted, ~held.wanted))
    return float(raised[of_wanted].mean()), float(raised[of_others].mean()), float(passed[held.judged].mean())
