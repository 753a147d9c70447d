"""The toy of truth: closed forms, and that probes fitted on draws arrive at them."""

import numpy as np
import pytest

from actspace.errors import StudyError
from actspace.probes import toy

SETTINGS = {
    "probes": [*toy.LIMIT, *toy.AT_CHANCE],
    "d_model": 64,
    "points": 50_000,
    "draws": 2,
    "nuisance_scale": 10.0,
    "cosine": 0.7,
    "separation": 2.0,
}


@pytest.fixture(scope="module")
def result():
    return toy.run(SETTINGS, seed=0)


def cell(table, probe, metric):
    return table[(table["probe"] == probe) & (table["metric"] == metric)].iloc[0]


def by_hand():
    """Return theta along x, the nuisance at 45 degrees, s = 1: Sigma = [[1.5, .5], [.5, 1.5]]."""
    return toy.Toy(np.array([2.0, 0.0]), np.sqrt([0.5, 0.5]), 1.0)


def test_closed_forms_golden():
    forms = by_hand().directions()
    np.testing.assert_allclose(by_hand().sigma, [[1.5, 0.5], [0.5, 1.5]])
    np.testing.assert_allclose(forms["sigma_inv_theta"], [1.5, -0.5])
    np.testing.assert_allclose(forms["diag_inv_theta"], [4 / 3, 0])
    # Phi(2 / (2 sqrt(1.5))) and, for the optimum, Phi(sqrt(theta' Sigma^-1 theta) / 2) = Phi(sqrt(3) / 2)
    assert by_hand().accuracy(forms["theta"]) == pytest.approx(0.792892, abs=1e-6)
    assert by_hand().accuracy(forms["sigma_inv_theta"]) == pytest.approx(0.806762, abs=1e-6)


def test_draws_have_the_mean_and_the_covariance_of_the_toy():
    X, y = by_hand().draw(200_000, np.random.default_rng(0))
    assert y.mean() == 0.5
    np.testing.assert_allclose(X[y == 1].mean(axis=0), [1, 0], atol=0.02)
    np.testing.assert_allclose(X[y == 0].mean(axis=0), [-1, 0], atol=0.02)
    np.testing.assert_allclose(np.cov(X[y == 1].T), by_hand().sigma, atol=0.03)


def test_make_has_the_wanted_geometry():
    made = toy.make(16, 3.0, -0.4, 5.0, np.random.default_rng(0))
    assert np.linalg.norm(made.theta) == pytest.approx(5)
    assert np.linalg.norm(made.nuisance) == pytest.approx(1)
    assert made.nuisance @ made.theta / 5 == pytest.approx(-0.4)


@pytest.mark.parametrize(("probe", "limit"), toy.LIMIT.items())
def test_every_probe_arrives_at_its_closed_form(result, probe, limit):
    row = cell(result[0], probe, f"cosine_to_{limit}")
    assert row["expected"] == pytest.approx(1)
    assert row["value"] > 0.99
    accuracy = cell(result[0], probe, "accuracy")
    assert accuracy["value"] == pytest.approx(accuracy["expected"], abs=0.01)


def test_logistic_regression_separates_better_and_is_not_the_truth_direction(result):
    table = result[0]
    assert cell(table, "logistic_regression", "cosine_to_theta")["value"] < 0.8
    assert cell(table, "logistic_regression", "accuracy")["value"] > 0.7
    assert cell(table, "mass_mean", "accuracy")["value"] < 0.6


def test_shuffling_does_not_give_theta_in_a_random_orientation(result):
    row = cell(result[0], "shuffled_logistic_regression", "cosine_to_theta")
    assert row["value"] == pytest.approx(row["expected"], abs=0.02)
    assert row["expected"] < 0.9


@pytest.mark.parametrize("probe", toy.AT_CHANCE)
def test_baselines_are_near_what_is_expected_of_nothing(result, probe):
    accuracy, cosine = (cell(result[0], probe, metric) for metric in ("accuracy", "cosine_to_theta"))
    assert (accuracy["expected"], cosine["expected"]) == (0.5, 0)
    assert accuracy["value"] == pytest.approx(0.5, abs=0.03)
    assert abs(cosine["value"]) < 4 / np.sqrt(2 * 64)


def test_the_random_direction_is_another_one_in_each_draw(result):
    row = cell(result[0], "random_direction", "cosine_to_theta")
    assert row["low"] < row["high"]


@pytest.mark.parametrize("d_model", [2, 5, 200])
def test_probes_arrive_in_any_dimension(d_model):
    settings = SETTINGS | {"d_model": d_model, "points": 20_000, "draws": 1, "nuisance_scale": 3.0}
    table = toy.run(settings, seed=1)[0].set_index(["probe", "metric"])
    for probe, limit in toy.LIMIT.items():
        assert table.loc[(probe, f"cosine_to_{limit}"), "value"] > 0.98, probe
        for metric in (f"cosine_to_{limit}", "accuracy"):
            assert abs(table.loc[(probe, metric), "value"] - table.loc[(probe, metric), "expected"]) < 0.02, probe


def test_steps_of_adamw_have_no_closed_form_beside_them():
    settings = SETTINGS | {"probes": ["logistic_regression_adamw"], "points": 500, "draws": 1, "d_model": 4}
    table, _, directions = toy.run(settings, seed=0)
    assert table["expected"].isna().all()
    assert table["value"].notna().all()
    assert "logistic_regression_adamw" not in set(directions["name"])


def test_tables_and_picture_have_the_columns_of_the_contract(result):
    table, points, directions = result
    assert list(table.columns) == toy.COLUMNS
    assert len(table) == 8 * 4
    assert (table["low"] <= table["value"]).all()
    assert (table["value"] <= table["high"]).all()
    assert list(points.columns) == ["x", "y", "label"]
    centres = points.groupby("label")["x"].mean()
    assert centres[1] - centres[0] == pytest.approx(2, abs=1.0)
    arrows = directions.set_index("name")
    np.testing.assert_allclose(arrows.loc["theta"], [1, 0], atol=1e-12)
    np.testing.assert_allclose(arrows.loc["nuisance"], [0.7, np.sqrt(1 - 0.49)])
    assert (np.hypot(arrows["x"], arrows["y"]) <= 1 + 1e-9).all()


def test_the_same_seed_gives_the_same():
    small = SETTINGS | {"points": 500, "d_model": 5}
    one, again, other = (toy.run(small, seed)[0] for seed in (3, 3, 4))
    assert one.equals(again)
    assert not one.equals(other)


def test_one_dimension_is_an_error():
    with pytest.raises(StudyError, match="`d_model` is 1; two directions need 2"):
        toy.run(SETTINGS | {"d_model": 1}, seed=0)
