"""Scores of probes on labelled rows: accuracy, AUROC, and how well probabilities are calibrated. Columns are probes.

Source: Guo et al., On Calibration of Modern Neural Networks (2017), for the expected calibration error; Brier (1950).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import rankdata

from actspace.probes.linear import Array

BINS = 10


def accuracy(scores: Array, labels: NDArray) -> Array:
    """Return the share of rows on the right side of 0 for each column of scores (row, probe); 0 itself counts half."""
    return ((np.sign(scores) * (2 * labels - 1)[:, None] + 1) / 2).mean(axis=0)


def auroc(scores: Array, labels: NDArray) -> Array:
    """Return P(score of a true statement > score of a false one), ties half, for each column of scores (row, probe)."""
    n_true = int((labels == 1).sum())
    ranks = rankdata(scores, axis=0)[labels == 1].sum(axis=0)
    return (ranks - n_true * (n_true + 1) / 2) / (n_true * (len(labels) - n_true))


def brier(log_odds: Array, labels: NDArray) -> Array:
    """Return the mean squared difference of P(true) = sigmoid(log-odds) and the label, for each column."""
    return ((expit(log_odds) - labels[:, None]) ** 2).mean(axis=0)


def calibration_error(log_odds: Array, labels: NDArray) -> Array:
    """Return the expected calibration error of P(true) for each column of log-odds (row, probe).

    The mean over 10 bins of P(true) of equal width, weighted by their rows, of |mean P(true) - share of true rows|. Few
    rows per bin bias it upwards: a calibrated probe has 0.11 to 0.13 on 60 rows, so compare it at equal numbers of rows.
    """
    probability = expit(log_odds)
    bins = np.minimum((probability * BINS).astype(int), BINS - 1)
    excess = probability - labels[:, None]
    gaps = [np.abs(np.where(bins == number, excess, 0.0).sum(axis=0)) for number in range(BINS)]
    return np.sum(gaps, axis=0) / len(labels)


def cosine(a: Array, b: Array) -> float:
    """Return the cosine of two directions (d_model,); NaN if one of them is zero."""
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / norms) if norms > 0 else float("nan")
