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


def test_effective_rank_counts_directions_of_equal_variance():
    rng = np.random.default_rng(0)
    X = np.zeros((4000, 10))
    X[:, :3] = rng.standard_normal((4000, 3))
    assert linear.mass_mean_covariance(X, np.arange(4000) % 2).facts["effective_rank"] == pytest.approx(3, rel=0.01)


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
