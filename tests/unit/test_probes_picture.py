"""The picture of statements, and the layer that it is made at."""

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA

from actspace.probes import picture, summary
from actspace.probes.linear import LinearProbe

HOOK = "blocks.3.hook_resid_post"


def statements(n=40, d=60, seed=0):
    """Return two sets of n statements that vary along other axes, about other means."""
    rng = np.random.default_rng(seed)
    spread = np.stack([np.geomspace(5, 0.1, d), np.geomspace(0.1, 5, d)]).repeat(n, axis=0)
    X = rng.standard_normal((2 * n, d)) * spread + np.repeat([2, -3], n)[:, None]
    return X, np.arange(2 * n) % 2, np.repeat(["a", "b"], n)


@pytest.mark.parametrize("name", ["a", "b"])
def test_points_are_principal_components_of_their_set_and_their_shares_of_its_variance(name):
    X, labels, sets = statements()
    points, _ = picture.statement_planes(HOOK, 4, X, labels, sets, {})
    peer = PCA(2).fit(X[sets == name])
    expected, own = peer.transform(X[sets == name]), points[points["set"] == name]
    found = own[["x", "y"]].to_numpy()
    signs = np.sign((found * expected).sum(axis=0))
    np.testing.assert_allclose(found, expected * signs, atol=1e-8)
    np.testing.assert_allclose(own[["x_share", "y_share"]].iloc[0], peer.explained_variance_ratio_)
    assert own["label"].tolist() == labels[sets == name].tolist()


def test_a_direction_is_the_mean_of_its_splits_and_shorter_by_what_lies_outside():
    X, labels, sets = statements(n=200)
    inside, _, outside = PCA(3).fit(X[sets == "a"]).components_
    directions = {
        f"{HOOK}/a/mass_mean/0": LinearProbe(5 * inside, 0.0, "mass_mean"),
        f"{HOOK}/a/mass_mean/1": LinearProbe(0.1 * (inside + outside), 0.0, "mass_mean"),
        f"{HOOK}/all/mass_mean/0": LinearProbe(outside, 0.0, "mass_mean"),
        f"{HOOK}/all/ttpd/0": LinearProbe(inside, 0.0, "ttpd"),
        "blocks.0.hook_resid_post/a/ccs/0": LinearProbe(inside, 0.0, "ccs"),
        f"{HOOK}/a/random_direction/0": LinearProbe(inside, 0.0, "random_direction"),
        f"{HOOK}/a/logistic_regression/0": LinearProbe(0 * inside, 0.0, "logistic_regression"),
    }
    arrows = picture.statement_planes(HOOK, 4, X, labels, sets, directions)[1]
    own = arrows[arrows["set"] == "a"].set_index("name")
    assert own["train_set"].to_dict() == {"mass_mean": "a", "ttpd": "all"}
    assert abs(own.loc["mass_mean", "x"]) == pytest.approx((1 + np.sqrt(0.5)) / 2)
    assert own.loc["mass_mean", "y"] == pytest.approx(0, abs=1e-9)
    assert abs(own.loc["ttpd", "x"]) == pytest.approx(1)
    assert set(arrows.loc[arrows["set"] == "b", "train_set"]) == {"all"}


def test_the_picture_does_not_depend_on_the_order_of_statements():
    X, labels, sets = statements()
    points, _ = picture.statement_planes(HOOK, 4, X, labels, sets, {})
    order = np.r_[39:-1:-1, 79:39:-1]
    turned, _ = picture.statement_planes(HOOK, 4, X[order], labels[order], sets[order], {})
    np.testing.assert_allclose(turned[["x", "y"]].to_numpy()[order], points[["x", "y"]].to_numpy(), atol=1e-8)


def test_statements_that_do_not_differ_are_one_point():
    points, _ = picture.statement_planes(HOOK, 0, np.full((6, 4), 0.7), np.arange(6) % 2, np.array(["a"] * 6), {})
    assert not points[["x", "y", "x_share", "y_share"]].to_numpy().any()


def test_the_best_hook_is_by_probes_on_their_own_sets_after_the_embedding():
    rows = [
        ("pre", 0, "mass_mean", "a", "a", "accuracy", 0.99),
        ("one", 1, "mass_mean", "a", "a", "accuracy", 0.8),
        ("one", 1, "mass_mean", "a", "b", "accuracy", 0.1),
        ("two", 2, "mass_mean", "a", "a", "accuracy", 0.7),
        ("two", 2, "mass_mean", "a", "b", "accuracy", 0.95),
        ("two", 2, "mass_mean", "a", "a", "auroc", 0.99),
        ("two", 2, "shuffled_labels", "a", "a", "accuracy", 0.99),
    ]
    table = pd.DataFrame(rows, columns=[*summary.KEYS, "value"])
    assert summary.best_hook(table) == "one"
    assert summary.best_hook(table[table["hook"] == "pre"]) == "pre"
    assert summary.best_hook(table[table["probe"] == "shuffled_labels"]) == "two"
