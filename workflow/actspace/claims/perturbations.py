"""Claims about plateaus and sensitive directions; each rests on one comparison of threshold crossings.

AUROC is the probability that the first family crosses the threshold before the second, ties counting half."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from actspace.claims.entry import Claim, NotTestedError, Tables, estimate_of, rows_of
from actspace.claims.intervals import Above, Estimate, Within, complement, difference, distance, everywhere
from actspace.perturbations.statistics import at_one_threshold

POST = "Heimersheim & Mendel, LessWrong 2024: activation plateaus and sensitive directions in GPT-2"
IMPROVED = "Lee & Heimersheim, 2024: Investigating Sensitive Directions in GPT-2 (arXiv 2410.12555)"
REGIONS = "Janiak et al., 2024: Characterizing stable regions in the residual stream of LLMs (arXiv 2409.17113)"

PLATEAUS, SENSITIVE = "plateaus", "sensitive_directions"
LATE, UNTRAINED = "late_layer", "plateaus_random_weights"
TOWARD_REAL, TOWARD_COVARIANCE = "real|toward_real", "real|toward_covariance_random"
REAL_MIXTURE, COVARIANCE_MIXTURE, ISOTROPIC = "real|real_mixture", "real|covariance_mixture", "real|isotropic"
RANDOM_BASE = "covariance_random|toward_covariance_random"
CHANCE = 0.5


def auroc(tables: Tables, experiment: str, first: str, second: str) -> Estimate:
    """Find the AUROC of one family against another, on the sphere where it was run and else on the straight path.

    Parameters
    ----------
    first, second : str
        Families as "base|direction"; a table that compares them the other way round is turned.
    """
    rows = at_one_threshold(rows_of(tables, "perturbation_comparisons", experiment=experiment, statistic="auroc"))
    straight = (rows["a"] == first) & (rows["b"] == second)
    turned = (rows["a"] == second) & (rows["b"] == first)
    rows = rows[straight | turned]
    if rows.empty:
        raise NotTestedError(f"experiment {experiment} does not compare {first} with {second}")
    path = "sphere" if (rows["path"] == "sphere").any() else "straight"
    places = {}
    for _, row in rows[rows["path"] == path].iterrows():
        found = _with_detail(estimate_of(row), f"{path}, {int(row['n_prompts'])} prompts")
        places[str(row["site"])] = found if row["a"] == first else complement(found)
    return everywhere(places)


def _with_detail(estimate: Estimate, detail: str) -> Estimate:
    return Estimate(estimate.value, estimate.low, estimate.high, detail)


def plateau_by_itself(tables: Tables) -> Estimate:
    """One minus the median flatness of sqrt(2 KL) from a real base, on the sphere where it was run."""
    wanted = {"base": "real", "direction": "toward_covariance_random", "statistic": "median_flatness_sqrt_2kl"}
    rows = rows_of(tables, "perturbation_statistics", experiment=PLATEAUS, **wanted)
    path = "sphere" if (rows["path"] == "sphere").any() else "straight"
    rows = rows[rows["path"] == path]
    detail = f"{path}, {int(rows['n_prompts'].max())} prompts"
    return everywhere(
        {str(row["site"]): _with_detail(complement(estimate_of(row)), detail) for _, row in rows.iterrows()}
    )


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
        sentence="From a real activation the output changes less at first than in proportion to the perturbation.",
        table="perturbation_statistics",
        statistic="1 minus the median flatness: mean slope of √(2 KL) over the first third of the path, over that of "
        "the whole path",
        compute=plateau_by_itself,
        criterion=Above(0.0),
        figure="curves_plateaus",
        note="KL is quadratic at zero even for a linear model, so a flat start of KL alone shows nothing; √(2 KL) of a "
        "linear model gives 0.",
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
