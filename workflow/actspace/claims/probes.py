"""Claims about truth directions: probes on the statements of the study."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pandas as pd

from actspace.claims.entry import SIGN_ALONE, Claim, NotTestedError, Tables, estimate_of, rows_of, where_tested
from actspace.claims.intervals import Above, Estimate, Within, difference, mean
from actspace.claims.sources import GEOMETRY_OF_TRUTH, LESSON

TOLERANCE = 0.05
TILTED = ("mass_mean_covariance", "sigma_inv_theta")
"""Names that the direction of mass-mean with the covariance may have."""
BEST_LAYER = "The best layer is chosen on the scores that are reported, which flatters it a little."


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


def tilt_in_the_model(tables: Tables) -> Estimate:
    """Cosine of LR with mass-mean with covariance minus its cosine with mass-mean, mean over layers, by training set."""
    table = rows_of(tables, "probe_angles")
    deep = table[table["layer"] > 0]
    return where_tested({str(name): rows for name, rows in deep.groupby("train_set", sort=False)}, mean_tilt)


def mean_tilt(angles: pd.DataFrame) -> Estimate:
    """Average the tilt of LR over layers; the mean of the ends is valid however the layers depend on one another."""
    tilted, plain = (_cosine_with_lr(angles, names) for names in (TILTED, ("mass_mean",)))
    shared = [layer for layer in plain if layer in tilted]
    if not shared:
        raise NotTestedError(f"no cosine of logistic regression with {TILTED[0]} after layer 0")
    found = mean([difference(tilted[layer], plain[layer]) for layer in shared])
    return Estimate(found.value, found.low, found.high, f"{len(shared)} layers")


def _cosine_with_lr(angles: pd.DataFrame, names: tuple[str, ...]) -> dict[int, Estimate]:
    """Read the cosine of LR with the first of some probes that is there, by layer."""
    for name in names:
        rows = angles[[{a, b} == {"logistic_regression", name} for a, b in angles[["probe_a", "probe_b"]].to_numpy()]]
        if len(rows):
            return {int(row["layer"]): estimate_of(row) for _, row in rows.iterrows()}
    return {}


CLAIMS = (
    Claim(
        id="lr_is_tilted_in_the_model",
        title="Logistic regression is tilted by the model's covariance, too",
        source=f"{LESSON}: what it leads one to expect of a model; this statistic is ours",
        sentence="On the statements of the study, the direction of logistic regression is nearer to the difference of the "
        "class means after division by the covariance than to that difference itself.",
        table="probe_angles",
        statistic="cosine of logistic regression with mass-mean with covariance minus that with mass-mean, mean over layers "
        "after the embedding",
        unit="cosine",
        compute=tilt_in_the_model,
        criterion=Above(0.0),
        tolerance=SIGN_ALONE,
        figure="probe_angles",
        note="A penalty on its weights turns logistic regression towards mass-mean, and shrinking the covariance does the same "
        "to the other direction.",
    ),
    Claim(
        id="truth_probe_beats_layer_0",
        title="Truth is more than surface features",
        source=f"{GEOMETRY_OF_TRUTH}: truth is linearly represented inside large models; the comparison with layer 0 is ours",
        sentence="A linear probe inside the model tells true from false statements about unseen entities better than the "
        "same probe on the embedding.",
        table="probe_summary",
        statistic="accuracy of logistic regression at its best layer minus its accuracy at layer 0, held-out entities",
        unit="accuracy",
        compute=partial(on_held_out, statistic=gain_over_layer_0),
        criterion=Above(0.0),
        tolerance=SIGN_ALONE,
        figure="probe_layers",
        note=f"Published for much larger models; small ones may know surface features only. {BEST_LAYER}",
    ),
    Claim(
        id="truth_probe_beats_shuffled_labels",
        title="Probes find more than chance",
        source=f"ours: a control for {GEOMETRY_OF_TRUTH}",
        sentence="A linear probe does better than the same probe trained on shuffled labels.",
        table="probe_summary",
        statistic="accuracy of logistic regression at its best layer minus that of shuffled labels, held-out entities",
        unit="accuracy",
        compute=partial(on_held_out, statistic=gain_over_shuffled_labels),
        criterion=Above(0.0),
        tolerance=SIGN_ALONE,
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
        unit="accuracy",
        compute=partial(on_held_out, statistic=mass_mean_against_lr),
        criterion=Within(-TOLERANCE, TOLERANCE),
        tolerance=f"{TOLERANCE:g} either side of 0, ours: the paper speaks of similar accuracies.",
        figure="probe_layers",
        note=f"The paper's stronger claim is about causal effect. {BEST_LAYER}",
    ),
)
