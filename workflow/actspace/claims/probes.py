"""Claims about truth directions: the toy with closed-form answers, and probes on the statements of the study."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pandas as pd

from actspace.claims.entry import Claim, NotTestedError, Tables, estimate_of, rows_of, where_tested
from actspace.claims.intervals import Above, Estimate, Within, difference

GEOMETRY_OF_TRUTH = "Marks & Tegmark, 2023: The Geometry of Truth"
LESSON = "Heimersheim, LessWrong: shortform on a lesson of the Geometry of Truth paper"
TOLERANCE = 0.05
BEST_LAYER = "The best layer is chosen on the scores that are reported, which flatters it a little."


def toy_score(tables: Tables, probe: str, metric: str) -> Estimate:
    """Read one score of one probe on the toy."""
    return estimate_of(rows_of(tables, "toy_truth", probe=probe, metric=metric).iloc[0])


def tilt_of_logistic_regression(tables: Tables) -> Estimate:
    """Cosine of LR with Σ⁻¹θ minus its cosine with theta."""
    tilted = toy_score(tables, "logistic_regression", "cosine_to_sigma_inv_theta")
    plain = toy_score(tables, "logistic_regression", "cosine_to_theta")
    return difference(tilted, plain, f"{tilted.value:.3f} and {plain.value:.3f}")


def mass_mean_cosine(tables: Tables) -> Estimate:
    """Cosine of the mass-mean direction with theta."""
    return toy_score(tables, "mass_mean", "cosine_to_theta")


def shuffled_cosine(tables: Tables) -> Estimate:
    """Cosine with theta of LR on data shuffled within class."""
    found = toy_score(tables, "shuffled_logistic_regression", "cosine_to_theta")
    diagonal = rows_of(
        tables, "toy_truth", probe="shuffled_logistic_regression", metric="cosine_to_diag_inv_theta"
    ).iloc[0]
    detail = f"its cosine with diag(Σ)⁻¹θ is {diagonal['value']:.3f}"
    return Estimate(found.value, found.low, found.high, detail)


def toy_advantage(tables: Tables) -> Estimate:
    """Accuracy of LR minus accuracy of mass-mean on the toy."""
    better = toy_score(tables, "logistic_regression", "accuracy")
    return difference(better, toy_score(tables, "mass_mean", "accuracy"))


def held_out(tables: Tables) -> dict[str, pd.DataFrame]:
    """Return the accuracies per statement set, trained and tested on different entities of the same set."""
    rows = rows_of(tables, "probe_summary", metric="accuracy")
    rows = rows[rows["train_set"] == rows["test_set"]]
    if rows.empty:
        raise NotTestedError("no probe was tested on held-out entities of its own statement set")
    return {str(name): part for name, part in rows.groupby("test_set", sort=False)}


def score_at(rows: pd.DataFrame, probe: str, layer: int) -> Estimate:
    """Read one probe's accuracy at one layer."""
    return estimate_of(rows_of({"probe_summary": rows}, "probe_summary", probe=probe, layer=layer).iloc[0])


def best_layer(rows: pd.DataFrame, *probes: str) -> int:
    """Return the layer after a block at which the probes do best on average; the embedding does not compete."""
    deep = rows[rows["probe"].isin(probes) & (rows["layer"] > 0)]
    if set(probes) - set(deep["probe"]):
        raise NotTestedError("no rows in probe_summary after layer 0 for " + " and ".join(probes))
    means = deep.groupby("layer")["value"].mean()
    return int(means.index[int(means.to_numpy().argmax())])


def mass_mean_against_lr(rows: pd.DataFrame) -> Estimate:
    """Accuracy of mass-mean minus accuracy of LR at the layer that suits the two best."""
    layer = best_layer(rows, "mass_mean", "logistic_regression")
    ours, theirs = (score_at(rows, probe, layer) for probe in ("mass_mean", "logistic_regression"))
    return difference(ours, theirs, f"layer {layer}: {ours.value:.3f} and {theirs.value:.3f}")


def gain_over_layer_0(rows: pd.DataFrame) -> Estimate:
    """Accuracy of LR at its best layer minus its accuracy at the embedding."""
    layer = best_layer(rows, "logistic_regression")
    deep, surface = (score_at(rows, "logistic_regression", at) for at in (layer, 0))
    return difference(deep, surface, f"layer {layer}: {deep.value:.3f}, layer 0: {surface.value:.3f}")


def gain_over_shuffled_labels(rows: pd.DataFrame) -> Estimate:
    """Accuracy of LR at its best layer minus that of the probe trained on shuffled labels."""
    layer = best_layer(rows, "logistic_regression")
    true, shuffled = (score_at(rows, probe, layer) for probe in ("logistic_regression", "shuffled_labels"))
    return difference(true, shuffled, f"layer {layer}: {true.value:.3f} and {shuffled.value:.3f}")


