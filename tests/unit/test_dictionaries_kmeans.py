"""k-means against scikit-learn."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from sklearn import cluster
from sklearn.metrics import adjusted_rand_score

from actspace.dictionaries import kmeans, metrics
from actspace.errors import StudyError


def blobs(n_rows=400, n_blobs=6, d_model=8, seed=0):
    rng = np.random.default_rng(seed)
    centres = 5 * rng.standard_normal((n_blobs, d_model))
    return (centres[rng.integers(n_blobs, size=n_rows)] + rng.standard_normal((n_rows, d_model))).astype(np.float32)


def fit(x, n_clusters=6, seed=3, **settings):
    return kmeans.fit(x, n_clusters, seed, tolerance=1e-6, **{"max_iterations": 100, **settings})


def test_fit_equals_scikit_learns():
    x = blobs()
    expected = cluster.KMeans(6, n_init=10, tol=1e-6, max_iter=100, random_state=0).fit(x)
    found = fit(x)
    labels = found.dictionary.encode(torch.from_numpy(x)).indices[:, 0]
    assert adjusted_rand_score(expected.labels_, labels) == 1  # the same clusters, in another order
    assert found.inertia == pytest.approx(expected.inertia_, rel=1e-5)
    assert found.converged


def test_the_start_is_as_good_as_scikit_learns():
    x = blobs(2000, 200, 16)
    ours, theirs = [], []
    for seed in range(8):
        chosen = kmeans.plus_plus(torch.from_numpy(x), 100, np.random.default_rng(seed))
        assert len(set(chosen)) == 100
        ours.append(cdist(x, x[chosen]).min(1) ** 2)
        theirs.append(cdist(x, cluster.kmeans_plusplus(x, 100, random_state=seed)[0]).min(1) ** 2)
    assert np.sum(ours) == pytest.approx(np.sum(theirs), rel=0.05)


def test_pooled_fvu_is_inertia_over_the_total_sum_of_squares():
    x = blobs()
    found = fit(x)
    table = metrics.evaluate(found.dictionary, torch.from_numpy(x), np.arange(len(x)), np.random.default_rng(0))
    total = np.square(x.astype(float) - x.astype(float).mean(0)).sum()
    assert table.set_index("metric").value["fvu_pooled"] == pytest.approx(found.inertia / total, rel=1e-9)


def test_one_cluster_is_the_mean():
    x = blobs()
    np.testing.assert_allclose(fit(x, 1).dictionary.centroids[0], x.mean(0), atol=1e-5)


def test_as_many_clusters_as_rows_leave_nothing():
    assert fit(blobs(n_rows=12), 12).inertia == pytest.approx(0, abs=1e-8)


def test_the_seed_decides_the_fit():
    x = blobs(n_blobs=40)
    first, again, other = fit(x, 20, seed=2**62), fit(x, 20, seed=2**62), fit(x, 20, seed=1)
    assert torch.equal(first.dictionary.centroids, again.dictionary.centroids)
    assert not torch.equal(first.dictionary.centroids, other.dictionary.centroids)


def test_stopping_early_is_reported():
    assert not fit(blobs(n_blobs=40), 20, max_iterations=1).converged


def test_fewer_rows_than_clusters_is_refused():
    with pytest.raises(StudyError, match="6 clusters of 5 rows"):
        fit(blobs(n_rows=5))


def test_fewer_distinct_rows_than_clusters_is_refused():
    with pytest.raises(StudyError, match="fewer distinct"):
        fit(np.repeat(blobs(n_rows=3), 10, axis=0))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_row_that_is_not_finite_is_named(value):
    x = blobs()
    x[17, 2] = value
    with pytest.raises(StudyError, match="k-means data: row 17 holds a NaN or an infinity"):
        fit(x)
