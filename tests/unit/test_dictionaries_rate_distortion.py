"""The rate-distortion bound of a Gaussian source: golden values, its limits, and k-means, which must stay above it."""

import numpy as np
import pytest

from actspace.dictionaries import kmeans, rate_distortion
from actspace.dictionaries.rate_distortion import distortion


@pytest.mark.parametrize("bits", [0, 0.5, 3])
def test_one_dimension_loses_a_factor_of_four_per_bit(bits):
    assert distortion([2.5], bits) == pytest.approx(2.5 * 2 ** (-2 * bits))


def test_equal_variances_share_the_bits():
    assert distortion([3.0] * 4, 8) == pytest.approx(4 * 3 * 2**-4)


@pytest.mark.parametrize(
    ("bits", "expected"),
    [
        (0, 17),
        (1, 5),  # 16 / 4 = 4 above the other variance, which stays whole: 4 + 1
        (2, 2),  # here the water reaches the smaller variance: 16 / 16 = 1 of each
        (3, 1),  # then both share: log2 theta = (4 + 0 - 6) / 2 = -1
    ],
)
def test_two_variances_of_16_and_1(bits, expected):
    assert distortion([1.0, 16, 0], bits) == pytest.approx(expected)


def test_the_level_spends_all_bits():
    variances = np.random.default_rng(0).exponential(size=50)
    for bits in (1, 10, 100, 1000):
        low, high = 0.0, variances.max()
        for _ in range(200):  # the slow way: bisect for the level
            theta = (low + high) / 2
            spent = np.maximum(0, np.log2(variances / theta) / 2).sum()
            low, high = (theta, high) if spent > bits else (low, theta)
        assert distortion(variances, bits) == pytest.approx(np.minimum(theta, variances).sum(), rel=1e-9)


def test_the_table_is_a_fraction_that_falls_from_one():
    found = rate_distortion.table(np.diag([4.0, 1, 0]))
    assert found["fvu_bound"].iloc[0] == 1
    assert found["fvu_bound"].is_monotonic_decreasing
    assert found.set_index("bits")["fvu_bound"][1] == pytest.approx(2 / 5)  # theta = 4 / 4 = 1, of 5


@pytest.mark.parametrize("arguments", [([1.0], -1), ([-1.0], 1)])
def test_negative_numbers_are_refused(arguments):
    with pytest.raises(ValueError, match="must not be negative"):
        distortion(*arguments)


@pytest.mark.parametrize("n_clusters", [2, 16, 64])
def test_kmeans_on_gaussian_data_stays_above_the_bound(n_clusters):
    rng, variances = np.random.default_rng(0), np.array([9.0, 4, 1, 0.25])
    train, held_out = (rng.standard_normal((n, 4)).astype(np.float32) * np.sqrt(variances) for n in (20_000, 50_000))
    found = kmeans.fit(train.astype(np.float32), n_clusters, 1, 1e-4, 100).dictionary
    centroids = found.centroids.numpy()
    errors = ((held_out[:, None] - centroids[None]) ** 2).sum(2).min(1)
    standard_error = errors.std() / np.sqrt(len(errors))
    bound = distortion(variances, np.log2(n_clusters))
    assert errors.mean() >= bound - 3 * standard_error
    assert errors.mean() < 1.6 * bound  # and is not far above: the bound says something
