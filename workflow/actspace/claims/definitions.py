"""Claims about the definitions of explained variance, which are no two alike."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd

from actspace.claims.dictionaries import SAES, any_of, at_hook_points, best, fits_by_place, select
from actspace.claims.entry import NotTestedError, Tables, claims_of, estimate_of
from actspace.claims.intervals import Above, Estimate, Within, complement, difference
from actspace.claims.noise import N_DRAWS, over_draws, standard_error, with_noise
from actspace.claims.sources import DEFINITIONS as POST
from actspace.claims.sources import ENGELS

DEFINITIONS = {
    "A": "fvu_pooled",
    "B": "fvu_per_row",
    "C": "fvu_per_dimension",
    "V": "fvu_residual_variance",
    "Z": "fvu_uncentred",
}
ENGELS_EXPLAINED, ENGELS_BY_FIRST_DEFINITION = 0.60, 0.72
TOLERANCE = 0.05
SPHERICAL = "kmeans_spherical"


def spread_of_definitions(row: pd.Series) -> Estimate:
    """Largest minus smallest of one fit's five numbers, with the widest interval that theirs allow."""
    values, lows, highs = (row[[f"{m}{end}" for m in DEFINITIONS.values()]] for end in ("", "_low", "_high"))
    narrowest, widest = lows.max() - highs.min(), highs.max() - lows.min()
    ends = (max(float(narrowest), 0.0), float(widest)) if lows.notna().all() else (np.nan, np.nan)
    return Estimate(float(values.max() - values.min()), *ends)


def definitions_spread(tables: Tables) -> Estimate:
    """Spread of the five definitions: the median over fits; medians of the ends enclose the median of the truth."""
    fits = pd.concat(fits_by_place(tables).values())
    fits = fits[fits["data"] == "real"]
    missing = [m for m in DEFINITIONS.values() if m not in fits]
    complete = fits if missing else fits.dropna(subset=list(DEFINITIONS.values()))
    if missing or complete.empty:
        raise NotTestedError("no fit with all five definitions of unexplained variance")
    spreads = [spread_of_definitions(row) for _, row in complete.iterrows()]
    value, low, high = (float(np.median([getattr(s, end) for s in spreads])) for end in ("value", "low", "high"))
    order = " > ".join(complete[[*DEFINITIONS.values()]].median().rename(_letters()).sort_values()[::-1].index)
    # A residual's variance and a denominator without the mean can only make the number smaller.
    above = (complete[["fvu_residual_variance", "fvu_uncentred"]].max(axis=1) > complete["fvu_pooled"] + 1e-9).sum()
    reservation = f"V or Z exceeds A in {above} fits, which the definitions rule out" if above else ""
    return Estimate(value, low, high, f"{len(complete)} fits; by their medians {order}", reservation)


def _letters() -> dict[str, str]:
    return {metric: letter for letter, metric in DEFINITIONS.items()}


def proportional(fits: pd.DataFrame) -> Estimate:
    """Say how well one factor turns the definition A of SAEs into B."""
    saes = any_of(fits, SAES, "fvu_pooled", "fvu_per_row")
    if saes["fvu_pooled"].round(6).nunique() < 3:
        raise NotTestedError("fewer than three SAEs with different unexplained variance")
    ratios = saes["fvu_per_row"] / saes["fvu_pooled"]
    detail = f"{len(saes)} SAEs; B is {ratios.min():.2f} to {ratios.max():.2f} times A"
    return Estimate(*over_draws(share_by_one_factor(saes)), detail)


def share_by_one_factor(fits: pd.DataFrame, n_draws: int = N_DRAWS) -> np.ndarray:
    """Return the share of B's variance over fits that B = cA explains, then that of copies of both `with_noise`.

    c is the factor of least squares; below 0 where even the mean of B predicts it better. B without variance gives NaN.
    """
    metrics = ["fvu_pooled", "fvu_per_row"]
    errors = np.stack([standard_error(fits, metric) for metric in metrics])
    a, b = with_noise(fits[metrics].to_numpy().T, errors, n_draws)
    factor = (a * b).sum(axis=1) / (a * a).sum(axis=1)
    left = ((b - factor[:, None] * a) ** 2).sum(axis=1)
    variation = ((b - b.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
    return 1 - np.divide(left, variation, out=np.full(n_draws + 1, np.nan), where=variation > 0)


def spherical_explained(fits: pd.DataFrame) -> Estimate:
    """Return the variance that the best spherical k-means explains."""
    return complement(best(select(fits, SPHERICAL)))


def gain_by_first_definition(fits: pd.DataFrame) -> Estimate:
    """Return by how much more the best spherical k-means explains by the uncentred definition than by A."""
    clusters = select(fits, SPHERICAL)
    row = clusters.iloc[int(clusters["fvu_pooled"].to_numpy().argmin())]
    return difference(estimate_of(row, "fvu_pooled"), estimate_of(row, "fvu_uncentred"), str(row["fit"]))


_claim = claims_of(table="dictionary_metrics", figure="variance_definitions", unit="fraction of variance")
CLAIMS = (
    _claim(
        id="definitions_disagree",
        title="Definitions of explained variance disagree",
        source=POST,
        sentence="The definitions in use give different numbers for one and the same fit.",
        statistic="largest minus smallest of the five definitions for one fit, median over fits",
        compute=definitions_spread,
        criterion=Above(0.05),
        tolerance="0.05 above 0, ours: smaller differences would change no conclusion.",
        note="A: pooled; B: per row; C: per dimension; V: residual variance; Z: uncentred.",
    ),
    _claim(
        id="definitions_are_proportional",
        title="Two definitions are about proportional",
        source=POST,
        sentence="Over SAEs at one hook point, the unexplained variance per row (B) is about one factor times the pooled one (A).",
        statistic="share of the variance of B over SAEs that one factor times A explains",
        unit="R²",
        compute=partial(at_hook_points, statistic=proportional),
        criterion=Above(0.9),
        tolerance="0.1 below 1, ours: the post says approximately.",
        note="The author found another factor for each layer. The interval treats the errors of A and B as independent.",
    ),
    _claim(
        id="kmeans_explains_60",
        title="k-means explains 60% of the variance",
        source=ENGELS,
        sentence="Clustering explains 60% of the variance of activations, fewer than first published.",
        statistic="explained variance of the best spherical k-means (1 minus definition A)",
        compute=partial(at_hook_points, statistic=spherical_explained),
        criterion=Within(ENGELS_EXPLAINED - TOLERANCE, ENGELS_EXPLAINED + TOLERANCE),
        tolerance=f"{TOLERANCE:g} either side of the published {ENGELS_EXPLAINED:.0%}, ours.",
        note="Measured for Pythia with k-means on the unit sphere. Led the author of the post to correct it.",
    ),
    _claim(
        id="first_definition_adds_12_points",
        title="The first definition adds 12 points to k-means",
        source=ENGELS,
        sentence="By the definition that the post first used, whose denominator does not subtract the mean, the same clusters "
        "explain 72% and not 60%.",
        statistic="unexplained variance of the best spherical k-means by definition A minus that by Z",
        compute=partial(at_hook_points, statistic=gain_by_first_definition),
        criterion=Within(
            ENGELS_BY_FIRST_DEFINITION - ENGELS_EXPLAINED - TOLERANCE,
            ENGELS_BY_FIRST_DEFINITION - ENGELS_EXPLAINED + TOLERANCE,
        ),
        tolerance=f"{TOLERANCE:g} either side of the published 12 points, ours.",
        note="The post was corrected after this. That Z is at most A follows from the definitions; how much smaller does not.",
    ),
)
