"""Linear probes against scikit-learn, and what must not change them: rotations, scales, constant data."""

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression

from actspace.errors import StudyError
from actspace.probes import linear
from actspace.probes.linear import Frame, LinearProbe


def labelled(n, d, seed=0, imbalance=0.5):
    """Return skewed rows with an offset, and labels that they predict in part."""
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < imbalance).astype(int)
    X = rng.standard_normal((n, d)) * np.geomspace(0.1, 3, d) @ np.linalg.qr(rng.standard_normal((d, d)))[0]
    return X + 0.3 * y[:, None] * rng.standard_normal(d) + 5, y


def angle(a, b):
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    return 2 * np.arcsin(np.linalg.norm(a - b) / 2)


@pytest.mark.parametrize(("n", "d"), [(300, 20), (40, 60)])
@pytest.mark.parametrize("C", [0.01, 1.0, 30.0])
def test_logistic_regression_finds_the_optimum_of_scikit_learn(n, d, C):
    X, y = labelled(n, d, imbalance=0.4)
    scale = np.sqrt(((X - X.mean(axis=0)) ** 2).mean())
    peer = LogisticRegression(C=C, tol=1e-10, solver="newton-cholesky").fit((X - X.mean(axis=0)) / scale, y)
    probe = linear.logistic_regression(X, y, C=C, tolerance=1e-10)
    assert angle(probe.direction, peer.coef_[0]) < 1e-6
    np.testing.assert_allclose(probe.scores(X), peer.decision_function((X - X.mean(axis=0)) / scale), atol=1e-5)


@pytest.mark.parametrize("centre", [True, False])
def test_logistic_regression_without_bias_finds_the_optimum_of_scikit_learn(centre):
    X, y = labelled(300, 20, imbalance=0.4)
    centred = X - X.mean(axis=0)
    rows = (centred if centre else X) / np.sqrt((centred**2).mean())
    peer = LogisticRegression(tol=1e-10, max_iter=100_000, fit_intercept=False).fit(rows, y)
    probe = linear.logistic_regression(X, y, tolerance=1e-10, bias=False, centre=centre)
    assert angle(probe.direction, peer.coef_[0]) < 1e-6
    np.testing.assert_allclose(probe.scores(X), peer.decision_function(rows), atol=1e-5)


@pytest.mark.parametrize("solver", ["lbfgs", "newton-cholesky"])
@pytest.mark.parametrize("seed", range(3))
def test_directions_agree_with_scikit_learn_to_a_millionth_on_balanced_full_rank_data(seed, solver):
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(2000) % 2)
    X = rng.standard_normal((2000, 64)) @ rng.standard_normal((64, 64)) + y[:, None] * rng.standard_normal(64)
    scale = np.sqrt(((X - X.mean(axis=0)) ** 2).mean())
    # What is left of the gradient moves L-BFGS's weights more than Newton's, as the curvature is small.
    peer = LogisticRegression(C=1.0, tol=1e-10, solver=solver, max_iter=100_000).fit((X - X.mean(axis=0)) / scale, y)
    ours = linear.logistic_regression(X, y, C=1.0, tolerance=1e-10)
    assert angle(ours.direction, peer.coef_[0]) < 1e-6
    tilted = linear.mass_mean_covariance(X, y, shrinkage=0.0).direction
    assert angle(tilted, LinearDiscriminantAnalysis(solver="svd").fit(X, y).coef_[0]) < 1e-6


def test_logistic_regression_does_not_depend_on_scale():
    X, y = labelled(200, 10)
    one, thousand = linear.logistic_regression(X, y), linear.logistic_regression(1000 * X, y)
    np.testing.assert_allclose(one.scores(X), thousand.scores(1000 * X), atol=1e-9)


def test_mass_mean_golden():
    X = np.array([[0.0, 0.0], [2.0, 0.0], [3.0, 4.0], [5.0, 4.0]])
    probe = linear.mass_mean(X, np.array([0, 0, 1, 1]))
    np.testing.assert_allclose(probe.direction, [3, 4])
    assert probe.bias == pytest.approx(-(3 * 2.5 + 4 * 2))


@pytest.mark.parametrize(("n", "d"), [(300, 20), (40, 60)])
def test_mass_mean_covariance_is_shrunk_discriminant_analysis(n, d):
    X, y = labelled(n, d, imbalance=0.3)
    probe = linear.mass_mean_covariance(X, y)
    within = X - np.stack([X[y == 0].mean(axis=0), X[y == 1].mean(axis=0)])[y]
    assert probe.facts["shrinkage"] == pytest.approx(ledoit_wolf(within, assume_centered=True)[1], rel=1e-9)
    peer = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=probe.facts["shrinkage"]).fit(X, y)
    np.testing.assert_allclose(probe.direction, peer.coef_[0], rtol=1e-6, atol=1e-9)
    assert probe.bias == pytest.approx(peer.intercept_[0], rel=1e-6)


