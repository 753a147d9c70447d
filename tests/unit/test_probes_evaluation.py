"""Evaluation of probes: metrics against scikit-learn, no leak of entities, baselines, tables."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from actspace.errors import StudyError
from actspace.probes import evaluation
from actspace.probes.evaluation import evaluate, summarise

PROBES = ["logistic_regression", "mass_mean", "mass_mean_covariance", "shuffled_labels"]
CFG = {"probes": PROBES, "splits": 4, "test_fraction": 0.3, "C": 1.0}


@pytest.fixture(scope="module")
def study():
    """Two sets of 40 entities; the second one's truth direction is orthogonal to the first one's."""
    rng = np.random.default_rng(0)
    labels, sets = np.tile([0, 1], 80), np.repeat(["first", "second"], 80)
    groups = np.tile(np.repeat([f"e{i}" for i in range(40)], 2), 2)
    X = rng.standard_normal((160, 30))
    X[np.arange(160), np.where(sets == "first", 0, 1)] += 4.0 * (labels - 0.5)
    activations = {"blocks.0.hook_resid_pre": np.full((160, 30), 0.7), "blocks.0.hook_resid_post": X}
    return activations, labels, groups, sets


@pytest.fixture(scope="module")
def result(study):
    return evaluate(*study, CFG, seed=0)


def mean(scores, **where):
    chosen = scores[np.logical_and.reduce([scores[column] == value for column, value in where.items()])]
    return chosen["value"].mean()


def test_a_table_has_one_row_per_measurement(result):
    scores, angles, directions = result
    assert len(scores) == 2 * 4 * 3 * 2 * 4 * 2  # hooks, probes, training sets, test sets, splits, metrics
    assert not scores.duplicated([*evaluation.KEYS, "seed"]).any()
    assert list(scores.columns) == evaluation.SCORE_COLUMNS
    assert set(scores["layer"]) == {0, 1}
    sizes = scores.groupby("train_set")[["n_train", "n_test"]].agg(["min", "max"])
    assert sizes.loc["first"].tolist() == [56, 56, 24, 24]
    assert sizes.loc["all"].tolist() == [112, 112, 24, 24]
    assert len(directions) == 2 * 4 * 3 * 4
    assert len(angles) == 2 * 6


def test_probes_find_truth_where_it_is_and_not_in_the_other_set(result):
    scores = result[0][(result[0]["layer"] == 1) & (result[0]["metric"] == "accuracy")]
    for probe in PROBES[:3]:
        assert mean(scores, probe=probe, train_set="first", test_set="first") > 0.9
        assert mean(scores, probe=probe, train_set="all", test_set="second") > 0.85
        assert abs(mean(scores, probe=probe, train_set="first", test_set="second") - 0.5) < 0.15


def test_scores_are_those_of_the_saved_directions(study, result):
    activations, labels, groups, sets = study
    scores, _, directions = result
    test = evaluation.entity_split(groups, 0.3, evaluation.seed_for(0, "split", 2)) & (sets == "second")
    values = directions["blocks.0.hook_resid_post/all/mass_mean/2"].scores(
        activations["blocks.0.hook_resid_post"][test]
    )
    rows = scores[(scores["seed"] == 2) & (scores["layer"] == 1)]
    where = {"probe": "mass_mean", "train_set": "all", "test_set": "second"}
    assert mean(rows, metric="auroc", **where) == pytest.approx(roc_auc_score(labels[test], values))
    assert mean(rows, metric="accuracy", **where) == pytest.approx(((values > 0) == labels[test]).mean())


def test_shuffled_labels_stay_near_chance_where_the_classes_are_apart(study):
    activations, labels, groups, sets = study
    X = {"blocks.0.hook_resid_post": activations["blocks.0.hook_resid_post"]}
    scores, _, _ = evaluate(X, labels, groups, sets, CFG | {"splits": 20, "probes": ["shuffled_labels"]}, seed=1)
    assert abs(mean(scores, metric="accuracy", train_set="all") - 0.5) < 0.07


def test_a_constant_layer_is_at_chance_exactly(result):
    scores, angles, _ = result
    assert set(scores.loc[scores["layer"] == 0, "value"]) == {0.5}
    assert angles.loc[angles["layer"] == 0, "value"].isna().all()


def test_what_is_learnt_of_an_entity_does_not_count():
    """Each entity has its own truth direction: known from its other rows, and from nothing else."""
    rng = np.random.default_rng(0)
    entity, labels = np.repeat(np.arange(30), 4), np.tile([0, 0, 1, 1], 30)
    X = (2 * labels - 1)[:, None] * rng.standard_normal((30, 60))[entity] + 0.01 * rng.standard_normal((120, 60))
    cfg = CFG | {"probes": ["logistic_regression"], "splits": 10}
    found = []
    for groups in (entity.astype(str), np.arange(120).astype(str)):
        scores, _, _ = evaluate({"blocks.0.hook_resid_post": X}, labels, groups, ["s"] * 120, cfg, seed=0)
        found.append(mean(scores, metric="accuracy", train_set="all"))
    by_entity, by_row = found
    assert abs(by_entity - 0.5) < 0.12
    assert by_row > 0.9


def test_the_same_seed_gives_the_same_also_with_threads(study, result):
    scores, angles, directions = evaluate(*study, CFG, seed=0, n_jobs=2)
    pd.testing.assert_frame_equal(scores, result[0])
    pd.testing.assert_frame_equal(angles, result[1])
    assert all((directions[key].direction == probe.direction).all() for key, probe in result[2].items())
    assert not evaluate(*study, CFG, seed=1)[0]["value"].equals(scores["value"])


def test_train_sets_limit_what_is_trained_on(study, result):
    scores, angles, _ = evaluate(*study, CFG | {"train_sets": ["second"]}, seed=0)
    expected = result[0][result[0]["train_set"] == "second"].reset_index(drop=True)
    pd.testing.assert_frame_equal(scores, expected)
    assert set(angles["train_set"]) == {"second"}
    assert set(result[1]["train_set"]) == {"all"}


def test_angles_are_cosines_of_directions(result):
    _, angles, directions = result
    cosines = []
    for split in range(4):
        a, b = (directions[f"blocks.0.hook_resid_post/all/{name}/{split}"].direction for name in PROBES[:2])
        cosines.append(a @ b / np.sqrt((a @ a) * (b @ b)))
    row = angles[(angles["layer"] == 1) & (angles["probe_a"] == PROBES[0]) & (angles["probe_b"] == PROBES[1])].iloc[0]
    assert row["value"] == pytest.approx(np.mean(cosines))
    assert min(cosines) <= row["low"] < row["value"] < row["high"] <= max(cosines)


def test_summarise_averages_over_splits(result):
    scores = result[0]
    summary = summarise(scores)
    assert len(summary) == len(scores) / 4
    row = summary[(summary["layer"] == 1) & (summary["metric"] == "auroc") & (summary["train_set"] == "first")].iloc[0]
    values = scores.merge(row[evaluation.KEYS].to_frame().T.infer_objects(), on=evaluation.KEYS)["value"]
    assert row["value"] == pytest.approx(values.mean())
    assert row["n_splits"] == 4
    assert (row["n_train"], row["n_test"]) == (56, 24)
    assert values.min() <= row["low"] <= row["value"] <= row["high"] <= values.max()


def test_the_interval_is_that_of_the_mean():
    values = np.random.default_rng(0).standard_normal((1, 400))
    low, high = evaluation.interval(values, 0)
    half = 1.96 * values.std() / 20
    assert (low[0], high[0]) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.012)
    assert np.isnan(evaluation.interval(values[:, :1], 0)).all()


def test_metrics_against_scikit_learn_with_ties():
    rng = np.random.default_rng(0)
    scores, labels = rng.integers(-3, 4, (50, 3)).astype(float), rng.integers(0, 2, 50)
    expected = [roc_auc_score(labels, column) for column in scores.T]
    np.testing.assert_allclose(evaluation.auroc(scores, labels), expected)
    np.testing.assert_allclose(evaluation.auroc(np.zeros((50, 1)), labels), 0.5)
    assert evaluation.accuracy(np.array([[1.0], [-1.0], [0.0], [2.0]]), np.array([1, 0, 1, 0]))[0] == 0.625


def test_layers_of_hooks():
    hooks = [
        "blocks.0.hook_resid_pre",
        "blocks.0.hook_resid_post",
        "blocks.11.hook_resid_post",
        "ln_final.hook_normalized",
    ]
    assert list(evaluation._layers(hooks).values()) == [0, 1, 12, 13]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.zeros(160, dtype=int)}, "the training part of set 'first' lacks true or false .* split 0"),
        ({"sets": ["all"] * 160}, "a set is named 'all'"),
        ({"groups": ["a"] * 160}, "two entities or more"),
        ({"labels": [0, 1]}, "2 labels, 160 groups and 160 sets"),
        ({"cfg": CFG | {"train_sets": ["third"]}}, "`train_sets` names 'third'; there are first, second, all"),
        ({"cfg": CFG | {"probes": ["ccs"]}}, "there is no probe 'ccs'"),
        ({"activations": {"h": np.zeros((3, 2))}}, r"h: activations of shape \(3, 2\) do not belong to 160"),
        ({"activations": {"h": np.full((160, 2), np.inf)}}, "h: the activation of row 0 is NaN or infinite"),
    ],
)
def test_evaluate_names_the_mistake(study, change, message):
    names = ("activations", "labels", "groups", "sets")
    arguments = dict(zip(names, study, strict=True)) | {"cfg": CFG} | change
    with pytest.raises(StudyError, match=message):
        evaluate(**arguments, seed=0)
