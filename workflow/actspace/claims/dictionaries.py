"""Claims about how much variance clustering and sparse autoencoders (SAEs) explain."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd

from actspace.claims.entry import SIGN_ALONE, NotTestedError, Tables, claims_of, estimate_of, rows_of, where_tested
from actspace.claims.intervals import Above, Estimate, Within, complement, difference, everywhere
from actspace.claims.noise import N_DRAWS, over_draws, standard_error, with_noise
from actspace.claims.sources import ENGELS, SHORTFORM
from actspace.dictionaries.fits import per_fit

BETTER = ("topk", "batch_topk", "matryoshka", "jumprelu")
SAES = (*BETTER, "l1", "given")
LOW_K = 4
TOLERANCE_L1, TOLERANCE_K4, TOLERANCE_LOW_K = 0.1, 0.05, 0.01


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


def any_of(fits: pd.DataFrame, families: tuple[str, ...], *metrics: str) -> pd.DataFrame:
    """Return the fits of several families to real activations that have all of some metrics.

    Raises
    ------
    NotTestedError
        If there is none.
    """
    chosen = fits[fits["family"].isin(families) & (fits["data"] == "real")]
    has_all = set(metrics) <= set(chosen)
    chosen = chosen.dropna(subset=list(metrics)) if has_all else chosen.iloc[:0]
    if chosen.empty:
        raise NotTestedError(f"no {' or '.join(families)} fit to real activations with {' and '.join(metrics)}")
    return chosen


def best(fits: pd.DataFrame) -> Estimate:
    """Return the lowest pooled unexplained variance (definition A) among fits, with the name of the fit."""
    row = fits.iloc[int(fits["fvu_pooled"].to_numpy().argmin())]
    found = estimate_of(row, "fvu_pooled")
    return Estimate(found.value, found.low, found.high, str(row["fit"]))


def saes_explained(fits: pd.DataFrame) -> Estimate:
    """Return the variance that the best SAE explains."""
    return complement(best(any_of(fits, SAES, "fvu_pooled")))


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


def better_saes(fits: pd.DataFrame) -> Estimate:
    """Unexplained variance of the best k-means minus that of the best SAE that is not trained with an L1 penalty."""
    clusters, sae = best(select(fits, "kmeans")), best(any_of(fits, BETTER, "fvu_pooled"))
    return difference(clusters, sae, f"{clusters.detail} and {sae.detail}")


def low_k(fits: pd.DataFrame) -> Estimate:
    """Unexplained variance of the best k-means minus that of the best TopK SAE with few active latents."""
    saes = select(fits, "topk")
    if not (saes["k"] <= LOW_K).any():
        raise NotTestedError(f"no topk fit with k of at most {LOW_K} to real activations")
    clusters, sae = best(select(fits, "kmeans")), best(saes[saes["k"] <= LOW_K])
    return difference(clusters, sae, f"{clusters.detail} and {sae.detail}")


def topk4_against_kmeans(fits: pd.DataFrame) -> Estimate:
    """Unexplained variance of the best TopK SAE with k = 4 minus that of the best k-means."""
    sae, clusters = best(select(fits, "topk", k=4)), best(select(fits, "kmeans"))
    return difference(sae, clusters, f"{sae.detail} and {clusters.detail}")


def line_points(fits: pd.DataFrame, data: str) -> pd.DataFrame:
    """Return log10 L0, unexplained variance and its standard error of the k-means and TopK fits."""
    rows = pd.concat([select(fits, family, data) for family in ("kmeans", "topk")])
    if "l0" not in rows or rows["l0"].round(6).nunique() < 3:
        raise NotTestedError(f"fewer than three different L0 among k-means and TopK fits to {data} activations")
    error = standard_error(rows, "fvu_pooled")
    return pd.DataFrame({"log_l0": np.log10(rows["l0"]), "fvu": rows["fvu_pooled"], "error": error})


def r_squared(points: pd.DataFrame, n_draws: int = N_DRAWS) -> np.ndarray:
    """Return R² of a straight line through the points, then through copies of them `with_noise`; NaN for points of one height."""
    x = points["log_l0"].to_numpy() - points["log_l0"].mean()
    y = with_noise(points["fvu"].to_numpy(), points["error"].to_numpy(), n_draws)
    y = y - y.mean(axis=1, keepdims=True)
    variation, rounding = (y**2).sum(axis=1), len(points) * (8 * np.finfo(float).eps * points["fvu"].abs().max()) ** 2
    out = np.full(n_draws + 1, np.nan)
    return np.divide((y @ x) ** 2, (x @ x) * variation, out=out, where=variation > rounding)


def log_line(fits: pd.DataFrame) -> Estimate:
    """R² of a line in log L0, with a reservation where the surrogate's points are as straight."""
    real = r_squared(line_points(fits, "real"))
    reservation, detail = _against_surrogate(fits, real)
    return Estimate(*over_draws(real), detail, reservation)


