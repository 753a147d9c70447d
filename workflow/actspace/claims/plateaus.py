"""Claims about plateaus: where curves from real and from random bases rise, and what exceeds the local-linear null."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from actspace.claims.entry import CHANCE_ALONE, SIGN_ALONE, NotTestedError, Tables, claims_of, rows_of
from actspace.claims.intervals import Above, Estimate, Within, difference
from actspace.claims.sources import IMPROVED, PLATEAUS_1, PLATEAUS_REPLY, REGIONS
from actspace.claims.sweeps import (
    CHANCE,
    COVARIANCE_MIXTURE,
    RANDOM_BASE,
    RANDOM_BASE_MIXTURE,
    SPHERE,
    STRAIGHT,
    TOWARD_COVARIANCE,
    auroc,
    compared,
    minus,
    of_family,
)

PLATEAUS, UNTRAINED = "plateaus", "plateaus_random_weights"
PUBLISHED_ANGLE = 40.0
"""Degrees up to which the post says that the output of GPT-2 barely changes."""


def plateau_angle(tables: Tables) -> Estimate:
    """Median angle at which curves from real bases cross the threshold, in degrees; those of random bases in the detail."""
    real, random = (
        of_family(tables, PLATEAUS, "median_crossing", family, SPHERE) for family in (TOWARD_COVARIANCE, RANDOM_BASE)
    )
    beside = f"from a random base {random.value:.1f} ({random.low:.1f} to {random.high:.1f})"
    return replace(real, detail=f"{real.detail}; {beside}")


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


_claim = claims_of(
    table="perturbation_comparisons",
    figure="thresholds_plateaus",
    unit="AUROC",
    criterion=Above(CHANCE),
    tolerance=CHANCE_ALONE,
)
_flatness = claims_of(
    table="perturbation_statistics",
    figure="curves_plateaus",
    unit="share of area",
    criterion=Above(0.0),
    tolerance=SIGN_ALONE,
)
CLAIMS = (
    _claim(
        id="plateaus",
        title="Real activations sit on plateaus",
        source=PLATEAUS_1,
        sentence="Turned in random directions, the model's output changes later from a real activation than from a random "
        "one with the same mean and covariance.",
        statistic="AUROC: random base crosses before real base, directions towards covariance-random targets",
        compute=partial(auroc, experiment=PLATEAUS, first=RANDOM_BASE, second=TOWARD_COVARIANCE),
        note="Directions towards a target contain minus the base's deviation from the mean.",
    ),
    _claim(
        id="plateaus_on_straight_paths",
        title="Real activations sit on plateaus (straight paths)",
        source=PLATEAUS_1,
        sentence="The same along straight lines, where the norm changes too.",
        statistic="AUROC: random base crosses before real base, towards covariance-random targets, straight",
        compute=partial(auroc, experiment=PLATEAUS, first=RANDOM_BASE, second=TOWARD_COVARIANCE, path=STRAIGHT),
        note="Directions towards a target contain minus the base's deviation from the mean.",
    ),
    _claim(
        id="plateaus_with_mixtures",
        title="Real activations sit on plateaus (directions without the base)",
        source=f"{PLATEAUS_1}; directions after {IMPROVED}",
        sentence="The same, perturbed along differences of two covariance-random vectors, which do not contain the base.",
        statistic="AUROC: random base crosses before real base, covariance mixtures",
        compute=partial(auroc, experiment=PLATEAUS, first=RANDOM_BASE_MIXTURE, second=COVARIANCE_MIXTURE),
    ),
    _flatness(
        id="plateau_angle",
        title="The output barely changes up to 40 degrees",
        source=PLATEAUS_1,
        sentence="Turned towards a random activation, the output barely changes up to about 40 degrees.",
        statistic="median angle at which KL crosses the threshold from a real base, towards covariance-random",
        unit="degrees",
        compute=plateau_angle,
        criterion=Above(PUBLISHED_ANGLE),
        tolerance="None: 40 degrees as published. The crossing of 0.5 nats, the author's threshold, can only lie beyond the flat "
        "part of a curve.",
        figure="thresholds_plateaus",
        note="Read off the curves of GPT-2 small by the author.",
    ),
    _flatness(
        id="random_bases_have_no_plateau",
        title="From a random activation the output changes before 40 degrees",
        source=PLATEAUS_1,
        sentence="Curves from random activations do not follow this pattern: they rise at once.",
        statistic="median angle at which KL crosses the threshold from a random base, towards covariance-random",
        unit="degrees",
        compute=partial(of_family, experiment=PLATEAUS, statistic="median_crossing", family=RANDOM_BASE, path=SPHERE),
        criterion=Within(0.0, PUBLISHED_ANGLE),
        tolerance="Up to the 40 degrees at which real bases are said to begin: the post gives no number for random ones.",
        figure="thresholds_plateaus",
    ),
    _claim(
        id="plateau_angle_real_minus_random",
        title="The plateau of a real activation is wider",
        source=f"{PLATEAUS_1}; the difference is ours",
        sentence="The output starts to change at a larger angle from a real activation than from a random one with the "
        "same mean and covariance.",
        statistic="median angle of the crossing from real bases minus that from random bases, towards covariance-random",
        unit="degrees",
        compute=partial(
            compared,
            experiment=PLATEAUS,
            statistic="median_difference_crossing",
            first=TOWARD_COVARIANCE,
            second=RANDOM_BASE,
            turn=minus,
            path=SPHERE,
        ),
        criterion=Above(0.0),
        tolerance=SIGN_ALONE,
        note="In sphere mode a direction towards a target and the target itself are one direction.",
    ),
    _flatness(
        id="plateaus_are_flat",
        title="Around a real activation the output is flatter than a linear model's",
        source=f"{PLATEAUS_1}; this statistic is ours",
        sentence="From a real activation the output changes less at first than it goes on to: a model as linear all along "
        "the path as it is at its start would change less.",
        statistic="median excess of √(2 KL) over its local-linear null: share of the area under the curve that the "
        "Fisher metric at the base does not predict",
        compute=partial(of_family, experiment=PLATEAUS, statistic="median_excess_sqrt_2kl", family=TOWARD_COVARIANCE),
        note="KL is quadratic at zero even for a linear model, so a flat start of KL alone shows nothing; the excess of a "
        "linear model is 0.",
    ),
    _flatness(
        id="plateaus_are_flat_inside",
        title="The plateau is there before the logits",
        source=f"{PLATEAUS_REPLY}; this statistic is ours",
        sentence="The same of the L2 distance at a late layer, so that plateaus do not come from how activations are "
        "turned into outputs.",
        statistic="median excess of the late L2 distance over its local-linear null",
        compute=partial(of_family, experiment=PLATEAUS, statistic="median_excess_l2", family=TOWARD_COVARIANCE),
    ),
    _flatness(
        id="plateaus_flatter_than_random",
        title="Real activations exceed the local-linear null by more than random ones",
        source=f"{PLATEAUS_1}; directions after {IMPROVED}; this statistic is ours",
        sentence="Along the same directions, the output is flatter at first around a real activation than around a "
        "random one with the same mean and covariance.",
        table="perturbation_comparisons",
        statistic="median excess of √(2 KL) from real bases minus that from random bases, covariance mixtures",
        compute=partial(
            compared,
            experiment=PLATEAUS,
            statistic="median_difference_excess_sqrt_2kl",
            first=COVARIANCE_MIXTURE,
            second=RANDOM_BASE_MIXTURE,
            turn=minus,
        ),
        note="The directions do not contain the base.",
    ),
    _flatness(
        id="plateaus_flatter_than_random_inside",
        title="A late layer is flatter around real activations than around random ones",
        source=f"{PLATEAUS_REPLY}; directions after {IMPROVED}; this statistic is ours",
        sentence="On distribution, a perturbation of an early layer perturbs a late one less at first than off distribution.",
        table="perturbation_comparisons",
        statistic="median excess of the late L2 distance from real bases minus that from random bases, covariance mixtures",
        compute=partial(
            compared,
            experiment=PLATEAUS,
            statistic="median_difference_excess_l2",
            first=COVARIANCE_MIXTURE,
            second=RANDOM_BASE_MIXTURE,
            turn=minus,
        ),
        note="The directions do not contain the base.",
    ),
    _claim(
        id="plateaus_need_training",
        title="Plateaus come from training",
        source=f"{REGIONS}; this comparison is ours",
        sentence="A model with random weights does not show the plateau that the trained model shows.",
        statistic="AUROC of random base before real base, trained weights minus random weights",
        compute=trained_against_untrained,
        criterion=Above(0.0),
        tolerance=SIGN_ALONE,
        figure="random_weights_control",
        note="Published with interpolation between real activations, read at a late layer.",
    ),
)
