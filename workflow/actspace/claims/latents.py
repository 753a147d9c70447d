"""Claims about perturbations with the latents of a sparse autoencoder: as places to start from, and as directions.

AUROC is the probability that the first family crosses the threshold before the second, ties counting half."""

from __future__ import annotations

from functools import partial

from actspace.claims.entry import Claim
from actspace.claims.intervals import Above, Within
from actspace.claims.perturbations import CHANCE, IMPROVED, POST, auroc

BASES, DIRECTIONS = "latent_bases", "latent_directions"
SYNTHETIC = (
    "Giglemiani et al., 2024: Evaluating Synthetic Activations composed of SAE Latents in GPT-2 (arXiv 2409.15019)"
)
MIXTURE = "covariance_mixture"


def _claim(**fields: object) -> Claim:
    return Claim(table="perturbation_comparisons", **fields)  # type: ignore[arg-type]


CLAIMS = (
    _claim(
        id="plateaus_around_edited_activations",
        title="Activations with other latents switched on still sit on plateaus",
        source=f"{POST}: a prediction",
        sentence="An activation to which a few latents of a sparse autoencoder were added keeps its plateau: from there the "
        "output changes later than from a random activation.",
        statistic="AUROC: covariance-random base crosses before a real one with four latents added, covariance mixtures",
        compute=partial(
            auroc,
            experiment=BASES,
            first=f"covariance_random|{MIXTURE}",
            second=f"plus_latents_x4|{MIXTURE}",
        ),
        criterion=Above(CHANCE),
        figure="thresholds_latent_bases",
    ),
    _claim(
        id="synthetic_activations_have_smaller_plateaus",
        title="Synthetic activations have smaller plateaus than real ones",
        source=SYNTHETIC,
        sentence="From an activation put together of other latents that fire as often as the real ones, the output changes earlier "
        "than from the real activation.",
        statistic="AUROC: sparsity-matched synthetic base crosses before the real one, covariance mixtures",
        compute=partial(
            auroc, experiment=BASES, first=f"synthetic_sparsity_matched|{MIXTURE}", second=f"real|{MIXTURE}"
        ),
        criterion=Above(CHANCE),
        figure="thresholds_latent_bases",
        note="Published with L2 distances at the last layer along straight lines.",
    ),
    _claim(
        id="latent_directions_are_sensitive",
        title="Directions of latents are more sensitive than random ones",
        source=f"{POST}: a prediction; baseline after {IMPROVED}",
        sentence="Along the decoder direction of a latent that is off, the output changes earlier than along a random direction "
        "with the data's covariance.",
        statistic="AUROC: decoder direction of an inactive latent crosses before covariance mixtures",
        compute=partial(auroc, experiment=DIRECTIONS, first="real|decoder_inactive", second=f"real|{MIXTURE}"),
        criterion=Above(CHANCE),
        figure="thresholds_latent_directions",
        note="Against isotropic directions, which are less sensitive than both, the difference is larger.",
    ),
    _claim(
        id="single_latents_are_more_sensitive",
        title="One latent is a more sensitive direction than eight at once",
        source=f"{POST}: a guess",
        sentence="A perturbation along one latent leaves the plateau earlier than one of the same length spread over eight latents.",
        statistic="AUROC: decoder direction of one inactive latent crosses before the sum of eight",
        compute=partial(auroc, experiment=DIRECTIONS, first="real|decoder_inactive", second="real|decoder_inactive_x8"),
        criterion=Above(CHANCE),
        figure="thresholds_latent_directions",
    ),
    _claim(
        id="reconstruction_errors_are_not_special",
        title="The error of a reconstruction is no unusually sensitive direction",
        source=IMPROVED,
        sentence="Against a baseline with the structure of real activations, the direction towards the reconstruction of a sparse "
        "autoencoder does not change the output earlier.",
        statistic="AUROC: reconstruction error crosses before real mixtures",
        compute=partial(auroc, experiment=DIRECTIONS, first="real|reconstruction_error", second="real|real_mixture"),
        criterion=Within(0.0, 0.6),
        figure="thresholds_latent_directions",
        note="Corrects Gurnee (2024), whose baseline was isotropic. The tolerance of 0.1 above chance is ours.",
    ),
)
