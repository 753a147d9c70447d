"""Statistics of what dictionaries make of the points between two activations. Intervals resample documents.

What is read out, and why, stands in `spikes`."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from actspace.perturbations.statistics import interval, resample
from actspace.seeds import rng_for

TOY = "toy_superposition"
"""The experiment whose answer is known."""
SOURCES = ("real", "covariance_random")
FIT = ["experiment", "dictionaries", "hook", "fit", "family"]
QUANTITIES = {"error_bump": "error", "unexplained_bump": "unexplained", "latents_bump": "active_latents"}
KNOWN = {"error": "known_error", "active_latents": "known_latents"}
Array = NDArray[np.float64]


def spike_statistics(table: pd.DataFrame, seed: int, n_boot: int = 1000) -> pd.DataFrame:
    """Say by how much read-outs rise between two vectors: the middle minus the mean of the two ends.

    Intervals are 95% bootstraps of the mean over pairs. Real pairs are resampled by the document of their first vector,
    random pairs one by one; the two kinds are drawn independently, and their difference is resampled so.

    Parameters
    ----------
    table : DataFrame
        As `spikes.run` gives it, of one or more experiments.

    Returns
    -------
    DataFrame
        experiment, dictionaries, hook, fit, family, statistic (error_bump, unexplained_bump or latents_bump), source (real,
        covariance_random or real_minus_covariance_random), value, low, high, n_pairs, n_documents
    """
    rows = []
    for key, fit in table.groupby(FIT, sort=False, observed=True):
        for statistic, quantity in QUANTITIES.items():
            samples = {}
            for source, some in fit.groupby("source", sort=False, observed=True):
                samples[str(source)] = _resampled(bumps(some, quantity), str(source), seed, n_boot)
            labels = dict(zip(FIT, key, strict=True)) | {"statistic": statistic}
            size = _sizes(fit)
            found = dict(samples)
            if set(SOURCES) <= set(samples):
                found["real_minus_covariance_random"] = samples["real"] - samples["covariance_random"]
            rows += [labels | {"source": source} | interval(values) | size for source, values in found.items()]
    return pd.DataFrame(rows)


def _sizes(fit: pd.DataFrame) -> dict[str, int]:
    """Count pairs of each source, and documents of real ones."""
    real = fit[fit["source"] == "real"]
    return {"n_pairs": int(fit["pair"].nunique()), "n_documents": int(real["document"].nunique())}


def bumps(table: pd.DataFrame, quantity: str) -> pd.Series:
    """Return the middle minus the mean of the two ends of each pair of one fit and source, by document."""
    wide = table.pivot(index=["pair", "document"], columns="step", values=quantity)
    last = wide.columns.max()
    return (wide[last // 2] - (wide[0] + wide[last]) / 2).droplevel("pair")


def _resampled(values: pd.Series, source: str, seed: int, n_boot: int) -> Array:
    """Return the mean of the data and of each bootstrap sample of documents, (n_boot + 1,)."""
    by_document = values.groupby(level="document").agg(["sum", "size"]).to_numpy(np.float64)
    counts = resample(len(by_document), n_boot, int(rng_for(seed, source).integers(2**31)))
    total, number = (counts @ by_document).T
    return total / number


def medians(table: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """Give median and quartiles over pairs at each step, and the median of the known answer where there is one.

    Parameters
    ----------
    quantity : "error", "unexplained" or "active_latents"

    Returns
    -------
    DataFrame
        experiment, dictionaries, hook, fit, family, source, fraction, median, lower_quartile, upper_quartile, known
    """
    keys = [*FIT, "source", "fraction"]
    steps = table.groupby(keys, sort=False, observed=True)
    found = steps[quantity].quantile(np.array([0.25, 0.5, 0.75])).unstack()
    found.columns = pd.Index(["lower_quartile", "median", "upper_quartile"])
    known = KNOWN.get(quantity)
    return found.assign(known=steps[known].median() if known in table else np.nan).reset_index()
