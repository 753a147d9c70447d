"""Structure beyond covariance: unexplained variance of a null of the data minus that of the real data, same method.

The null has as many rows, and its fit the same settings and seed. Against the Gaussian null the difference is what the
method finds in real activations that a Gaussian with their mean and covariance does not have.

The intervals are of held-out text, for these very fits; another seed of the training is another row. Real activations are
resampled by document, because tokens of one document are alike. What is right for a null depends on where its rows come
from:

- A surrogate's rows carry the keys of the real rows, but were drawn independently of one another and of the documents
  whose keys they carry. Grouping independent rows changes nothing but the precision of the bootstrap, so its documents
  may be resampled as well as its rows; and they are resampled apart from the real ones, since there is nothing to pair.
- A model with random weights reads the same text. Its documents are resampled together with the real ones, which takes
  out what both owe to the text.

Both follow from the resamples that each fit was measured in: those of fits to activations of one text are the same, and
those of a surrogate are its own. They are subtracted resample by resample.

Source: methods reference, 7.4 (null models); the difference, and its interval, are ours."""

from __future__ import annotations

import numpy as np
import pandas as pd

from actspace.dictionaries.fits import FIT_KEYS, per_fit
from actspace.dictionaries.metrics import bounds

PLACE = ["capture", "hook", "fit"]
LABELS = ["capture", "hook", "family", "fit", "n_latents", "k", "seed"]
COSTS = ["l0", "bits_per_vector"]


def beyond_nulls(metrics: pd.DataFrame, draws: pd.DataFrame) -> pd.DataFrame:
    """Compare every fit to real activations with the same fit to each null of them.

    Parameters
    ----------
    metrics : DataFrame
        As in the table `dictionary_metrics`.
    draws : DataFrame
        Columns capture, hook, data, fit, draw and fvu_pooled (definition A in that resample of the documents).

    Returns
    -------
    DataFrame with one row for each fit and null
        The labels of the fit, `l0` and `bits_per_vector` where they were measured, of the fit to real activations;
        `null`; `fvu_real` and `fvu_null`, definition A; `value`, `low` and `high`: null minus real, with its 95%
        interval; `relative`, `relative_low` and `relative_high`: 1 - real/null, the share of what the null leaves
        unexplained that structure explains; `real_beats_null`: `yes` where the interval lies above zero, `no` where
        none of it does, else `undecided`; `n_rows`, `n_rows_null` and `n_documents`. Ends are NaN where there were no
        resamples.
    """
    fits = per_fit(metrics)
    of_fit = {key: rows.sort_values("draw")["fvu_pooled"].to_numpy() for key, rows in draws.groupby(FIT_KEYS)}
    real = fits[fits["data"] == "real"].dropna(subset=["fvu_pooled"])
    nulls = fits[fits["data"] != "real"][[*FIT_KEYS, "fvu_pooled", "n_rows"]].rename(columns={"data": "null"})
    kept = [*LABELS, *(cost for cost in COSTS if cost in fits), "fvu_pooled", "n_rows", "n_documents"]
    table = real[kept].merge(nulls.dropna(subset=["fvu_pooled"]), on=PLACE, suffixes=("_real", "_null"))
    table = table.rename(
        columns={"fvu_pooled_real": "fvu_real", "fvu_pooled_null": "fvu_null", "n_rows_real": "n_rows"}
    )
    table["value"], table["relative"] = table["fvu_null"] - table["fvu_real"], 1 - table["fvu_real"] / table["fvu_null"]
    ends = [
        interval(of_fit.get((*place, "real", fit)), of_fit.get((*place, null, fit)))
        for *place, fit, null in table[[*PLACE, "null"]].itertuples(index=False)
    ]
    return table.join(pd.DataFrame(ends, index=table.index)).assign(
        real_beats_null=lambda t: np.select([t["low"] > 0, t["high"] <= 0], ["yes", "no"], "undecided")
    )


def interval(real: np.ndarray | None, null: np.ndarray | None) -> dict[str, float]:
    """Return the ends of the difference and of the share, from the unexplained variance in each resample (draw,)."""
    if real is None or null is None:
        return dict.fromkeys(("low", "high", "relative_low", "relative_high"), np.nan)
    return bounds(null - real) | {f"relative_{end}": value for end, value in bounds(1 - real / null).items()}