def _against_surrogate(fits: pd.DataFrame, real: np.ndarray) -> tuple[str, str]:
    """Return the reservation, empty where the real points are straighter in 97.5% of the draws, and the null's R²."""
    try:
        null = r_squared(line_points(fits, "gaussian"))
    except NotTestedError:
        return "there is no such line on a Gaussian surrogate to compare with", ""
    detail = f"Gaussian surrogate {null[0]:.3g}"
    straighter = np.quantile(real[1:] - null[1:], 0.025) > 0
    return ("" if straighter else "the points of the Gaussian surrogate lie on a line as straight"), detail


_claim = claims_of(table="dictionary_metrics", figure="unexplained_variance", unit="fraction of variance")
CLAIMS = (
    _claim(
        id="saes_explain_most",
        title="SAEs explain most of the variance",
        source=SHORTFORM,
        sentence="Sparse autoencoders explain most of the variance of activations.",
        statistic="explained variance of the best SAE (1 minus definition A)",
        compute=partial(at_hook_points, statistic=saes_explained),
        criterion=Above(0.5),
        tolerance="None: more than half is most. Better SAEs are said to explain 90% and more.",
        note="The post asks whether this alone says that activations are sums of sparse features: clusters explain most, too.",
    ),
    _claim(
        id="kmeans_explains_72_to_87",
        title="k-means explains 72 to 87% of the variance",
        source=SHORTFORM,
        sentence="Clustering alone, one active latent per token, explains 72 to 87% of the variance of activations.",
        statistic="explained variance of the best k-means (1 minus definition A)",
        compute=partial(at_hook_points, statistic=kmeans_explained),
        criterion=Within(0.72, 0.87),
        tolerance="None: the range of the corrected post, over layers and numbers of clusters.",
        note="The author first used another definition of explained variance and corrected the post; Engels measured "
        "60%. Published for Pythia.",
    ),
    _claim(
        id="kmeans_comparable_to_saes",
        title="k-means is comparable to vanilla SAEs",
        source=SHORTFORM,
        sentence="k-means leaves about as much variance unexplained as vanilla (L1) SAEs do.",
        statistic="unexplained variance (A) of the best k-means minus that of each L1 SAE",
        compute=partial(at_hook_points, statistic=kmeans_against_l1),
        criterion=Within(-TOLERANCE_L1, TOLERANCE_L1),
        tolerance=f"{TOLERANCE_L1:g} either side of 0, ours: the post says comparable.",
        note="An SAE uses many latents per token and k-means one, so this depends on the L0 of the SAEs in the study. "
        "The author calls the result evidence neither for nor against SAEs.",
    ),
    _claim(
        id="better_saes_explain_more",
        title="Better SAEs explain more than k-means",
        source=SHORTFORM,
        sentence="k-means leaves more variance unexplained than SAEs that are better than vanilla ones.",
        statistic="unexplained variance (A) of the best k-means minus that of the best SAE without an L1 penalty",
        compute=partial(at_hook_points, statistic=better_saes),
        criterion=Above(0.0),
        tolerance=SIGN_ALONE,
        note="The SAEs have more active latents, and need more bits per vector, than k-means.",
    ),
    _claim(
        id="log_line",
        title="Clusters and SAEs lie on one line in log L0",
        source=SHORTFORM,
        sentence="Against the logarithm of L0, the unexplained variance of k-means and SAEs makes a roughly straight line.",
        statistic="R² of a straight line through unexplained variance (A) of k-means and TopK fits against log L0",
        unit="R²",
        compute=partial(at_hook_points, statistic=log_line),
        criterion=Above(0.9),
        tolerance="0.1 below 1, ours: the post says straight-ish.",
        note="Held only where the line is straighter than on a Gaussian surrogate. The interval treats the errors of the fits "
        "as independent.",
    ),
    _claim(
        id="topk4_like_kmeans",
        title="A TopK SAE with k = 4 does about as well as k-means",
        source=ENGELS,
        sentence="An SAE with four active latents leaves about as much variance unexplained as k-means.",
        statistic="unexplained variance (A) of the best TopK SAE with k = 4 minus that of the best k-means",
        compute=partial(at_hook_points, statistic=topk4_against_kmeans),
        criterion=Within(-TOLERANCE_K4, TOLERANCE_K4),
        tolerance=f"{TOLERANCE_K4:g} either side of 0, ours: the comment says about as well.",
        note="Reported for GPT-2, for clusters with a nonlinear encoder: the nearest centroid, as here.",
    ),
    _claim(
        id="low_k_saes_match_kmeans",
        title="SAEs with few active latents are at least as good as k-means",
        source=ENGELS,
        sentence="An SAE with a low k should be at least as good as k-means; if it is not, something is wrong.",
        statistic=f"unexplained variance (A) of the best k-means minus that of the best TopK SAE with k of at most {LOW_K}",
        compute=partial(at_hook_points, statistic=low_k),
        criterion=Above(-TOLERANCE_LOW_K),
        tolerance=f"{TOLERANCE_LOW_K:g} below 0, ours: at least as good allows a tie.",
        note=f"{LOW_K} for a low k is the k of the same comment.",
    ),
)
