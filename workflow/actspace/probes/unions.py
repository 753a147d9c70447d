"""Are unions of concepts sums? How much of the activations of held-out combinations the effects of their parts explain.

Source: the question is Heimersheim's (list of short project ideas); the model is the main-effects analysis of variance.

x(texture, colour, furniture) = mean + effect of the texture + effect of the colour + effect of the furniture, by least
squares on the other combinations. The model is deterministic: there is no noise and no ceiling but 1, and what the sum
leaves unexplained is interaction, or the error of effects estimated from few combinations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from actspace.errors import StudyError
from actspace.probes.linear import Array
from actspace.probes.summary import RESAMPLES, layers_of
from actspace.seeds import rng_for
from actspace.threads import limited_to

MEAN, SUM, PAIRS, SHUFFLED = "mean", "sum of parts", "parts and their pairs", "shuffled parts"
ALONE = " alone"
COLUMNS = ["hook", "layer", "model", "reference", "value", "low", "high", "n_phrases", "n_folds"]
CONSTANT = 1e-16
"""Share of the mean square of activations up to which a sum of squared errors is rounding of float32, squared."""


def evaluate(activations: Mapping[str, NDArray], phrases: pd.DataFrame, folds: int, seed: int) -> pd.DataFrame:
    """Measure what sums of effects explain of combinations that they were not estimated from.

    Parameters
    ----------
    activations : hook -> float (row, d_model), one row per phrase
    phrases : one column per part; each row is another combination
    folds : every combination is held out once, with n / folds others
    seed : of folds, permutations and the bootstrap

    Returns
    -------
    DataFrame with `COLUMNS`: one row per hook, model and reference. `value` is 1 - (squared error of the model) /
    (squared error of the reference), summed over held-out combinations and dimensions; its 95% interval is a bootstrap
    over combinations, which share words: it speaks of these words. Models are each part alone, the sum of parts, the
    sum with interactions of every two parts (of three or more), and parts with the labels of combinations permuted.
    References are the mean of the training combinations, and each part alone: what the other parts add to it, and what
    they add when they are permuted. Where the reference leaves nothing to explain, the value is NaN.

    Raises
    ------
    StudyError
        If a word is in no training combination of a fold.
    """
    parts = phrases.astype(str)
    held = np.array_split(rng_for(seed, "folds").permutation(len(parts)), folds)
    _check_words(parts, held)
    weights = {name: _weights(parts, held, name, seed) for name in _models(list(parts))}
    n = len(parts)
    counts = np.vstack([np.ones(n), rng_for(seed, "bootstrap").multinomial(n, np.full(n, 1 / n), RESAMPLES)])
    layers, rows = layers_of(activations), []
    for hook, X in activations.items():
        x = np.asarray(X, dtype=np.float64)
        with limited_to(1):
            errors = {name: ((x - W @ x) ** 2).sum(axis=1) for name, W in weights.items()}
        least = CONSTANT * float((x**2).sum())
        for model, reference in _compared(list(parts)):
            value, low, high = _explained(errors[model], errors[(reference,)], counts, least)
            rows.append((hook, layers[hook], _label(model, reference), reference, value, low, high, n, folds))
    return pd.DataFrame(rows, columns=COLUMNS)


def strongest_part(table: pd.DataFrame) -> str:
    """Return the part that explains most alone, on average over the hooks of a table as `evaluate` makes it."""
    alone = table[table["model"].str.endswith(ALONE)].groupby("model", sort=False)["value"].mean()
    return str(alone.idxmax()).removesuffix(ALONE)


Model = tuple[str, ...]
"""`(mean,)`, `(part,)`, `(sum of parts,)`, `(parts and their pairs,)`, or `(shuffled parts, the part that is kept or mean)`."""


def _models(parts: list[str]) -> list[Model]:
    shuffled = [(SHUFFLED, kept) for kept in (MEAN, *parts)]
    return [(MEAN,), *((part,) for part in parts), (SUM,), *([(PAIRS,)] if len(parts) > 2 else []), *shuffled]


def _compared(parts: list[str]) -> list[tuple[Model, str]]:
    """List what is compared with what: all with the mean, and the sum with each part alone."""
    beside_mean = [(model, MEAN) for model in _models(parts) if model[0] not in (MEAN, SHUFFLED)]
    beyond = [(model, part) for part in parts for model in ((SUM,), (SHUFFLED, part))]
    return [*beside_mean, ((SHUFFLED, MEAN), MEAN), *beyond]


def _label(model: Model, reference: str) -> str:
    return model[0] if model[0] in (SUM, PAIRS, SHUFFLED) else f"{model[0]}{ALONE}"


def _check_words(parts: pd.DataFrame, held: Sequence[NDArray]) -> None:
    for fold in held:
        train = parts.drop(index=parts.index[fold])
        for part in parts:
            if lost := sorted(set(parts[part]) - set(train[part])):
                found = f"the {part} '{lost[0]}' is in no training combination of a fold"
                raise StudyError(f"concepts: {found}; give more words of the other parts or raise `folds`")


def _weights(parts: pd.DataFrame, held: Sequence[NDArray], model: Model, seed: int) -> Array:
    """Return W (row, row) such that W @ x predicts every combination from those of the other folds.

    Least squares is linear in the activations, so that one W serves all hooks and dimensions.
    """
    W = np.zeros((len(parts), len(parts)))
    for number, fold in enumerate(held):
        train = np.setdiff1d(np.arange(len(parts)), fold)
        labels = parts
        if model[0] == SHUFFLED:
            order = rng_for(seed, *model, number).permutation(len(parts))
            labels = parts.iloc[order].reset_index(drop=True)
            labels = labels if model[1] == MEAN else labels.assign(**{model[1]: parts[model[1]].to_numpy()})
        design = _design(labels, model)
        W[np.ix_(fold, train)] = design[fold] @ np.linalg.pinv(design[train], rcond=1e-10)
    return W


def _design(labels: pd.DataFrame, model: Model) -> Array:
    """Return a column of ones and one indicator per word, or pair of words, of a model (row, column)."""
    columns = list(labels) if model[0] in (SUM, PAIRS, SHUFFLED) else [part for part in model if part != MEAN]
    keys = [labels[part] for part in columns]
    if model[0] == PAIRS:
        keys += [labels[a] + "\x1f" + labels[b] for a, b in combinations(columns, 2)]
    indicators = [pd.get_dummies(key).to_numpy(dtype=np.float64) for key in keys]
    return np.hstack([np.ones((len(labels), 1)), *indicators])


def _explained(errors: Array, reference: Array, counts: Array, least: float) -> tuple[float, float, float]:
    """Return 1 - errors / reference over all rows, and the 95% percentile interval of resamples (the later counts)."""
    if reference.sum() <= least:
        return float("nan"), float("nan"), float("nan")
    values = 1 - counts @ errors / (counts @ reference)
    low, high = np.percentile(values[1:], [2.5, 97.5])
    return float(values[0]), float(low), float(high)
