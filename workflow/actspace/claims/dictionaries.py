"""Claims about clustering and sparse autoencoders (SAEs): how much variance they explain, and what that is worth."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd

from actspace.claims.entry import Claim, NotTestedError, Tables, estimate_of, rows_of, where_tested
from actspace.claims.intervals import Above, Estimate, Within, complement, difference, everywhere
from actspace.dictionaries.fits import per_fit

SHORTFORM = "Heimersheim, LessWrong: shortform on k-means and SAEs (corrected version)"
ENGELS = "Engels, comment on Heimersheim's shortform, LessWrong"
DEFINITIONS = {
    "A": "fvu_pooled",
    "B": "fvu_per_row",
    "C": "fvu_per_dimension",
    "V": "fvu_residual_variance",
    "Z": "fvu_uncentred",
}
N_DRAWS = 2000


def fits_by_place(tables: Tables) -> dict[str, pd.DataFrame]:
    """Return one row per fit, for each hook point."""
    return by_place(per_fit(rows_of(tables, "dictionary_metrics")))


def by_place(fits: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Split a table of fits by hook point, named by hook (and capture, where a hook was captured twice)."""
    twice = fits.groupby("hook")["capture"].nunique().gt(1).any()
    names = fits["hook"] + (" of " + fits["capture"] if twice else "")
    return {str(name): rows for name, rows in fits.groupby(names, sort=False)}


def at_hook_points(tables: Tables, statistic: Callable[[pd.DataFrame], Estimate]) -> Estimate:
    """Compute a statistic of fits at every hook point that has what it needs."""
    return where_tested(fits_by_place(tables), statistic)


def select(fits: pd.DataFrame, family: str, data: str = "real", k: float | None = None) -> pd.DataFrame:
    """Return the fits of one family to one kind of data.

    Raises
    ------
    NotTestedError
        If there is none with a pooled unexplained variance.
    """
    chosen = fits[(fits["family"] == family) & (fits["data"] == data)]
    chosen = chosen if k is None else chosen[chosen["k"] == k]
    if "fvu_pooled" not in chosen or chosen["fvu_pooled"].notna().sum() == 0:
        active = "" if k is None else f" with k = {k:g}"
        raise NotTestedError(f"no {family} fit{active} to {data} activations")
    return chosen[chosen["fvu_pooled"].notna()]


def best(fits: pd.DataFrame) -> Estimate:
    """Return the lowest pooled unexplained variance (definition A) among fits, with the name of the fit."""
    row = fits.iloc[int(fits["fvu_pooled"].to_numpy().argmin())]
    found = estimate_of(row, "fvu_pooled")
    return Estimate(found.value, found.low, found.high, str(row["fit"]))


def kmeans_explained(fits: pd.DataFrame) -> Estimate:
    """Return the variance that the best k-means explains."""
    return complement(best(select(fits, "kmeans")))


def kmeans_against_l1(fits: pd.DataFrame) -> Estimate:
    """Unexplained variance of the best k-means minus that of every L1 SAE."""
    clusters = best(select(fits, "kmeans"))
    saes = {
        f"{row['fit']} with L0 = {row.get('l0', np.nan):.0f}": difference(clusters, estimate_of(row, "fvu_pooled"))
        for _, row in select(fits, "l1").iterrows()
    }
    return everywhere(saes)


def topk4_against_kmeans(fits: pd.DataFrame) -> Estimate:
    """Unexplained variance of the best TopK SAE with k = 4 minus that of the best k-means."""
    sae, clusters = best(select(fits, "topk", k=4)), best(select(fits, "kmeans"))
    return difference(sae, clusters, f"{sae.detail} and {clusters.detail}")


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


def line_points(fits: pd.DataFrame, data: str) -> pd.DataFrame:
    """Return log10 L0, unexplained variance and its standard error of the k-means and TopK fits."""
    rows = pd.concat([select(fits, family, data) for family in ("kmeans", "topk")])
    if "l0" not in rows or rows["l0"].round(6).nunique() < 3:
        raise NotTestedError(f"fewer than three different L0 among k-means and TopK fits to {data} activations")
    error = (rows["fvu_pooled_high"] - rows["fvu_pooled_low"]) / (2 * 1.96)
    return pd.DataFrame({"log_l0": np.log10(rows["l0"]), "fvu": rows["fvu_pooled"], "error": error})


def r_squared(points: pd.DataFrame, n_draws: int = N_DRAWS) -> np.ndarray:
    """Return R² of a straight line through the points, then through `n_draws` copies with normal noise added.

    The noise has each point's standard error; the draws are the same in every call. Points of one height give NaN.
    """
    noise = np.random.default_rng(0).standard_normal((n_draws + 1, len(points)))
    noise[0] = 0
    x = points["log_l0"].to_numpy() - points["log_l0"].mean()
    y = points["fvu"].to_numpy() + noise * points["error"].to_numpy()
    y = y - y.mean(axis=1, keepdims=True)
    variation, rounding = (y**2).sum(axis=1), len(points) * (8 * np.finfo(float).eps * points["fvu"].abs().max()) ** 2
    out = np.full(n_draws + 1, np.nan)
    return np.divide((y @ x) ** 2, (x @ x) * variation, out=out, where=variation > rounding)


