"""Evaluation of probes: metrics against scikit-learn, no leak of entities, baselines, tables."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import brier_score_loss, roc_auc_score

from actspace.errors import StudyError
from actspace.probes import evaluation, metrics, names, published, summary
from actspace.probes.entities import SEPARATOR, sides
from actspace.probes.evaluation import evaluate
from actspace.probes.summary import summarise
from actspace.seeds import seed_for

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
    scores, angles, _, directions = result
    assert len(scores) == 2 * 4 * 3 * 2 * 4 * 4  # hooks, probes, training sets, test sets, splits, metrics
    assert not scores.duplicated([*summary.KEYS, "seed"]).any()
    assert list(scores.columns) == evaluation.SCORE_COLUMNS
    assert set(scores["layer"]) == {0, 1}
    sizes = scores.groupby("train_set")[["n_train", "n_test"]].agg(["min", "max"])
    assert sizes.loc["first"].tolist() == [56, 56, 24, 24]
    assert sizes.loc["all"].tolist() == [112, 112, 24, 24]
    assert len(directions) == 2 * 4 * 3 * 4
    assert len(angles) == 2 * 6


def test_a_compound_statement_that_a_split_parts_is_neither_trained_on_nor_tested(study):
    activations, labels, groups, sets = study
    two = [f"{a}{SEPARATOR}{b}" for a, b in zip(groups, np.roll(groups, 2), strict=True)]
    compound, cfg = np.where(sets == "second", two, groups), CFG | {"splits": 1, "probes": ["mass_mean"]}
    train, test = sides(compound, 0.3, seed_for(0, "split", 0))
    parted = ~(train | test)
    assert 0 < parted.sum() < 80
    scores = evaluate(activations, labels, compound, sets, cfg, seed=0)[0]
    moved = {hook: X + 100 * parted[:, None] for hook, X in activations.items()}
    pd.testing.assert_frame_equal(evaluate(moved, labels, compound, sets, cfg, seed=0)[0], scores)
    sizes = scores[scores["train_set"] == scores["test_set"]].groupby("train_set")[["n_train", "n_test"]].first()
    assert sizes.sum(axis=1).to_dict() == {"first": 80, "second": 80 - parted.sum()}


def test_probes_find_truth_where_it_is_and_not_in_the_other_set(result):
    scores = result[0][(result[0]["layer"] == 1) & (result[0]["metric"] == "accuracy")]
    for probe in PROBES[:3]:
        assert mean(scores, probe=probe, train_set="first", test_set="first") > 0.9
        assert mean(scores, probe=probe, train_set="all", test_set="second") > 0.85
        assert abs(mean(scores, probe=probe, train_set="first", test_set="second") - 0.5) < 0.15


def test_scores_are_those_of_the_saved_directions(study, result):
    activations, labels, groups, sets = study
    scores, *_, directions = result
    test = sides(groups, 0.3, evaluation.seed_for(0, "split", 2))[1] & (sets == "second")
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
    scores, *_ = evaluate(X, labels, groups, sets, CFG | {"splits": 20, "probes": ["shuffled_labels"]}, seed=1)
    assert abs(mean(scores, metric="accuracy", train_set="all") - 0.5) < 0.07


def test_a_constant_layer_is_at_chance_exactly(result):
    scores, angles, *_ = result
    surface = scores[scores["layer"] == 0].groupby("metric")["value"].unique()
    chance = {"accuracy": 0.5, "auroc": 0.5, "brier": 0.25, "calibration_error": 0.0}
    assert {metric: values.tolist() for metric, values in surface.items()} == {m: [v] for m, v in chance.items()}
    assert angles.loc[angles["layer"] == 0, "value"].isna().all()


def test_what_is_learnt_of_an_entity_does_not_count():
    """Each entity has its own truth direction: known from its other rows, and from nothing else."""
    rng = np.random.default_rng(0)
    entity, labels = np.repeat(np.arange(30), 4), np.tile([0, 0, 1, 1], 30)
    X = (2 * labels - 1)[:, None] * rng.standard_normal((30, 60))[entity] + 0.01 * rng.standard_normal((120, 60))
    cfg = CFG | {"probes": ["logistic_regression"], "splits": 10}
    found = []
    for groups in (entity.astype(str), np.arange(120).astype(str)):
        scores, *_ = evaluate({"blocks.0.hook_resid_post": X}, labels, groups, ["s"] * 120, cfg, seed=0)
        found.append(mean(scores, metric="accuracy", train_set="all"))
    by_entity, by_row = found
    assert abs(by_entity - 0.5) < 0.12
    assert by_row > 0.9


def test_the_same_seed_gives_the_same_also_with_threads(study, result):
    scores, angles, _, directions = evaluate(*study, CFG, seed=0, n_jobs=2)
    pd.testing.assert_frame_equal(scores, result[0])
    pd.testing.assert_frame_equal(angles, result[1])
    assert all((directions[key].direction == probe.direction).all() for key, probe in result.directions.items())
    assert not evaluate(*study, CFG, seed=1)[0]["value"].equals(scores["value"])


def test_train_sets_limit_what_is_trained_on(study, result):
    scores, angles, *_ = evaluate(*study, CFG | {"train_sets": ["second"]}, seed=0)
    expected = result[0][result[0]["train_set"] == "second"].reset_index(drop=True)
    pd.testing.assert_frame_equal(scores, expected)
    assert set(angles["train_set"]) == {"second"}
    assert set(result[1]["train_set"]) == {"all"}


def test_angles_are_cosines_of_directions(result):
    _, angles, _, directions = result
    cosines = []
    for split in range(4):
        a, b = (directions[f"blocks.0.hook_resid_post/all/{name}/{split}"].direction for name in PROBES[:2])
        cosines.append(a @ b / np.sqrt((a @ a) * (b @ b)))
    row = angles[(angles["layer"] == 1) & (angles["probe_a"] == PROBES[0]) & (angles["probe_b"] == PROBES[1])].iloc[0]
    assert row["value"] == pytest.approx(np.mean(cosines))
    assert min(cosines) <= row["low"] < row["value"] < row["high"] <= max(cosines)


def test_summarise_averages_over_splits(result):
    scores = result[0]
    table = summarise(scores)
    assert len(table) == len(scores) / 4
    row = table[(table["layer"] == 1) & (table["metric"] == "auroc") & (table["train_set"] == "first")].iloc[0]
    values = scores.merge(row[summary.KEYS].to_frame().T.infer_objects(), on=summary.KEYS)["value"]
    assert row["value"] == pytest.approx(values.mean())
    assert row["n_splits"] == 4
    assert (row["n_train"], row["n_test"]) == (56, 24)
    assert values.min() <= row["low"] <= row["value"] <= row["high"] <= values.max()


def test_the_interval_is_that_of_the_mean():
    values = np.random.default_rng(0).standard_normal((1, 400))
    low, high = summary.interval(values, 0)
    half = 1.96 * values.std() / 20
    assert (low[0], high[0]) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.012)
    assert np.isnan(summary.interval(values[:, :1], 0)).all()


def test_metrics_against_scikit_learn_with_ties():
    rng = np.random.default_rng(0)
    scores, labels = rng.integers(-3, 4, (50, 3)).astype(float), rng.integers(0, 2, 50)
    expected = [roc_auc_score(labels, column) for column in scores.T]
    np.testing.assert_allclose(metrics.auroc(scores, labels), expected)
    np.testing.assert_allclose(metrics.auroc(np.zeros((50, 1)), labels), 0.5)
    assert metrics.accuracy(np.array([[1.0], [-1.0], [0.0], [2.0]]), np.array([1, 0, 1, 0]))[0] == 0.625


def test_layers_of_hooks():
    hooks = [
        "blocks.0.hook_resid_pre",
        "blocks.0.hook_resid_post",
        "blocks.11.hook_resid_post",
        "ln_final.hook_normalized",
    ]
    assert list(evaluation.layers_of(hooks).values()) == [0, 1, 12, 13]


@pytest.fixture(scope="module")
def negated():
    """A set, its negation and a third one; truth turns round under negation along axis 1 and not along axis 0."""
    rng = np.random.default_rng(5)
    labels, sets = np.tile([0, 1], 120), np.repeat(["one", "neg_one", "two"], 80)
    labels[80:160] = 1 - labels[80:160]
    groups = np.tile(np.repeat([f"e{i}" for i in range(40)], 2), 3)
    X = 0.5 * rng.standard_normal((240, 12)) + np.where(sets == "two", 3.0, -2.0)[:, None]
    X[:, 0] += 2 * labels - 1
    X[:, 1] += (2 * labels - 1) * np.where(sets == "neg_one", -1, 1)
    pairs = np.stack([np.arange(80), np.arange(80, 160)], axis=1)
    return {"blocks.0.hook_resid_post": X}, labels, groups, sets, pairs


def test_probes_that_need_negations_are_fitted_where_they_are(negated):
    *study, pairs = negated
    cfg = CFG | {"probes": ["mass_mean", "ccs", "ttpd"], "splits": 2}
    scores, angles, *_ = evaluate(*study, cfg, seed=0, pairs=pairs)
    fitted = scores.groupby("train_set")["probe"].unique().map(sorted).to_dict()
    assert fitted["all"] == ["ccs", "mass_mean", "ttpd"]
    assert all(fitted[name] == ["mass_mean"] for name in ("one", "neg_one", "two"))
    assert mean(scores, train_set="all", metric="accuracy", probe="ttpd", test_set="neg_one") > 0.9
    assert mean(scores, train_set="one", metric="accuracy", probe="mass_mean", test_set="neg_one") < 0.7
    assert {"ccs", "ttpd"} <= set(angles["probe_a"]) | set(angles["probe_b"])


def test_ccs_is_trained_on_the_pairs_of_the_training_part(negated):
    activations, labels, groups, sets, pairs = negated
    (hook, X) = next(iter(activations.items()))
    order = np.random.default_rng(1).permutation(len(labels))  # so that rows and pairs do not stand in order
    place = np.argsort(order)
    shuffled = ({hook: X[order]}, labels[order], groups[order], sets[order])
    cfg = CFG | {"probes": ["ccs"], "splits": 1}
    found = evaluate(*shuffled, cfg, seed=0, pairs=place[pairs]).directions[f"{hook}/all/ccs/0"]
    train = ~sides(groups, 0.3, evaluation.seed_for(0, "split", 0))[1]
    own = pairs[train[pairs].all(axis=1)]
    rng = evaluation.rng_for(0, "ccs", hook, "all", 0)
    expected = published.ccs(X[own[:, 0]], X[own[:, 1]], labels[own[:, 0]], rng)
    np.testing.assert_allclose(found.direction, expected.direction, atol=1e-4)


def test_every_kind_under_every_centring_is_fitted_and_saved_as_it_is_scored(negated):
    activations, labels, groups, sets, pairs = negated
    (hook, X), every = next(iter(activations.items())), names.expand(names.KINDS, [0.1], list(names.SUFFIXES))
    cfg = CFG | {"probes": every, "splits": 1}
    found = evaluate(activations, labels, groups, sets, cfg, seed=0, pairs=pairs)
    means = np.stack([X[sets == name].mean(axis=0) for name in sets])
    test = sides(groups, 0.3, evaluation.seed_for(0, "split", 0))[1] & (sets == "two")
    rows = found.scores.query("train_set == 'all' and test_set == 'two' and metric == 'auroc'").set_index("probe")
    assert list(rows.index) == every
    for name in every:
        probe = found.directions[f"{hook}/all/{name}/0"]
        assert probe.name == name
        scored = X - means if name.endswith("per_dataset") else X
        assert rows.loc[name, "value"] == pytest.approx(roc_auc_score(labels[test], probe.scores(scored[test])))
        if name.endswith("uncentred") and not name.startswith("ttpd"):
            assert probe.bias == 0


def test_centring_is_what_an_offset_between_sets_costs(negated):
    """Trained on one set, a probe without a free bias is lost on another one elsewhere, unless that is centred too."""
    study = negated[:-1]
    probes = names.expand(["mass_mean"], centrings=["none", "train_mean", "per_dataset"])
    scores = evaluate(*study, CFG | {"probes": probes}, seed=0).scores
    where = {"metric": "accuracy", "train_set": "one", "test_set": "two"}
    found = {name: mean(scores, probe=name, **where) for name in probes}
    assert found["mass_mean_per_dataset"] > 0.95
    assert found["mass_mean"] < 0.6
    own = where | {"test_set": "one"}
    assert mean(scores, probe="mass_mean", **own) > 0.95
    assert mean(scores, probe="mass_mean_uncentred", **own) < 0.6


def test_facts_of_fits_are_a_table(result):
    facts = result.facts
    assert list(facts.columns) == evaluation.FACT_COLUMNS
    assert set(facts["probe"]) == {"mass_mean_covariance"}
    key = {"hook": "blocks.0.hook_resid_post", "train_set": "all", "seed": 2, "fact": "effective_rank"}
    row = facts[np.logical_and.reduce([facts[column] == value for column, value in key.items()])]
    probe = result.directions["blocks.0.hook_resid_post/all/mass_mean_covariance/2"]
    assert row["value"].tolist() == [probe.facts["effective_rank"]]
    assert row["layer"].tolist() == [1]


def test_directions_are_compared_with_the_tilted_one_also_where_it_is_no_probe(study, result):
    probes = ["logistic_regression", "mass_mean"]
    angles = evaluate(*study, CFG | {"probes": probes}, seed=0).angles
    pairs = {(row.probe_a, row.probe_b) for row in angles.itertuples()}
    assert pairs == {tuple(probes), ("logistic_regression", "sigma_inv_theta"), ("mass_mean", "sigma_inv_theta")}
    own = result.angles.query("probe_a == 'mass_mean' and probe_b == 'mass_mean_covariance' and layer == 1")
    other = angles.query("probe_a == 'mass_mean' and probe_b == 'sigma_inv_theta' and layer == 1")
    assert other["value"].tolist() == pytest.approx(own["value"].tolist(), rel=1e-9)


def test_calibration_golden():
    # P(true) 0.9, 0.9, 0.2 and 0.25 of labels 1, 0, 0 and 0: gaps |1.8 - 1| in one bin, 0.2 and 0.25 in another.
    log_odds = np.log(np.array([[0.9], [0.9], [0.2], [0.25]]) / np.array([[0.1], [0.1], [0.8], [0.75]]))
    labels = np.array([1, 0, 0, 0])
    assert metrics.calibration_error(log_odds, labels)[0] == pytest.approx((0.8 + 0.45) / 4)
    assert metrics.brier(log_odds, labels)[0] == pytest.approx(brier_score_loss(labels, [0.9, 0.9, 0.2, 0.25]))
    assert metrics.calibration_error(np.array([[1e3], [-1e3]]), np.array([1, 0]))[0] == 0


def test_scores_that_are_no_log_odds_are_calibrated_on_training_rows(study):
    """Mass-mean scores grow with the square of the scale, and a hundred times as large they would be certain of all."""
    activations, *labelled = study
    cfg = CFG | {"probes": ["mass_mean"]}
    found = [
        evaluate({hook: factor * X for hook, X in activations.items()}, *labelled, cfg, seed=0).scores
        for factor in (1, 100)
    ]
    np.testing.assert_allclose(found[0]["value"], found[1]["value"], atol=1e-4)
    own = {"layer": 1, "train_set": "first", "test_set": "first"}
    assert mean(found[1], metric="brier", **own) < 0.1
    # At chance on the other set, its certainty is the error.
    other = own | {"test_set": "second"}
    assert mean(found[1], metric="calibration_error", **other) > mean(found[1], metric="calibration_error", **own) + 0.1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.zeros(160, dtype=int)}, "the training part of set 'first' lacks true or false .* split 0"),
        ({"sets": ["all"] * 160}, "a set is named 'all'"),
        ({"groups": ["a"] * 160}, "two entities or more"),
        ({"labels": [0, 1]}, "2 labels, 160 groups and 160 sets"),
        ({"cfg": CFG | {"train_sets": ["third"]}}, "`train_sets` names 'third'; there are first, second, all"),
        ({"cfg": CFG | {"probes": ["svm"]}}, "there is no probe 'svm'; there are logistic_regression, "),
        ({"cfg": CFG | {"probes": ["ccs"]}}, "'ccs' needs statements and their negations in one training set"),
        ({"cfg": CFG | {"probes": ["ttpd"]}}, "'ttpd' needs affirmative and negated statements in one training set"),
        (
            {"cfg": CFG | {"probes": ["ccs"], "splits": 9}, "pairs": np.array([[0, 81]])},
            "'ccs' lacks statements and their negations in the training part of set 'all' in split ",
        ),
        ({"activations": {"h": np.zeros((3, 2))}}, r"h: activations of shape \(3, 2\) do not belong to 160"),
        ({"activations": {"h": np.full((160, 2), np.inf)}}, "h: the activation of row 0 is NaN or infinite"),
    ],
)
def test_evaluate_names_the_mistake(study, change, message):
    keys = ("activations", "labels", "groups", "sets")
    arguments = dict(zip(keys, study, strict=True)) | {"cfg": CFG} | change
    with pytest.raises(StudyError, match=message):
        evaluate(**arguments, seed=0)
