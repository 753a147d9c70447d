"""Claims about sensitive directions: which kinds of direction change the output first."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from actspace.claims.entry import CHANCE_ALONE, SIGN_ALONE, Tables, claims_of
from actspace.claims.intervals import Above, Estimate, Within, difference, distance
from actspace.claims.sources import IMPROVED, PLATEAUS, PLATEAUS_2, PLATEAUS_REPLY
from actspace.claims.sweeps import (
    ABOUT_EQUAL,
    CHANCE,
    COVARIANCE_MIXTURE,
    ISOTROPIC,
    NEAR_CHANCE,
    REAL_MIXTURE,
    STRAIGHT,
    TOWARD_COVARIANCE,
    TOWARD_REAL,
    auroc,
)

SENSITIVE, LATE = "sensitive_directions", "late_layer"


def early_and_late(tables: Tables) -> tuple[Estimate, Estimate]:
    """Return the AUROC of real against covariance-random targets at the early site and at the late one."""
    early, late = (auroc(tables, name, TOWARD_REAL, TOWARD_COVARIANCE) for name in (SENSITIVE, LATE))
    return early, late


def late_alone(tables: Tables) -> Estimate:
    """AUROC at the late site, with a reservation where the families do not differ at the early one."""
    early, late = early_and_late(tables)
    nothing = early.low <= CHANCE <= early.high
    reservation = "they do not differ at the early site, so that nothing can vanish" if nothing else ""
    return replace(late, detail=f"{late.detail}; early: {early.detail}", reservation=reservation)


def late_against_early(tables: Tables) -> Estimate:
    """Distance of the AUROC from chance at the early site minus that at the late site."""
    early, late = early_and_late(tables)
    detail = f"AUROC early: {early.detail}; late: {late.detail}"
    return difference(distance(early, CHANCE), distance(late, CHANCE), detail)


_claim = claims_of(
    table="perturbation_comparisons",
    figure="thresholds_sensitive_directions",
    unit="AUROC",
    criterion=Above(CHANCE),
    tolerance=CHANCE_ALONE,
)
CORRECTED = (
    "An author later traced part of this to the baseline, as both directions contain minus the base activation "
    "(Lee & Heimersheim, 2024); the mixtures below are free of it."
)
CLAIMS = (
    _claim(
        id="real_other_more_sensitive",
        title="Directions towards real activations are more sensitive",
        source=PLATEAUS_2,
        sentence="From a real activation, directions towards another real activation change the output earlier than "
        "directions towards covariance-random ones.",
        statistic="AUROC: towards real crosses before towards covariance-random",
        compute=partial(auroc, experiment=SENSITIVE, first=TOWARD_REAL, second=TOWARD_COVARIANCE),
        note=CORRECTED,
    ),
    _claim(
        id="real_other_more_sensitive_on_straight_paths",
        title="Directions towards real activations are more sensitive (straight paths)",
        source=PLATEAUS_2,
        sentence="The same along straight lines: the output changes at a shorter distance.",
        statistic="AUROC: towards real crosses before towards covariance-random, straight",
        compute=partial(auroc, experiment=SENSITIVE, first=TOWARD_REAL, second=TOWARD_COVARIANCE, path=STRAIGHT),
        note=CORRECTED,
    ),
    _claim(
        id="real_mixture_more_sensitive",
        title="Real directions are more sensitive under the corrected baseline",
        source=f"{PLATEAUS_2}; baseline corrected by {IMPROVED}",
        sentence="Differences of two real activations change the output earlier than differences of two covariance-random "
        "vectors.",
        statistic="AUROC: real mixtures cross before covariance mixtures",
        compute=partial(auroc, experiment=SENSITIVE, first=REAL_MIXTURE, second=COVARIANCE_MIXTURE),
        note="Neither direction contains the base activation.",
    ),
    _claim(
        id="mixtures_differ_little",
        title="Real and covariance mixtures differ little",
        source=IMPROVED,
        sentence="Once directions no longer contain the base, real and covariance-random ones are about equally sensitive.",
        statistic="AUROC: real mixtures cross before covariance mixtures",
        compute=partial(auroc, experiment=SENSITIVE, first=REAL_MIXTURE, second=COVARIANCE_MIXTURE),
        criterion=Within(CHANCE - NEAR_CHANCE, CHANCE + NEAR_CHANCE),
        tolerance=ABOUT_EQUAL,
    ),
    _claim(
        id="isotropic_less_sensitive",
        title="Isotropic directions are less sensitive",
        source=f"{PLATEAUS}, core results",
        sentence="Isotropic random directions change the output later than random directions with the data's covariance.",
        statistic="AUROC: towards covariance-random crosses before isotropic",
        compute=partial(auroc, experiment=SENSITIVE, first=TOWARD_COVARIANCE, second=ISOTROPIC),
        note="Only the former contains the base activation.",
    ),
    _claim(
        id="covariance_mixture_beats_isotropic",
        title="Isotropic directions are less sensitive than covariance mixtures",
        source=IMPROVED,
        sentence="Differences of two covariance-random vectors change the output earlier than isotropic directions.",
        statistic="AUROC: covariance mixtures cross before isotropic",
        compute=partial(auroc, experiment=SENSITIVE, first=COVARIANCE_MIXTURE, second=ISOTROPIC),
        note="Neither direction contains the base activation.",
    ),
    _claim(
        id="vanishes_at_late_layer",
        title="The difference is gone at a late layer",
        source=PLATEAUS_REPLY,
        sentence="Perturbing a late layer instead of an early one, the difference between real and random directions "
        "disappears.",
        statistic="AUROC at the late site: towards real crosses before towards covariance-random",
        compute=late_alone,
        criterion=Within(CHANCE - NEAR_CHANCE, CHANCE + NEAR_CHANCE),
        tolerance=ABOUT_EQUAL,
        figure="late_layer_control",
        note="One test experiment in the source.",
    ),
    _claim(
        id="shrinks_at_late_layer",
        title="The difference shrinks at a late layer",
        source=f"{PLATEAUS_REPLY}; this weaker form is ours",
        sentence="Perturbing a late layer instead of an early one, the difference between real and random directions is smaller.",
        statistic="distance of AUROC from 0.5 at the early site minus that at the late site, "
        "towards real against towards covariance-random",
        compute=late_against_early,
        criterion=Above(0.0),
        tolerance=SIGN_ALONE,
        figure="late_layer_control",
    ),
)