def log_line(fits: pd.DataFrame) -> Estimate:
    """R² of a line in log L0, with a reservation where the surrogate's points are as straight."""
    real = r_squared(line_points(fits, "real"))
    low, high = np.quantile(real[1:], [0.025, 0.975])
    reservation, detail = _against_surrogate(fits, real)
    # Noise can only bend a straight line, so all draws may lie below the estimate.
    return Estimate(real[0], min(low, real[0]), max(high, real[0]), detail, reservation)


def _against_surrogate(fits: pd.DataFrame, real: np.ndarray) -> tuple[str, str]:
    """Return the reservation, empty where the real points are straighter in 97.5% of the draws, and the null's R²."""
    try:
        null = r_squared(line_points(fits, "gaussian"))
    except NotTestedError:
        return "there is no such line on a Gaussian surrogate to compare with", ""
    detail = f"Gaussian surrogate {null[0]:.3g}"
    straighter = np.quantile(real[1:] - null[1:], 0.025) > 0
    return ("" if straighter else "the points of the Gaussian surrogate lie on a line as straight"), detail


CLAIMS = (
    Claim(
        id="kmeans_explains_72_to_87",
        title="k-means explains 72 to 87% of the variance",
        source=SHORTFORM,
        sentence="Clustering alone, one active latent per token, explains 72 to 87% of the variance of activations.",
        table="dictionary_metrics",
        statistic="explained variance of the best k-means (1 minus definition A)",
        compute=partial(at_hook_points, statistic=kmeans_explained),
        criterion=Within(0.72, 0.87),
        figure="unexplained_variance",
        note="The author first used another definition of explained variance and corrected the post; Engels measured "
        "60%. "
        "Published for Pythia.",
    ),
    Claim(
        id="kmeans_comparable_to_saes",
        title="k-means is comparable to vanilla SAEs",
        source=SHORTFORM,
        sentence="k-means leaves about as much variance unexplained as vanilla (L1) SAEs do, though better SAEs leave "
        "less.",
        table="dictionary_metrics",
        statistic="unexplained variance (A) of the best k-means minus that of each L1 SAE",
        compute=partial(at_hook_points, statistic=kmeans_against_l1),
        criterion=Within(-0.1, 0.1),
        figure="unexplained_variance",
        note="An SAE uses many latents per token and k-means one, so this depends on the L0 of the SAEs in the study. "
        "The tolerance of 0.1 is ours. The author calls the result evidence neither for nor against SAEs.",
    ),
    Claim(
        id="log_line",
        title="Clusters and SAEs lie on one line in log L0",
        source=SHORTFORM,
        sentence="Against the logarithm of L0, the unexplained variance of k-means and SAEs makes a roughly straight "
        "line.",
        table="dictionary_metrics",
        statistic="R² of a straight line through unexplained variance (A) of k-means and TopK fits against log L0",
        compute=partial(at_hook_points, statistic=log_line),
        criterion=Above(0.9),
        figure="unexplained_variance",
        note="The limit of 0.9 is ours. Held only where the line is straighter than on a Gaussian surrogate. The "
        "interval "
        "treats the errors of the fits as independent.",
    ),
    Claim(
        id="topk4_like_kmeans",
        title="A TopK SAE with k = 4 does about as well as k-means",
        source=ENGELS,
        sentence="An SAE with four active latents leaves about as much variance unexplained as k-means.",
        table="dictionary_metrics",
        statistic="unexplained variance (A) of the best TopK SAE with k = 4 minus that of the best k-means",
        compute=partial(at_hook_points, statistic=topk4_against_kmeans),
        criterion=Within(-0.05, 0.05),
        figure="unexplained_variance",
        note="Reported for GPT-2, for clusters with a nonlinear encoder. The tolerance of 0.05 is ours.",
    ),
    Claim(
        id="definitions_disagree",
        title="Definitions of explained variance disagree",
        source="Heimersheim, LessWrong: shortform on definitions of explained variance",
        sentence="The definitions in use give different numbers for one and the same fit.",
        table="dictionary_metrics",
        statistic="largest minus smallest of the five definitions for one fit, median over fits",
        compute=definitions_spread,
        criterion=Above(0.05),
        figure="variance_definitions",
        note="The limit of 0.05 is ours. A: pooled; B: per row; C: per dimension; V: residual variance; Z: uncentred.",
    ),
)