def test_mass_mean_covariance_without_shrinkage_is_plain_discriminant_analysis():
    X, y = labelled(300, 20)
    probe = linear.mass_mean_covariance(X, y, shrinkage=0.0)
    assert angle(probe.direction, LinearDiscriminantAnalysis(solver="svd").fit(X, y).coef_[0]) < 1e-6


@pytest.mark.parametrize(("n", "d"), [(300, 20), (40, 60)])
def test_a_pseudo_inverse_leaves_out_small_eigenvalues(n, d):
    X, y = labelled(n, d)
    means = np.stack([X[y == 0].mean(axis=0), X[y == 1].mean(axis=0)])
    within = X - means[y]
    expected = np.linalg.pinv(within.T @ within / n, rcond=0.01, hermitian=True) @ (means[1] - means[0])
    probe = linear.mass_mean_pseudo_inverse(X, y, tolerance=0.01)
    np.testing.assert_allclose(probe.direction, expected, rtol=1e-6, atol=1e-9)
    assert probe.bias == pytest.approx(np.log((y == 1).sum() / (y == 0).sum()) - expected @ means.mean(axis=0))
    values = np.linalg.eigvalsh(within.T @ within)
    assert probe.facts["rank"] == (values > 0.01 * values[-1]).sum()
    assert 1 <= probe.facts["rank"] < min(n, d)
    thousand = linear.mass_mean_pseudo_inverse(1000 * X, y, tolerance=0.01)
    assert angle(thousand.direction, probe.direction) < 1e-6


def test_a_pseudo_inverse_of_all_eigenvalues_is_plain_discriminant_analysis():
    X, y = labelled(300, 20)
    tilted = linear.mass_mean_covariance(X, y, shrinkage=0.0)
    assert angle(linear.mass_mean_pseudo_inverse(X, y, tolerance=1e-9).direction, tilted.direction) < 1e-6


def test_not_centred_a_mass_mean_probe_has_its_threshold_at_the_origin():
    X, y = labelled(100, 8)
    for fit in (linear.mass_mean, linear.mass_mean_covariance):
        centred, raw = fit(X, y), fit(X, y, centre=False)
        np.testing.assert_array_equal(raw.direction, centred.direction)
        assert raw.bias == 0 != centred.bias


def test_random_directions_are_even_over_the_sphere_with_the_threshold_at_the_mean():
    X = labelled(50, 16)[0]
    rng = np.random.default_rng(0)
    drawn = [linear.random_direction(X, rng) for _ in range(4000)]
    directions = np.stack([probe.direction for probe in drawn])
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1)
    np.testing.assert_allclose(directions.T @ directions / 4000, np.eye(16) / 16, atol=0.01)
    assert drawn[0].scores(X).mean() == pytest.approx(0, abs=1e-12)


def test_platt_scaling_golden():
    # Of 30 rows at score 3, 20 are true, and of 30 at -1, 10; the labels of 30 true and 30 false rows become 31/32 and 1/32.
    # Two scores fit both shares exactly: (20 * 31 + 10) / 960 = 21/32 and (10 * 31 + 20) / 960 = 11/32.
    scores, y = np.repeat([3.0, -1.0], 30), np.array([1] * 20 + [0] * 10 + [1] * 10 + [0] * 20)
    slope, offset = linear.platt(scores, y)
    assert 3 * slope + offset == pytest.approx(np.log(21 / 11), abs=1e-4)
    assert -slope + offset == pytest.approx(np.log(11 / 21), abs=1e-4)


def test_platt_scaling_stays_finite_where_scores_tell_all_labels_apart():
    slope, offset = linear.platt(np.array([-2.0, -1.0, 1.0, 2.0]), np.array([0, 0, 1, 1]))
    assert 0 < slope < 10
    assert offset == pytest.approx(0, abs=1e-4)
    assert linear.platt(np.ones(4), np.array([0, 0, 0, 1])) == (0.0, pytest.approx(np.log(1 / 3)))


def test_effective_rank_counts_directions_of_equal_variance():
    rng = np.random.default_rng(0)
    X = np.zeros((4000, 10))
    X[:, :3] = rng.standard_normal((4000, 3))
    assert linear.mass_mean_covariance(X, np.arange(4000) % 2).facts["effective_rank"] == pytest.approx(3, rel=0.01)


@pytest.mark.parametrize(("n", "d"), [(80, 30), (30, 80)])
@pytest.mark.parametrize("centre", [True, False])
def test_a_frame_without_bias_changes_no_probe(n, d, centre):
    X, y = labelled(n, d)
    frame = Frame.of(X, centre=centre)
    solver = {"bias": False, "centre": centre, "d_model": d, "tolerance": 1e-9}
    direct = linear.logistic_regression(X[5:], y[5:], **solver)
    turned = frame.back(linear.logistic_regression(frame.coordinates[5:], y[5:], **solver))
    np.testing.assert_allclose(direct.scores(X), turned.scores(X), atol=1e-5)


