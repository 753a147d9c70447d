"""Claims about plateaus and sensitive directions: where curves cross the threshold, and what exceeds the local-linear null.

AUROC is the probability that the first family crosses the threshold before the second, ties counting half. The excess
is the share of the area under a curve that the metric at its base does not predict: 0 for a linear model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import pandas as pd

from actspace.claims.entry import Claim, NotTestedError, Tables, estimate_of, rows_of
from actspace.claims.intervals import Above, Estimate, Within, complement, difference, distance, everywhere
from actspace.perturbations.paths import PATHS
from actspace.perturbations.statistics import at_one_threshold

POST = "Heimersheim & Mendel, LessWrong 2024: activation plateaus and sensitive directions in GPT-2"
IMPROVED = "Lee & Heimersheim, 2024: Investigating Sensitive Directions in GPT-2 (arXiv 2410.12555)"
REGIONS = "Janiak et al., 2024: Characterizing stable regions in the residual stream of LLMs (arXiv 2409.17113)"

PLATEAUS, SENSITIVE = "plateaus", "sensitive_directions"
LATE, UNTRAINED = "late_layer", "plateaus_random_weights"
TOWARD_REAL, TOWARD_COVARIANCE = "real|toward_real", "real|toward_covariance_random"
REAL_MIXTURE, COVARIANCE_MIXTURE, ISOTROPIC = "real|real_mixture", "real|covariance_mixture", "real|isotropic"
RANDOM_BASE = "covariance_random|toward_covariance_random"
REAL_AND_RANDOM = TOWARD_COVARIANCE, RANDOM_BASE
CHANCE = 0.5
PUBLISHED_ANGLE = 40.0
"""Degrees up to which the post says that the output of GPT-2 barely changes."""


def auroc(tables: Tables, experiment: str, first: str, second: str) -> Estimate:
    """Find the AUROC of one family against another, as `compared` does."""
    return compared(tables, experiment, "auroc", first, second, complement)


def compared(
    tables: Tables,
    experiment: str,
    statistic: str,
    first: str,
    second: str,
    turn: Callable[[Estimate], Estimate],
    path: str | None = None,
) -> Estimate:
    """Find a comparison of two families, on one path, or on the sphere where it was run and else on the first there is.

    Parameters
    ----------
    first, second : str
        Families as "base|direction".
    turn : callable
        Makes the estimate of one order of the families from that of the other, which the table may hold.
    """
    wanted = {"statistic": statistic} | ({"path": path} if path else {})
    rows = at_one_threshold(rows_of(tables, "perturbation_comparisons", experiment=experiment, **wanted))
    straight = (rows["a"] == first) & (rows["b"] == second)
    turned = (rows["a"] == second) & (rows["b"] == first)
    rows = rows[straight | turned]
    if rows.empty:
        raise NotTestedError(f"experiment {experiment} does not compare {first} with {second}")
    places = {}
    for site, found, row in _at_sites(rows):
        places[site] = found if row["a"] == first else replace(turn(found), detail=found.detail)
    return everywhere(places)


def minus(a: Estimate) -> Estimate:
    """Return an estimate with its sign changed: a difference of two families that are exchanged."""
    return Estimate(-a.value, -a.high, -a.low, a.detail)


def of_family(tables: Tables, experiment: str, statistic: str, family: str, path: str | None = None) -> Estimate:
    """Find a statistic of one family, on one path, or on the sphere where it was run."""
    base, direction = family.split("|")
    wanted = {"base": base, "direction": direction, "statistic": statistic} | ({"path": path} if path else {})
    rows = at_one_threshold(rows_of(tables, "perturbation_statistics", experiment=experiment, **wanted))
    return everywhere({site: found for site, found, _ in _at_sites(rows)})


def _at_sites(rows: pd.DataFrame) -> Iterator[tuple[str, Estimate, pd.Series]]:
    """Yield site, estimate and row at each site, on the first path that was run: the sphere, or the next one there is."""
    path = next((name for name in PATHS if (rows["path"] == name).any()), str(rows["path"].iloc[0]))
    for _, row in rows[rows["path"] == path].iterrows():
        yield str(row["site"]), replace(estimate_of(row), detail=f"{path}, {int(row['n_prompts'])} prompts"), row


def plateau_angle(tables: Tables) -> Estimate:
    """Median angle at which curves from real bases cross the threshold, in degrees; those of random bases in the detail."""
    real, random = (of_family(tables, PLATEAUS, "median_crossing", family, "sphere") for family in REAL_AND_RANDOM)
    beside = f"from a random base {random.value:.1f} ({random.low:.1f} to {random.high:.1f})"
    return replace(real, detail=f"{real.detail}; {beside}")


def late_against_early(tables: Tables) -> Estimate:
    """Distance of the AUROC from chance at the early site minus that at the late site."""
    early, late = (auroc(tables, name, TOWARD_REAL, TOWARD_COVARIANCE) for name in (SENSITIVE, LATE))
    detail = f"AUROC early: {early.detail}; late: {late.detail}"
    return difference(distance(early, CHANCE), distance(late, CHANCE), detail)


def trained_against_untrained(tables: Tables) -> Estimate:
    """AUROC of the plateau comparison with trained weights minus that with random weights."""
    weights = rows_of(tables, "perturbation_comparisons", experiment=UNTRAINED)["weights"]
    if set(weights) != {"random"}:
        raise NotTestedError(f"experiment {UNTRAINED} was not run with random weights alone")
    trained, untrained = (auroc(tables, name, RANDOM_BASE, TOWARD_COVARIANCE) for name in (PLATEAUS, UNTRAINED))
    found = difference(trained, untrained, f"trained: {trained.detail}; random: {untrained.detail}")
    if untrained.low == untrained.high == CHANCE:
        # Nothing but ties: curves that stay under the threshold have no crossing to compare.
        return replace(
            found, reservation="with random weights no curve crosses the threshold, so none shows where a plateau ends"
        )
    return found


def _claim(**fields: object) -> Claim:
    return Claim(table="perturbation_comparisons", **fields)  # type: ignore[arg-type]


CLAIMS = (
    _claim(
        id="plateaus",
        title="Real activations sit on plateaus",
        source=POST,
        sentence="Perturbed in random directions, the model's output changes later from a real activation than from a "
        "random "
        "one with the same mean and covariance.",
        statistic="AUROC: random base crosses before real base, directions towards covariance-random targets",
        compute=partial(auroc, experiment=PLATEAUS, first=RANDOM_BASE, second=TOWARD_COVARIANCE),
        criterion=Above(CHANCE),
        figure="thresholds_plateaus",
        note="Directions towards a target contain minus the base's deviation from the mean.",
    ),
    Claim(
        id="plateaus_are_flat",
        title="Around a real activation the output is flatter than a linear model's",
        source=f"{POST}; this statistic is ours",
        sentence="From a real activation the output changes less at first than it goes on to: a model as linear all along "
        "the path as it is at its start would change less.",
        table="perturbation_statistics",
        statistic="median excess of √(2 KL) over its local-linear null: share of the area under the curve that the "
        "Fisher metric at the base does not predict",
        compute=partial(of_family, experiment=PLATEAUS, statistic="median_excess_sqrt_2kl", family=TOWARD_COVARIANCE),
        criterion=Above(0.0),
        figure="curves_plateaus",
        note="KL is quadratic at zero even for a linear model, so a flat start of KL alone shows nothing; the excess of a "
        "linear model is 0.",
    ),
    Claim(
        id="plateaus_are_flat_inside",
        title="The plateau is there before the logits",
        source=f"{POST}, reply to a comment; this statistic is ours",
        sentence="The same of the L2 distance at a late layer, so that plateaus do not come from how activations are "
        "turned into outputs.",
        table="perturbation_statistics",
        statistic="median excess of the late L2 distance over its local-linear null",
        compute=partial(of_family, experiment=PLATEAUS, statistic="median_excess_l2", family=TOWARD_COVARIANCE),
        criterion=Above(0.0),
        figure="curves_plateaus",
    ),
    _claim(
        id="plateaus_flatter_than_random",
        title="Real activations exceed the local-linear null by more than random ones",
        source=f"{POST}; directions after {IMPROVED}; this statistic is ours",
        sentence="Along the same directions, the output is flatter at first around a real activation than around a "
        "random one with the same mean and covariance.",
        statistic="median excess of √(2 KL) from real bases minus that from random bases, covariance mixtures",
        compute=partial(
            compared,
            experiment=PLATEAUS,
            statistic="median_difference_excess_sqrt_2kl",
            first=COVARIANCE_MIXTURE,
            second="covariance_random|covariance_mixture",
            turn=minus,
        ),
        criterion=Above(0.0),
        figure="curves_plateaus",
        note="The directions do not contain the base.",
    ),
    Claim(
        id="plateau_angle",
        title="The plateau of a real activation is 40 degrees wide",
        source=POST,
        sentence="Turned towards a random activation, the output barely changes up to about 40 degrees.",
        table="perturbation_statistics",
        statistic="median angle at which KL crosses the threshold from a real base, towards covariance-random, in "
        "degrees",
        compute=plateau_angle,
        criterion=Above(PUBLISHED_ANGLE),
        figure="thresholds_plateaus",
        note="Read off the curves of GPT-2 small by the author; 0.5 nats, his threshold, stands for the end of the "
        "plateau.",
    ),
    _claim(
        id="plateau_angle_real_minus_random",
        title="The plateau of a real activation is wider",
        source=POST,
        sentence="The output starts to change at a larger angle from a real activation than from a random one with the "
        "same mean and covariance.",
        statistic="median angle of the crossing from real bases minus that from random bases, towards "
        "covariance-random, in degrees",
        compute=partial(
            compared,
            experiment=PLATEAUS,
            statistic="median_difference_crossing",
            first=TOWARD_COVARIANCE,
            second=RANDOM_BASE,
            turn=minus,
            path="sphere",
        ),
        criterion=Above(0.0),
        figure="thresholds_plateaus",
        note="In sphere mode a direction towards a target and the target itself are one direction.",
    ),
    _claim(
        id="plateaus_with_mixtures",
        title="Real activations sit on plateaus (directions without the base)",
        source=f"{POST}; directions after {IMPROVED}",
        sentence="The same, perturbed along differences of two covariance-random vectors, which do not contain the "
        "base.",
        statistic="AUROC: random base crosses before real base, covariance mixtures",
        compute=partial(
            auroc, experiment=PLATEAUS, first="covariance_random|covariance_mixture", second=COVARIANCE_MIXTURE
        ),
        criterion=Above(CHANCE),
        figure="thresholds_plateaus",
    ),
    _claim(
        id="real_other_more_sensitive",
        title="Directions towards real activations are more sensitive",
        source=POST,
        sentence="From a real activation, directions towards another real activation change the output earlier than "
        "directions towards covariance-random ones.",
        statistic="AUROC: towards real crosses before towards covariance-random",
        compute=partial(auroc, experiment=SENSITIVE, first=TOWARD_REAL, second=TOWARD_COVARIANCE),
        criterion=Above(CHANCE),
        figure="thresholds_sensitive_directions",
        note="An author later traced part of this to the baseline, as both directions contain minus the base "
        "activation "
        "(Lee & Heimersheim, 2024); the mixtures below are free of it.",
    ),
    _claim(
        id="real_mixture_more_sensitive",
        title="Real directions are more sensitive under the corrected baseline",
        source=f"{POST}; baseline corrected by {IMPROVED}",
        sentence="Differences of two real activations change the output earlier than differences of two "
        "covariance-random "
        "vectors.",
        statistic="AUROC: real mixtures cross before covariance mixtures",
        compute=partial(auroc, experiment=SENSITIVE, first=REAL_MIXTURE, second=COVARIANCE_MIXTURE),
        criterion=Above(CHANCE),
        figure="thresholds_sensitive_directions",
        note="Neither direction contains the base activation.",
    ),
    _claim(
        id="mixtures_differ_little",
        title="Real and covariance mixtures differ little",
        source=IMPROVED,
        sentence="Once directions no longer contain the base, real and covariance-random ones are about equally "
        "sensitive.",
        statistic="AUROC: real mixtures cross before covariance mixtures",
        compute=partial(auroc, experiment=SENSITIVE, first=REAL_MIXTURE, second=COVARIANCE_MIXTURE),
        criterion=Within(0.4, 0.6),
        figure="thresholds_sensitive_directions",
        note="The tolerance of 0.1 around 0.5 is ours.",
    ),
    _claim(
        id="isotropic_less_sensitive",
        title="Isotropic directions are less sensitive",
        source=POST,
        sentence="Isotropic random directions change the output later than random directions with the data's "
        "covariance.",
        statistic="AUROC: towards covariance-random crosses before isotropic",
        compute=partial(auroc, experiment=SENSITIVE, first=TOWARD_COVARIANCE, second=ISOTROPIC),
        criterion=Above(CHANCE),
        figure="thresholds_sensitive_directions",
        note="Only the former contains the base activation.",
    ),
    _claim(
        id="covariance_mixture_beats_isotropic",
        title="Isotropic directions are less sensitive than covariance mixtures",
        source=IMPROVED,
        sentence="Differences of two covariance-random vectors change the output earlier than isotropic directions.",
        statistic="AUROC: covariance mixtures cross before isotropic",
        compute=partial(auroc, experiment=SENSITIVE, first=COVARIANCE_MIXTURE, second=ISOTROPIC),
        criterion=Above(CHANCE),
        figure="thresholds_sensitive_directions",
        note="Neither direction contains the base activation.",
    ),
    _claim(
        id="vanishes_at_late_layer",
        title="The difference shrinks at a late layer",
        source="Heimersheim, reply to a comment on the post, LessWrong 2024",
        sentence="Perturbing a late layer instead of an early one, the difference between real and random directions "
        "disappears.",
        statistic="distance of AUROC from 0.5 at the early site minus that at the late site, "
        "towards real against towards covariance-random",
        compute=late_against_early,
        criterion=Above(0.0),
        figure="late_layer_control",
        note="Tests that the difference shrinks; whether it is gone, the late AUROC shows. One test experiment in the "
        "source.",
    ),
    _claim(
        id="plateaus_need_training",
        title="Plateaus come from training",
        source=f"{REGIONS}; this comparison is ours",
        sentence="A model with random weights does not show the plateau that the trained model shows.",
        statistic="AUROC of random base before real base, trained weights minus random weights",
        compute=trained_against_untrained,
        criterion=Above(0.0),
        figure="random_weights_control",
        note="Published with interpolation between real activations, read at a late layer.",
    ),
)
