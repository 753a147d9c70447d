"""Claims about sparse autoencoders (SAEs) against clusters: the bits that they need, and how pure their tokens are."""

from __future__ import annotations

from functools import partial

import pandas as pd

from actspace.claims.dictionaries import SAES, any_of, at_hook_points
from actspace.claims.entry import SIGN_ALONE, NotTestedError, claims_of, estimate_of
from actspace.claims.intervals import Above, Estimate, Within, difference, everywhere, mean
from actspace.claims.sources import CLUSTER_IDEAS, SHARKEY


def equal_bits(fits: pd.DataFrame, family: str) -> Estimate:
    """Unexplained variance of each fit of a family minus the least that SAEs reach at as many bits."""
    saes = any_of(fits, SAES, "bits_per_vector", "fvu_pooled").sort_values("bits_per_vector")
    others = any_of(fits, (family,), "bits_per_vector", "fvu_pooled")
    least, most = saes["bits_per_vector"].min(), saes["bits_per_vector"].max()
    found = {
        f"{row['fit']} with {row['bits_per_vector']:.3g} bits": difference(
            estimate_of(row, "fvu_pooled"), at_bits(saes, row["bits_per_vector"])
        )
        for _, row in others[others["bits_per_vector"].between(least, most)].iterrows()
    }
    if not found:
        theirs = f"{others['bits_per_vector'].min():.4g} to {others['bits_per_vector'].max():.4g}"
        raise NotTestedError(
            f"no {family} fit at the bits of the SAEs: theirs are {least:.4g} to {most:.4g}, its {theirs}"
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


_claim = claims_of(table="dictionary_metrics")
CLAIMS = (
    _claim(
        id="saes_beat_kmeans_at_equal_bits",
        title="At equal description length SAEs explain more than k-means",
        source=f"ours; {CLUSTER_IDEAS} asks how much better SAEs are than clustering",
        sentence="Told in as many bits per vector, SAEs leave less variance unexplained than k-means.",
        statistic="unexplained variance (A) of k-means minus the least of SAEs, one or two by turns, at as many bits",
        unit="fraction of variance",
        compute=partial(at_hook_points, statistic=partial(equal_bits, family="kmeans")),
        criterion=Above(0.0),
        tolerance=SIGN_ALONE,
        figure="description_length",
        note="Only where the study has SAEs with both fewer and more bits than a k-means: nothing is extrapolated.",
    ),
    _claim(
        id="saes_beat_pca_at_equal_bits",
        title="SAEs describe activations in fewer bits than a dense basis",
        source=f"{SHARKEY}; this test is ours",
        sentence="Latents that are seldom on make the description of each input shorter: told in as many bits per vector, SAEs "
        "leave less variance unexplained than principal components.",
        statistic="unexplained variance (A) of PCA minus the least of SAEs, one or two by turns, at as many bits",
        unit="fraction of variance",
        compute=partial(at_hook_points, statistic=partial(equal_bits, family="pca")),
        criterion=Above(0.0),
        tolerance=SIGN_ALONE,
        figure="description_length",
        note="The author doubts that any formula captures what is meant: one latent per datum would make each description short "
        "and the dictionary as long as the data, whose length is not counted here.",
    ),
    _claim(
        id="latents_purer_than_random",
        title="Latents are purer than random directions",
        source=f"ours; {CLUSTER_IDEAS}, after Szegedy et al., 2013: random directions look interpretable too",
        sentence="The tokens at which a latent of an SAE is most active are more often one and the same than those of a "
        "random direction.",
        statistic="token purity of the latents of every SAE minus that of random directions",
        unit="share of top tokens",
        compute=partial(at_hook_points, statistic=purer_than_random),
        criterion=Above(0.0),
        tolerance=SIGN_ALONE,
        figure="unexplained_variance",
        note="Purity of tokens is a stand-in for being interpretable that needs no judge.",
    ),
    _claim(
        id="clusters_as_pure_as_latents",
        title="Clusters are about as pure as latents",
        source=f"{CLUSTER_IDEAS}: a question, whether clusters appear similarly interpretable",
        sentence="The tokens of a cluster are about as often one and the same as the top tokens of a latent of an SAE.",
        statistic="token purity of k-means minus that of TopK SAEs, each in the mean over fits",
        unit="share of top tokens",
        compute=partial(at_hook_points, statistic=clusters_purer),
        criterion=Within(-0.1, 0.1),
        tolerance="0.1 either side of 0, ours: the post asks whether they are similar.",
        figure="unexplained_variance",
        note="Purity of tokens is a stand-in for being interpretable that needs no judge.",
    ),
)
