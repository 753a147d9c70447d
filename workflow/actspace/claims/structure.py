"""Claims about what dictionaries find beyond data, and directions, without structure."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pandas as pd

from actspace.claims.dictionaries import by_place
from actspace.claims.entry import SIGN_ALONE, NotTestedError, Tables, claims_of, estimate_of, rows_of, where_tested
from actspace.claims.intervals import Above, Estimate, difference, everywhere
from actspace.claims.sources import CLUSTER_IDEAS, SHORTFORM

ASKED = f"ours; {SHORTFORM} asks whether explained variance shows structure"


def beyond_gaussian(tables: Tables, statistic: Callable[[pd.DataFrame], Estimate]) -> Estimate:
    """Compute a statistic of the comparisons with the Gaussian null at every hook point."""
    return where_tested(by_place(rows_of(tables, "dictionary_structure", null="gaussian")), statistic)


def compared(fits: pd.DataFrame, family: str) -> pd.DataFrame:
    """Return the fits of a family that were compared with the null.

    Raises
    ------
    NotTestedError
        If there is none.
    """
    rows = fits[fits["family"] == family]
    if rows.empty:
        raise NotTestedError(f"no {family} fit to both the real data and the surrogate")
    return rows


def structure_of(fits: pd.DataFrame, family: str) -> Estimate:
    """Return what each fit of a family, of the largest size, finds beyond the covariance."""
    rows = compared(fits, family)
    rows = rows[rows["n_latents"] == rows["n_latents"].max()]
    return everywhere({str(row["fit"]): estimate_of(row) for _, row in rows.iterrows()})


def more_than_clusters(fits: pd.DataFrame) -> Estimate:
    """Most structure that any TopK SAE finds beyond the covariance, minus the most that any k-means finds."""
    most = {}
    for family in ("topk", "kmeans"):
        rows = compared(fits, family)
        most[family] = rows.iloc[int(rows["value"].to_numpy().argmax())]
    a, b = most["topk"], most["kmeans"]
    return difference(estimate_of(a), estimate_of(b), f"{a['fit']} and {b['fit']}")


def seeds_agree(tables: Tables) -> Estimate:
    """Excess of the best cosines between two seeds over random directions; beside it that of fits to Gaussian data."""
    pairs = rows_of(tables, "dictionary_matches", relation="seed", data="real")
    found = everywhere({f"{r['fit']} in {r['other']}": estimate_of(r, "excess_cosine") for _, r in pairs.iterrows()})
    table = tables["dictionary_matches"]
    null = table[(table["relation"] == "seed") & (table["data"] == "gaussian")]["excess_cosine"]
    detail = f"fits to Gaussian data: {null.mean():.3g}" if len(null) else ""
    return Estimate(found.value, found.low, found.high, "; ".join(filter(None, [found.detail, detail])))


_claim = claims_of(
    table="dictionary_structure",
    figure="structure",
    unit="fraction of variance",
    criterion=Above(0.0),
    tolerance=SIGN_ALONE,
)
CLAIMS = (
    _claim(
        id="structure_beyond_covariance",
        title="Activations cluster better than their covariance explains",
        source=ASKED,
        sentence="k-means leaves less variance of real activations unexplained than of Gaussian data with the same "
        "mean and covariance.",
        statistic="unexplained variance (A) of k-means on the Gaussian surrogate minus that on real data, largest K",
        compute=partial(beyond_gaussian, statistic=partial(structure_of, family="kmeans")),
        note="We know of no published test.",
    ),
    _claim(
        id="saes_find_structure_beyond_covariance",
        title="SAEs explain activations better than their covariance does",
        source=ASKED,
        sentence="TopK SAEs leave less variance of real activations unexplained than of Gaussian data with the same mean "
        "and covariance.",
        statistic="unexplained variance (A) of every TopK SAE on the Gaussian surrogate minus that on real data, "
        "largest size",
        compute=partial(beyond_gaussian, statistic=partial(structure_of, family="topk")),
        note="Structure that an SAE finds need not be sparse features: clusters are structure too.",
    ),
    _claim(
        id="saes_find_more_structure_than_clusters",
        title="SAEs find more structure beyond the covariance than clustering does",
        source=f"ours; {CLUSTER_IDEAS} asks whether SAEs find more than the clusters of a dataset",
        sentence="Of what the covariance does not explain, some TopK SAE explains more than any k-means.",
        statistic="unexplained variance (A), surrogate minus real: the largest of TopK SAEs minus the largest of k-means",
        compute=partial(beyond_gaussian, statistic=more_than_clusters),
        note="An SAE with many active latents leaves little unexplained of either kind of data, so little of its "
        "difference is left; the figure shows it as a share as well.",
    ),
    _claim(
        id="seeds_agree_above_chance",
        title="Fits with different seeds find the same directions",
        source="ours",
        sentence="The latents of a fit have more similar ones in a fit with another seed than random directions would.",
        table="dictionary_matches",
        statistic="mean cosine of best matches between seeds minus that with random directions, every pair",
        unit="cosine",
        compute=seeds_agree,
        figure="dictionary_matches",
        note="Intervals are over latents, of these very fits. Directions drawn from the subspace in which activations lie "
        "would be more alike than random ones.",
    ),
)
