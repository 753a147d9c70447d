"""Intervals of what is computed from several estimates at once: from copies of them with noise of their standard errors."""

from __future__ import annotations

import numpy as np
import pandas as pd

N_DRAWS = 2000


def standard_error(rows: pd.DataFrame, metric: str) -> pd.Series:
    """Return the standard errors (row,) that the 95% intervals of a metric stand for."""
    return (rows[f"{metric}_high"] - rows[f"{metric}_low"]) / (2 * 1.96)


def with_noise(values: np.ndarray, errors: np.ndarray, n_draws: int = N_DRAWS) -> np.ndarray:
    """Return numbers (..., fit), then `n_draws` copies with normal noise of their standard errors: (..., 1 + draw, fit).

    The draws are the same in every call.
    """
    noise = np.random.default_rng(0).standard_normal((*values.shape[:-1], n_draws + 1, values.shape[-1]))
    noise[..., 0, :] = 0
    return values[..., None, :] + noise * errors[..., None, :]


def over_draws(found: np.ndarray) -> tuple[float, float, float]:
    """Return the first number, and the ends of the interval that 95% of the others span; it is part of it."""
    low, high = np.quantile(found[1:], [0.025, 0.975])
    # Noise can only bend a straight line, so all draws may lie below the estimate.
    return found[0], min(low, found[0]), max(high, found[0])
