"""Claims about sparse autoencoders (SAEs) against clusters, and about either against data and directions without structure."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pandas as pd

from actspace.claims.dictionaries import ENGELS, SHORTFORM, at_hook_points, best, by_place, select
from actspace.claims.entry import Claim, NotTestedError, Tables, estimate_of, rows_of, where_tested
from actspace.claims.intervals import Above, Estimate, Within, difference, everywhere, mean

PROJECTS = "Heimersheim, LessWrong 2024: list of project ideas (SAEs vs clustering)"
BETTER = ("topk", "batch_topk", "matryoshka", "jumprelu")
SAES = (*BETTER, "l1", "given")
LOW_K = 4


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


def equal_bits(fits: pd.DataFrame) -> Estimate:
    """Unexplained variance of each k-means minus the least that SAEs reach at as many bits."""
    saes = any_of(fits, SAES, "bits_per_vector", "fvu_pooled").sort_values("bits_per_vector")
    clusters = any_of(fits, ("kmeans",), "bits_per_vector", "fvu_pooled")
    least, most = saes["bits_per_vector"].iloc[0], clusters["bits_per_vector"].max()
    found = {
        f"{row['fit']} with {row['bits_per_vector']:.3g} bits": difference(
            estimate_of(row, "fvu_pooled"), at_bits(saes, row["bits_per_vector"])
        )
        for _, row in clusters[clusters["bits_per_vector"].between(least, saes["bits_per_vector"].max())].iterrows()
    }
    if not found:
        raise NotTestedError(
            f"no SAE with as few bits as k-means: SAEs need {least:.3g} or more, k-means {most:.3g} at most"
        )
    return everywhere(found)


def at_bits(fits: pd.DataFrame, bits: float) -> Estimate:
    """Return the least unexplained variance at so many bits in the mean, of one fit or of two by turns.

    Some vectors told by the one fit and the rest by the other take the mean of their bits, and leave the mean of what the
    two leave. `bits` lies between those of the first and the last fit.
    """
    below, above = fits[fits["bits_per_vector"] <= bits], fits[fits["bits_per_vector"] >= bits]
    mixed = [_by_turns(low, high, bits) for _, low in below.iterrows() for _, high in above.iterrows()]
    return min(mixed, key=lambda estimate: estimate.value)


def _by_turns(low: pd.Series, high: pd.Series, bits: float) -> Estimate:
    span = high["bits_per_vector"] - low["bits_per_vector"]
    share = (bits - low["bits_per_vector"]) / span if span else 0.0
    a, b = estimate_of(low, "fvu_pooled"), estimate_of(high, "fvu_pooled")
    value, *ends = ((1 - share) * getattr(a, end) + share * getattr(b, end) for end in ("value", "low", "high"))
    return Estimate(value, *ends)


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


def purer_than_random(fits: pd.DataFrame) -> Estimate:
    """Token purity of the latents of each SAE minus that of random directions."""
    saes = any_of(fits, SAES, "token_purity", "token_purity_random_directions")
    return everywhere(
        {
            str(row["fit"]): difference(
                estimate_of(row, "token_purity"), estimate_of(row, "token_purity_random_directions")
            )
            for _, row in saes.iterrows()
        }
    )


def clusters_purer(fits: pd.DataFrame) -> Estimate:
    """Mean token purity of clusters over k-means fits, minus that of latents over TopK SAEs."""
    clusters, latents = (
        mean([estimate_of(row, "token_purity") for _, row in any_of(fits, (family,), "token_purity").iterrows()])
        for family in ("kmeans", "topk")
    )
    return difference(clusters, latents, f"{clusters.value:.3g} and {latents.value:.3g}")


def overlap_after_reencoding(fits: pd.DataFrame) -> Estimate:
    """Share of active latents that stay when the reconstruction of each SAE is encoded again."""
    saes = any_of(fits, SAES, "reencoding_jaccard")
    return everywhere({str(row["fit"]): estimate_of(row, "reencoding_jaccard") for _, row in saes.iterrows()})


def seeds_agree(tables: Tables) -> Estimate:
    """Excess of the best cosines between two seeds over random directions; beside it that of fits to Gaussian data."""
    pairs = rows_of(tables, "dictionary_matches", relation="seed", data="real")
    found = everywhere({f"{r['fit']} in {r['other']}": estimate_of(r, "excess_cosine") for _, r in pairs.iterrows()})
    table = tables["dictionary_matches"]
    null = table[(table["relation"] == "seed") & (table["data"] == "gaussian")]["excess_cosine"]
    detail = f"fits to Gaussian data: {null.mean():.3g}" if len(null) else ""
    return Estimate(found.value, found.low, found.high, "; ".join(filter(None, [found.detail, detail])))


def _claim(**fields: object) -> Claim:
    return Claim(**({"table": "dictionary_metrics"} | fields))  # type: ignore[arg-type]


CLAIMS = (
    _claim(
        id="better_saes_explain_more",
        title="Better SAEs explain more than k-means",
        source=SHORTFORM,
        sentence="k-means leaves more variance unexplained than SAEs that are better than vanilla ones.",
        statistic="unexplained variance (A) of the best k-means minus that of the best SAE without an L1 penalty",
        compute=partial(at_hook_points, statistic=better_saes),
        criterion=Above(0.0),
        figure="unexplained_variance",
        note="The SAEs have more active latents, and need more bits per vector, than k-means.",
    ),
    _claim(
        id="low_k_saes_match_kmeans",
        title="SAEs with few active latents are at least as good as k-means",
        source=ENGELS,
        sentence="An SAE with a low k should be at least as good as k-means; if it is not, something is wrong.",
        statistic=f"unexplained variance (A) of the best k-means minus that of the best TopK SAE with k of at most {LOW_K}",
        compute=partial(at_hook_points, statistic=low_k),
        criterion=Above(-0.01),
        figure="unexplained_variance",
        note="The tolerance of 0.01, and 4 for a low k (the k of the same comment), are ours.",
    ),
    _claim(
        id="saes_beat_kmeans_at_equal_bits",
        title="At equal description length SAEs explain more than k-means",
        source=f"ours; {PROJECTS} asks how much better SAEs are than clustering",
        sentence="Told in as many bits per vector, SAEs leave less variance unexplained than k-means.",
        statistic="unexplained variance (A) of k-means minus the least of SAEs, one or two by turns, at as many bits",
        compute=partial(at_hook_points, statistic=equal_bits),
        criterion=Above(0.0),
        figure="description_length",
        note="Only where the study has SAEs with both fewer and more bits than a k-means: nothing is extrapolated.",
    ),
    _claim(
        id="structure_beyond_covariance",
        title="Activations cluster better than their covariance explains",
        source=f"ours; {SHORTFORM} asks whether explained variance shows structure",
        sentence="k-means leaves less variance of real activations unexplained than of Gaussian data with the same "
        "mean and covariance.",
        table="dictionary_structure",
        statistic="unexplained variance (A) of k-means on the Gaussian surrogate minus that on real data, largest K",
        compute=partial(beyond_gaussian, statistic=partial(structure_of, family="kmeans")),
        criterion=Above(0.0),
        figure="structure",
        note="We know of no published test.",
    ),
    _claim(
        id="saes_find_structure_beyond_covariance",
        title="SAEs explain activations better than their covariance does",
        source=f"ours; {SHORTFORM} asks whether explained variance shows structure",
        sentence="TopK SAEs leave less variance of real activations unexplained than of Gaussian data with the same mean "
        "and covariance.",
        table="dictionary_structure",
        statistic="unexplained variance (A) of every TopK SAE on the Gaussian surrogate minus that on real data, "
        "largest size",
        compute=partial(beyond_gaussian, statistic=partial(structure_of, family="topk")),
        criterion=Above(0.0),
        figure="structure",
        note="Structure that an SAE finds need not be sparse features: clusters are structure too.",
    ),
    _claim(
        id="saes_find_more_structure_than_clusters",
        title="SAEs find more structure beyond the covariance than clustering does",
        source=f"ours; {PROJECTS} asks whether SAEs find more than the clusters of a dataset",
        sentence="Of what the covariance does not explain, some TopK SAE explains more than any k-means.",
        table="dictionary_structure",
        statistic="unexplained variance (A), surrogate minus real: the largest of TopK SAEs minus the largest of k-means",
        compute=partial(beyond_gaussian, statistic=more_than_clusters),
        criterion=Above(0.0),
        figure="structure",
        note="An SAE with many active latents leaves little unexplained of either kind of data, so little of its "
        "difference is left; the figure shows it as a share as well.",
    ),
    _claim(
        id="latents_purer_than_random",
        title="Latents are purer than random directions",
        source=f"ours; {PROJECTS}, after Szegedy et al. (2013): random directions look interpretable too",
        sentence="The tokens at which a latent of an SAE is most active are more often one and the same than those of a "
        "random direction.",
        statistic="token purity of the latents of every SAE minus that of random directions",
        compute=partial(at_hook_points, statistic=purer_than_random),
        criterion=Above(0.0),
        figure="unexplained_variance",
        note="Purity of tokens is a stand-in for being interpretable that needs no judge.",
    ),
    _claim(
        id="clusters_as_pure_as_latents",
        title="Clusters are about as pure as latents",
        source=f"{PROJECTS}: a question, whether clusters appear similarly interpretable",
        sentence="The tokens of a cluster are about as often one and the same as the top tokens of a latent of an SAE.",
        statistic="token purity of k-means minus that of TopK SAEs, each in the mean over fits",
        compute=partial(at_hook_points, statistic=clusters_purer),
        criterion=Within(-0.1, 0.1),
        figure="unexplained_variance",
        note="The tolerance of 0.1 is ours. Purity of tokens is a stand-in for being interpretable that needs no judge.",
    ),
    _claim(
        id="reencoding_changes_latents",
        title="A reconstruction switches on other latents",
        source="Heimersheim, comment on the shortform on k-means and SAEs, LessWrong",
        sentence="Fed back into the encoder, the reconstruction of an SAE does not switch on the latents that it was made of.",
        statistic="mean overlap (Jaccard) of the latents that an activation and its reconstruction switch on, every SAE",
        compute=partial(at_hook_points, statistic=overlap_after_reencoding),
        criterion=Within(0.0, 0.5),
        figure="unexplained_variance",
        note="The author mentions it without a number; the limit of one half is ours.",
    ),
    _claim(
        id="seeds_agree_above_chance",
        title="Fits with different seeds find the same directions",
        source="ours",
        sentence="The latents of a fit have more similar ones in a fit with another seed than random directions would.",
        table="dictionary_matches",
        statistic="mean cosine of best matches between seeds minus that with random directions, every pair",
        compute=seeds_agree,
        criterion=Above(0.0),
        figure="dictionary_matches",
        note="Intervals are over latents, of these very fits. Directions drawn from the subspace in which activations lie "
        "would be more alike than random ones.",
    ),
)