def on_held_out(tables: Tables, statistic: Callable[[pd.DataFrame], Estimate]) -> Estimate:
    """Compute a statistic of scores on every statement set that has what it needs."""
    return where_tested(held_out(tables), statistic)


CLAIMS = (
    Claim(
        id="lr_finds_tilted_direction",
        title="Logistic regression finds a tilted direction",
        source=f"{GEOMETRY_OF_TRUTH}; {LESSON}",
        sentence="With a nuisance direction that is uncorrelated with truth but not orthogonal to it, logistic "
        "regression "
        "finds Σ⁻¹θ and not the truth direction theta.",
        table="toy_truth",
        statistic="cosine of the logistic-regression direction with Σ⁻¹θ minus its cosine with theta",
        compute=tilt_of_logistic_regression,
        criterion=Above(0.0),
        figure="toy_truth",
        note="A toy with known answers: a check of the methods and not of the model.",
    ),
    Claim(
        id="mass_mean_finds_feature",
        title="Mass-mean finds the feature direction",
        source=f"{GEOMETRY_OF_TRUTH}; {LESSON}",
        sentence="The difference between the class means points along the truth direction itself.",
        table="toy_truth",
        statistic="cosine of the mass-mean direction with theta",
        compute=mass_mean_cosine,
        criterion=Above(0.99),
        figure="toy_truth",
        note="The limit of 0.99 is ours. A toy: a check of the methods and not of the model.",
    ),
    Claim(
        id="lr_is_better_probe",
        title="The tilted direction is the better probe",
        source=f"{GEOMETRY_OF_TRUTH}; {LESSON}",
        sentence="Although it misses the feature direction, logistic regression tells true from false more accurately.",
        table="toy_truth",
        statistic="accuracy of logistic regression minus accuracy of mass-mean on the toy",
        compute=toy_advantage,
        criterion=Above(0.0),
        figure="toy_truth",
        note="A toy: a check of the methods and not of the model.",
    ),
    Claim(
        id="shuffled_lr_finds_feature",
        title="Shuffling away the covariance recovers the feature",
        source="comment on Heimersheim's shortform, LessWrong",
        sentence="Fitted to data whose coordinates were shuffled independently within each class, a linear probe "
        "finds theta.",
        table="toy_truth",
        statistic="cosine with theta of logistic regression on the shuffled data",
        compute=shuffled_cosine,
        criterion=Above(0.99),
        figure="toy_truth",
        note="Shuffling keeps each coordinate's variance, so the probe finds diag(Σ)⁻¹θ; that is theta only where "
        "the marginal variances are equal. The limit of 0.99 is ours.",
    ),
    Claim(
        id="truth_probe_beats_layer_0",
        title="Truth is more than surface features",
        source=f"{GEOMETRY_OF_TRUTH} (truth is linearly represented in the middle layers of large models)",
        sentence="A linear probe inside the model tells true from false statements about unseen entities better than "
        "the "
        "same probe on the embedding.",
        table="probe_summary",
        statistic="accuracy of logistic regression at its best layer minus its accuracy at layer 0, held-out entities",
        compute=partial(on_held_out, statistic=gain_over_layer_0),
        criterion=Above(0.0),
        figure="probe_layers",
        note=f"Published for much larger models; small ones may know surface features only. {BEST_LAYER}",
    ),
    Claim(
        id="truth_probe_beats_shuffled_labels",
        title="Probes find more than chance",
        source=f"our control for {GEOMETRY_OF_TRUTH}",
        sentence="A linear probe does better than the same probe trained on shuffled labels.",
        table="probe_summary",
        statistic="accuracy of logistic regression at its best layer minus that of shuffled labels, held-out entities",
        compute=partial(on_held_out, statistic=gain_over_shuffled_labels),
        criterion=Above(0.0),
        figure="probe_layers",
        note=BEST_LAYER,
    ),
    Claim(
        id="mass_mean_probes_like_lr",
        title="Mass-mean probes about as well as logistic regression",
        source=GEOMETRY_OF_TRUTH,
        sentence="On held-out statements the mass-mean direction is about as accurate as logistic regression.",
        table="probe_summary",
        statistic="accuracy of mass-mean minus accuracy of logistic regression at the layer best for the two",
        compute=partial(on_held_out, statistic=mass_mean_against_lr),
        criterion=Within(-TOLERANCE, TOLERANCE),
        figure="probe_layers",
        note=f"The tolerance of {TOLERANCE:g} is ours. The paper's stronger claim is about causal effect. {BEST_LAYER}",
    ),
)
