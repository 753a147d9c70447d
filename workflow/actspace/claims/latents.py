"""Claims about perturbations with the latents of a sparse autoencoder: as places to start from, and as directions."""

from __future__ import annotations

from functools import partial

from actspace.claims.entry import CHANCE_ALONE, Tables, claims_of
from actspace.claims.intervals import Above, Estimate, Within, everywhere
from actspace.claims.sources import GURNEE, IMPROVED, LINDSEY, PLATEAUS_3, PLATEAUS_SAE, SYNTHETIC
from actspace.claims.sweeps import (
    ABOUT_EQUAL,
    CHANCE,
    COVARIANCE_MIXTURE,
    ISOTROPIC,
    NEAR_CHANCE,
    RANDOM_BASE_MIXTURE,
    REAL_MIXTURE,
    auroc,
)

BASES, DIRECTIONS = "latent_bases", "latent_directions"
INACTIVE, ERROR = "real|decoder_inactive", "real|reconstruction_error"


def edited_bases(tables: Tables) -> Estimate:
    """AUROC of a random base before a real one with four latents added, and with four taken away."""
    edits = {"added": "plus_latents_x4", "taken away": "minus_latents_x4"}
    return everywhere(
        {name: auroc(tables, BASES, RANDOM_BASE_MIXTURE, f"{base}|covariance_mixture") for name, base in edits.items()}
    )


_claim = claims_of(
    table="perturbation_comparisons",
    figure="thresholds_latent_directions",
    unit="AUROC",
    criterion=Above(CHANCE),
    tolerance=CHANCE_ALONE,
)
CLAIMS = (
    _claim(
        id="plateaus_around_edited_activations",
        title="Activations with other latents switched on or off still sit on plateaus",
        source=f"{PLATEAUS_SAE}: a prediction",
        sentence="An activation to which a few latents of a sparse autoencoder were added, or of which some were taken away, keeps "
        "its plateau: from there the output changes later than from a random activation.",
        statistic="AUROC: covariance-random base crosses before a real one with four latents added, or four taken away, covariance "
        "mixtures",
        compute=edited_bases,
        figure="thresholds_latent_bases",
        note="Must hold of both.",
    ),
    _claim(
        id="synthetic_activations_have_smaller_plateaus",
        title="Synthetic activations have smaller plateaus than real ones",
        source=SYNTHETIC,
        sentence="From an activation put together of other latents that fire as often as the real ones, the output changes earlier "
        "than from the real activation.",
        statistic="AUROC: sparsity-matched synthetic base crosses before the real one, covariance mixtures",
        compute=partial(
            auroc,
            experiment=BASES,
            first="synthetic_sparsity_matched|covariance_mixture",
            second=COVARIANCE_MIXTURE,
        ),
        figure="thresholds_latent_bases",
        note="Published with L2 distances at the last layer along straight lines.",
    ),
    _claim(
        id="latent_directions_are_sensitive",
        title="Directions of latents are more sensitive than random ones",
        source=f"{PLATEAUS_SAE}: a prediction; baseline after {IMPROVED}",
        sentence="Along the decoder direction of a latent that is off, the output changes earlier than along a random direction "
        "with the data's covariance.",
        statistic="AUROC: decoder direction of an inactive latent crosses before covariance mixtures",
        compute=partial(auroc, experiment=DIRECTIONS, first=INACTIVE, second=COVARIANCE_MIXTURE),
        note="Against isotropic directions, which are less sensitive than both, the difference is larger.",
    ),
    _claim(
        id="latents_beat_isotropic",
        title="Directions of latents are more sensitive than isotropic ones",
        source=f"{LINDSEY}, as told in {PLATEAUS_SAE}",
        sentence="Along the decoder direction of a latent the output changes earlier than along an isotropic random direction.",
        statistic="AUROC: decoder direction of an inactive latent crosses before isotropic",
        compute=partial(auroc, experiment=DIRECTIONS, first=INACTIVE, second=ISOTROPIC),
        note="Isotropic directions are insensitive by themselves, so this is the weaker comparison.",
    ),
    _claim(
        id="latents_like_real_directions",
        title="Directions of latents are about as sensitive as real ones",
        source=f"{PLATEAUS_SAE}: a prediction; real mixtures in place of directions towards real activations after {IMPROVED}",
        sentence="The decoder direction of a latent has about the effect of a difference between real activations.",
        statistic="AUROC: decoder direction of an inactive latent crosses before real mixtures",
        compute=partial(auroc, experiment=DIRECTIONS, first=INACTIVE, second=REAL_MIXTURE),
        criterion=Within(CHANCE - NEAR_CHANCE, CHANCE + NEAR_CHANCE),
        tolerance=ABOUT_EQUAL,
        note="The authors guessed that a single latent might be more sensitive still; that would be above 0.6 here.",
    ),
    _claim(
        id="single_latents_are_more_sensitive",
        title="One latent is a more sensitive direction than eight at once",
        source=f"{PLATEAUS_SAE} and {PLATEAUS_3}: a guess",
        sentence="A perturbation along one latent leaves the plateau earlier than one of the same length spread over eight latents.",
        statistic="AUROC: decoder direction of one inactive latent crosses before the sum of eight",
        compute=partial(auroc, experiment=DIRECTIONS, first=INACTIVE, second=f"{INACTIVE}_x8"),
    ),
    _claim(
        id="errors_beat_isotropic",
        title="The error of a reconstruction is more sensitive than isotropic directions",
        source=GURNEE,
        sentence="Adding the error of a sparse autoencoder's reconstruction changes the output more than an isotropic random "
        "vector of its length.",
        statistic="AUROC: reconstruction error crosses before isotropic",
        compute=partial(auroc, experiment=DIRECTIONS, first=ERROR, second=ISOTROPIC),
        note="Published as a KL divergence 2.2 to 4.5 times as large at the error's own length; here as the order of crossings. "
        "Corrected by Lee & Heimersheim, 2024: the baseline is to blame, as the next entry tests.",
    ),
    _claim(
        id="reconstruction_errors_are_not_special",
        title="The error of a reconstruction is no unusually sensitive direction",
        source=IMPROVED,
        sentence="Against a baseline with the structure of real activations, the direction towards the reconstruction of a sparse "
        "autoencoder does not change the output earlier.",
        statistic="AUROC: reconstruction error crosses before real mixtures",
        compute=partial(auroc, experiment=DIRECTIONS, first=ERROR, second=REAL_MIXTURE),
        criterion=Within(0.0, CHANCE + NEAR_CHANCE),
        tolerance=f"Up to {NEAR_CHANCE:g} above chance (0.5), ours: the source says no longer unusual.",
        note="Corrects Gurnee, 2024, whose baseline was isotropic.",
    ),
)
