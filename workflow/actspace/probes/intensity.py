"""Is intensity magnitude? Whether grades of one concept lie along one direction with growing length, or in directions of their own.

Source: the question is Heimersheim's (list of short project ideas). What a grade does is the activation of the graded
phrase minus that of the neutral phrase with the same adjective.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from actspace.errors import StudyError
from actspace.probes.linear import Array
from actspace.probes.phrases import ADJECTIVE, GRADE
from actspace.probes.summary import RESAMPLES, layers_of
from actspace.seeds import rng_for
from actspace.threads import limited_to

REAL, SHUFFLED = "in order", "shuffled"
SHUFFLES = 10
COLUMNS = ["hook", "layer", "grades", "metric", "grade", "value", "low", "high", "n_adjectives", "n_folds"]


class Held(NamedTuple):
    """What is measured on held-out adjectives: sums (adjective,) whose ratio is a metric, by metric and grade."""

    above: dict[tuple[str, int], Array]
    below: dict[tuple[str, int], Array]


def evaluate(activations: Mapping[str, NDArray], phrases: pd.DataFrame, folds: int, seed: int) -> pd.DataFrame:
    """Measure directions of grades on adjectives that they were not estimated from.

    Parameters
    ----------
    activations : hook -> float (row, d_model), one row per phrase
    phrases : adjective and grade (0 is neutral), every adjective with all grades
    folds : every adjective is held out once, with n / folds others
    seed : of folds, permutations and the bootstrap

    Returns
    -------
    DataFrame with `COLUMNS`: one row per hook, metric and `grades` (in order, or shuffled within each adjective, the mean of ten
    times). Means
    over held-out adjectives with 95% bootstrap intervals over them. With d the effects of grades:
    `along_one_direction`, the share of sum |d|^2 along the first principal direction of the training effects through
    the origin; `along_own_directions`, the share along the mean training effect of each grade; `monotonicity`,
    Spearman's correlation of the projection on the one direction (which points where effects go on average) with the
    grade; `cosine_same_grade` and `cosine_other_grades` of an effect with the mean training effects of its grade and of
    the others; `cosine_gap`, the former minus the latter: 0 for one direction; `projection` of each `grade` on
    the one direction, divided by the root mean square of |d|. `grade` is 0 for what all grades share. What no effect
    has anything of is NaN: before the first block the last token knows of no grade.
    """
    adjectives = list(dict.fromkeys(phrases[ADJECTIVE]))
    if folds > len(adjectives) // 2:
        raise StudyError(
            f"concepts: {folds} folds of {len(adjectives)} adjectives; give two adjectives per fold or more"
        )
    place = phrases.reset_index().pivot(index=ADJECTIVE, columns=GRADE, values="index").loc[adjectives].to_numpy(int)
    held = np.array_split(rng_for(seed, "folds").permutation(len(adjectives)), folds)
    n = len(adjectives)
    counts = np.vstack([np.ones(n), rng_for(seed, "bootstrap").multinomial(n, np.full(n, 1 / n), RESAMPLES)])
    layers, tables = layers_of(activations), []
    for hook, X in activations.items():
        x = np.asarray(X, dtype=np.float64)[place]
        effects = x[:, 1:] - x[:, :1]
        with limited_to(1):
            found = {REAL: _measure(effects, held), SHUFFLED: _shuffled(effects, held, seed)}
        for grades, measured in found.items():
            tables.append(_summary(measured, counts).assign(hook=hook, layer=layers[hook], grades=grades))
    return pd.concat(tables, ignore_index=True).assign(n_adjectives=n, n_folds=folds)[COLUMNS]


def _shuffled(effects: Array, held: Sequence[NDArray], seed: int) -> Held:
    """Measure effects whose grades are in another order for every adjective, on average over orders."""
    rng, grades = rng_for(seed, "shuffled"), np.tile(np.arange(effects.shape[1]), (len(effects), 1))
    orders = [rng.permuted(grades, axis=1) for _ in range(SHUFFLES)]
    found = [_measure(np.take_along_axis(effects, order[:, :, None], axis=1), held) for order in orders]
    above = {key: np.mean([one.above[key] for one in found], axis=0) for key in found[0].above}
    return Held(above, found[0].below)


def _measure(effects: Array, held: Sequence[NDArray]) -> Held:
    """Measure the effects of grades (adjective, grade, d_model) of every fold by directions from the other folds."""
    n, n_grades, _ = effects.shape
    squares = (effects**2).sum(axis=2)
    one, own = np.zeros((n, n_grades)), np.zeros((n, n_grades))
    cosines = np.zeros((n, n_grades, n_grades))
    for fold in held:
        train = np.delete(effects, fold, axis=0)
        means = _unit(train.mean(axis=0))
        one[fold] = effects[fold] @ _direction(train)
        cosines[fold] = _unit(effects[fold]) @ means.T
        own[fold] = np.einsum("agd,gd->ag", effects[fold], means)
    same = np.diagonal(cosines, axis1=1, axis2=2).mean(axis=1)
    other = (cosines.sum(axis=(1, 2)) - n_grades * same) / (n_grades * (n_grades - 1))
    total, each = squares.sum(axis=1), np.ones(n)
    above = {
        ("along_one_direction", 0): (one**2).sum(axis=1),
        ("along_own_directions", 0): (own**2).sum(axis=1),
        ("monotonicity", 0): _spearman(one),
        ("cosine_same_grade", 0): same,
        ("cosine_other_grades", 0): other,
        ("cosine_gap", 0): same - other,
    }
    below = {key: total if key[0].startswith("along") else each for key in above}
    scale = np.sqrt(squares.mean())
    for grade in range(n_grades):
        above["projection", grade + 1], below["projection", grade + 1] = one[:, grade], scale * each
    return Held(above, below)


def _direction(effects: Array) -> Array:
    """Return the first principal direction (d_model,) of effects through the origin, turned to where effects go on average.

    No order of grades is used: were the sign chosen by it, shuffled grades could seem to be in order.
    """
    rows = effects.reshape(-1, effects.shape[2])
    direction = np.linalg.svd(rows, full_matrices=False)[2][0]
    return direction * (1.0 if (rows @ direction).sum() >= 0 else -1.0)


def _unit(vectors: Array) -> Array:
    """Divide by the length along the last axis; what has none stays zero."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)


def _spearman(projections: Array) -> Array:
    """Return Spearman's correlation of each row (adjective, grade) with the order of grades; 0 where a row is constant."""
    ranks = rankdata(projections, axis=1)
    ranks = _unit(ranks - ranks.mean(axis=1, keepdims=True))
    order = np.arange(projections.shape[1]) - (projections.shape[1] - 1) / 2
    return ranks @ (order / np.linalg.norm(order))


def _summary(found: Held, counts: Array) -> pd.DataFrame:
    """Return each metric with the interval of its resamples (the later counts)."""
    rows = []
    nothing = not found.below["along_one_direction", 0].any()
    for (metric, grade), above in found.above.items():
        below = counts @ found.below[metric, grade]
        values = np.full(len(counts), np.nan) if nothing else counts @ above / below
        low, high = np.percentile(values[1:], [2.5, 97.5])
        rows.append((metric, grade, float(values[0]), float(low), float(high)))
    return pd.DataFrame(rows, columns=["metric", "grade", "value", "low", "high"])
