"""The Gaussian surrogate's moments, also of a singular covariance."""

import numpy as np
import pytest

from actspace.dictionaries import nulls
from actspace.errors import StudyError


def centred_covariance(d_model=5):
    """A covariance without variance along the all-ones direction, as in the centred gauge."""
    root = np.random.default_rng(0).standard_normal((d_model, d_model))
    root -= root.mean(0)
    return root @ root.T


def test_surrogate_has_the_mean_and_covariance():
    mean, covariance = np.arange(5.0), centred_covariance()
    x = nulls.gaussian_surrogate(mean, covariance, 200_000, np.random.default_rng(1)).astype(float)
    np.testing.assert_allclose(x.mean(0), mean, atol=0.02)
    np.testing.assert_allclose(np.cov(x.T), covariance, atol=0.02 * np.abs(covariance).max())


def test_surrogate_has_no_variance_where_the_covariance_has_none():
    x = nulls.gaussian_surrogate(np.zeros(5), centred_covariance(), 100, np.random.default_rng(1))
    assert x.dtype == np.float32
    np.testing.assert_allclose(x.sum(1), 0, atol=1e-5)


def test_spectrum_reports_rank_and_condition_number():
    directions = np.linalg.qr(np.random.default_rng(0).standard_normal((4, 4)))[0]
    found = nulls.spectrum(directions @ np.diag([8.0, 2.0, 0.0, -1e-17]) @ directions.T)
    assert found.rank == 2
    assert found.condition_number == pytest.approx(4)
    np.testing.assert_allclose(found.variances, [8, 2])
    np.testing.assert_allclose(np.abs(found.directions @ directions[:, :2]), np.eye(2), atol=1e-9)


def test_fewer_rows_than_dimensions_bound_the_rank():
    x = np.random.default_rng(0).standard_normal((8, 30))
    assert nulls.spectrum(np.cov(x.T)).rank == 7


def test_more_rows_than_one_chunk_are_all_drawn(monkeypatch):
    whole = nulls.gaussian_surrogate(np.zeros(5), centred_covariance(), 20, np.random.default_rng(1))
    monkeypatch.setattr(nulls, "ROWS_AT_ONCE", 7)
    chunked = nulls.gaussian_surrogate(np.zeros(5), centred_covariance(), 20, np.random.default_rng(1))
    np.testing.assert_allclose(chunked, whole, rtol=1e-5, atol=1e-6)


def test_surrogate_is_drawn_by_the_generator():
    first, again, other = (
        nulls.gaussian_surrogate(np.zeros(5), np.eye(5), 3, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    ("covariance", "message"), [(np.zeros((3, 3)), "the covariance is zero"), (np.full((3, 3), np.nan), "not finite")]
)
def test_a_covariance_that_makes_no_gaussian_is_refused(covariance, message):
    with pytest.raises(StudyError, match=message):
        nulls.spectrum(covariance)
