"""One row per fit: how claims, figures and comparisons read the long table of metrics."""

from __future__ import annotations

import pandas as pd

from actspace.errors import StudyError

FIT_KEYS = ["capture", "hook", "data", "fit"]
N_ATOMS = (1, 2, 4)
"""How many latents of the smaller fit stand in the sums for which the table of matches has columns."""
MOST_ROWS = 2048
"""At most so many latents of the larger fit are rebuilt, with a parent and without."""


def per_fit(metrics: pd.DataFrame) -> pd.DataFrame:
    """Turn the metrics of dictionaries from one row per metric into one row per fit.

    Parameters
    ----------
    metrics : DataFrame
        Columns capture, hook, data, family, fit, n_latents, k, seed, metric, value, low, high, n_rows, n_documents.

    Returns
    -------
    DataFrame with the columns of a fit and, for each metric m, `m`, `m_low` and `m_high`

    Raises
    ------
    StudyError
        If a fit has the same metric twice.
    """
    twice = metrics[metrics.duplicated([*FIT_KEYS, "metric"])]
    if len(twice):
        named = ", ".join(str(twice.iloc[0][key]) for key in FIT_KEYS)
        raise StudyError(f"dictionary metrics: {named} stands twice; fit it in one dictionary study alone")
    fits = metrics.groupby(FIT_KEYS, sort=False)[["family", "n_latents", "k", "seed"]].first()
    # Metrics of random vectors and of latents have counts that are none of text.
    of_text = metrics[metrics["n_documents"] > 0]
    counts = of_text.groupby(FIT_KEYS, sort=False)[["n_rows", "n_documents"]].max()
    columns = [
        metrics.pivot(index=FIT_KEYS, columns="metric", values=end).add_suffix(suffix)
        for end, suffix in (("value", ""), ("low", "_low"), ("high", "_high"))
    ]
    return fits.join([counts, *columns]).reset_index()
