"""Claims about which latents of a sparse autoencoder (SAE) switch on, how strongly, and for what."""

from __future__ import annotations

from functools import partial

import pandas as pd

from actspace.claims.dictionaries import SAES, any_of, at_hook_points
from actspace.claims.entry import SIGN_ALONE, claims_of, estimate_of
from actspace.claims.intervals import Above, Estimate, Within, difference, everywhere
from actspace.claims.sources import PLATEAUS, REPLY, SPIKY, SUPPRESSION

RELU = ("l1", "given")
FREE = ("l1", "batch_topk", "matryoshka", "jumprelu", "given")
"""Families without a fixed number of active latents per vector."""


def of_each(fits: pd.DataFrame, families: tuple[str, ...], metric: str) -> Estimate:
    """Read a metric of every fit of some families."""
    chosen = any_of(fits, families, metric)
    return everywhere({str(row["fit"]): estimate_of(row, metric) for _, row in chosen.iterrows()})


def more_for_random(fits: pd.DataFrame) -> Estimate:
    """Latents that a covariance-random vector switches on minus those that a real activation does."""
    random, real = "latents_on_covariance_random", "latents_on"
    chosen = any_of(fits, FREE, random, real)
    return everywhere(
        {
            str(row["fit"]): difference(
                a := estimate_of(row, random), b := estimate_of(row, real), f"{a.value:.3g} and {b.value:.3g}"
            )
            for _, row in chosen.iterrows()
        }
    )


_claim = claims_of(table="dictionary_metrics", figure="pre_activations")
CLAIMS = (
    _claim(
        id="reencoding_changes_latents",
        title="A reconstruction switches on other latents",
        source=REPLY,
        sentence="Fed back into the encoder, the reconstruction of an SAE does not switch on the latents that it was made of.",
        statistic="mean overlap (Jaccard) of the latents that an activation and its reconstruction switch on, every SAE",
        unit="overlap",
        compute=partial(at_hook_points, statistic=partial(of_each, families=SAES, metric="reencoding_jaccard")),
        criterion=Within(0.0, 0.5),
        tolerance="The limit of one half is ours: the author mentions it without a number.",
        figure="unexplained_variance",
    ),
    _claim(
        id="l1_suppresses_latents",
        title="An L1 penalty suppresses active latents",
        source=SUPPRESSION,
        sentence="SAEs with an L1 penalty make the latents that they use too small: larger ones would reconstruct better.",
        statistic="factor by which the active values of every L1 SAE would have to grow for the least error",
        unit="factor",
        compute=partial(at_hook_points, statistic=partial(of_each, families=("l1",), metric="least_squares_growth")),
        criterion=Above(1.0),
        tolerance="None: 1 is no suppression, and the sign alone is claimed.",
        figure="unexplained_variance",
        note="One factor for all latents; the source measures it latent by latent.",
    ),
    _claim(
        id="random_directions_switch_on_latents",
        title="A random direction switches on 10 to 20,000 latents",
        source=f"{PLATEAUS}, footnote 1",
        sentence="Put into an SAE, a random direction switches on between 10 and 20,000 latents.",
        statistic="mean number of latents that an isotropic random direction switches on, every SAE with a plain ReLU",
        unit="latents",
        compute=partial(at_hook_points, statistic=partial(of_each, families=RELU, metric="latents_on_isotropic")),
        criterion=Within(10, 20_000),
        tolerance="None: the published range of single directions, most of them near 30; here of their mean.",
        note="Published for an SAE of GPT-2 with some 25,000 latents; the author is not sure that an encoder may be asked this.",
    ),
    _claim(
        id="random_vectors_need_more_latents",
        title="Vectors off the spikes switch on more latents",
        source=f"{SPIKY}; this test is ours",
        sentence="Most of activation space takes many more features than an activation has: a random vector with the data's "
        "covariance switches on more latents than a real one.",
        statistic="mean number of latents on for covariance-random vectors minus that for activations, every SAE without a fixed "
        "number",
        unit="latents",
        compute=partial(at_hook_points, statistic=more_for_random),
        criterion=Above(0.0),
        tolerance=SIGN_ALONE,
        note="The latents of a trained SAE stand for the features of the model.",
    ),
)