@pytest.mark.parametrize(("n", "d"), [(80, 30), (30, 80)])
@pytest.mark.parametrize("fit", [linear.logistic_regression, linear.mass_mean_covariance])
def test_a_frame_changes_no_probe(n, d, fit):
    X, y = labelled(n, d)
    frame = Frame.of(X)
    assert frame.coordinates.shape[1] == min(n, d)
    direct, turned = fit(X[5:], y[5:]), frame.back(fit(frame.coordinates[5:], y[5:], d_model=d))
    assert angle(direct.direction, turned.direction) < 1e-4
    np.testing.assert_allclose(direct.scores(X), turned.scores(X), atol=1e-3)


def test_shuffling_within_classes_removes_covariances_and_keeps_what_each_coordinate_tells():
    rng = np.random.default_rng(0)
    y = np.arange(20_000) % 2
    shared = 3 * rng.standard_normal((20_000, 1))
    X = np.hstack([shared + rng.standard_normal((20_000, 1)) + y[:, None], shared + rng.standard_normal((20_000, 1))])
    apart = linear.logistic_regression(X, y, C=1e4).direction
    assert apart[1] < -0.5 * apart[0]  # the second coordinate tells what of the first is shared
    shuffled = linear.shuffled_logistic_regression(X, y, rng, C=1e4).direction
    assert angle(shuffled, np.array([1.0, 0.0])) < 0.2
    assert shuffled[0] == pytest.approx(1 / 10, rel=0.15)


@pytest.mark.parametrize("scale", [0.1, 1e4])
def test_constant_rows_give_a_probe_without_direction(scale):
    rng = np.random.default_rng(0)
    X, y = np.tile(scale * rng.standard_normal(60), (42, 1)), np.arange(42) % 2
    assert (X.mean(axis=0) != X).any()  # rounding: what must not be taken for a signal
    frame = Frame.of(X)
    probes = [
        linear.logistic_regression(X, y),
        linear.mass_mean(X, y),
        linear.mass_mean_covariance(X, y),
        linear.shuffled_labels(X, y, rng),
        linear.shuffled_logistic_regression(X, y, rng),
        linear.logistic_regression(X, y, bias=False),
        linear.logistic_regression(X, y, bias=False, centre=False),
        linear.mass_mean_pseudo_inverse(X, y, tolerance=1e-4),
        linear.random_direction(X, rng),
        Frame.of(X, centre=False).back(linear.mass_mean(Frame.of(X, centre=False).coordinates, y, centre=False)),
        frame.back(linear.mass_mean_covariance(frame.coordinates, y)),
    ]
    for probe in probes:
        assert not probe.direction.any(), probe.name
        np.testing.assert_array_equal(probe.scores(X), 0.0)


def test_one_label_alone_is_an_error():
    with pytest.raises(StudyError, match=r"must be 0 and 1, both of them; found \[1\]"):
        linear.logistic_regression(np.eye(3), np.ones(3, dtype=int))
    with pytest.raises(StudyError, match="both of them"):
        linear.mass_mean(np.eye(3), np.zeros(3, dtype=int))


def test_no_convergence_is_an_error(monkeypatch):
    monkeypatch.setattr(linear, "MAX_ITERATIONS", 2)
    with pytest.raises(StudyError, match=r"did not converge in 2 iterations; lower C \(now 100\)"):
        linear.logistic_regression(*labelled(100, 10), C=100.0)


def test_save_and_load_return_the_same_probes(tmp_path):
    X, y = labelled(60, 8)
    probes = {
        "blocks.1.hook_resid_pre/all/mass_mean/0": linear.mass_mean(X, y),
        "blocks.1.hook_resid_pre/all/mass_mean_covariance/0": linear.mass_mean_covariance(X, y),
    }
    linear.save(tmp_path / "probes.safetensors", probes, {"study": "s"})
    loaded = linear.load(tmp_path / "probes.safetensors")
    assert list(loaded) == list(probes)
    for key, probe in probes.items():
        np.testing.assert_array_equal(loaded[key].direction, probe.direction)
        assert (loaded[key].bias, loaded[key].name, loaded[key].facts) == (probe.bias, probe.name, probe.facts)


def test_a_damaged_file_of_probes_is_an_error(tmp_path):
    (tmp_path / "p.safetensors").write_bytes(b"nothing")
    with pytest.raises(StudyError, match=r"p\.safetensors: not a file of probes"):
        linear.load(tmp_path / "p.safetensors")


def test_scores_are_signed_distances_in_units_of_the_direction():
    probe = LinearProbe(np.array([1.0, -2.0]), 0.5, "by hand")
    np.testing.assert_allclose(probe.scores(np.array([[1, 1], [2, 0]], dtype=np.float16)), [-0.5, 2.5])
