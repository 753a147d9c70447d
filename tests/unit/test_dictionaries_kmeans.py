"""k-means against scikit-learn."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from sklearn import cluster
from sklearn.metrics import adjusted_rand_score

from actspace.activations import store
from actspace.dictionaries import base, kmeans, metrics
from actspace.errors import StudyError
from actspace.provenance import MadeBy


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
    table = metrics.evaluate(found.dictionary, torch.from_numpy(x), np.arange(len(x)), np.random.default_rng(0)).metrics
    total = np.square(x.astype(float) - x.astype(float).mean(0)).sum()
    assert table.set_index("metric").value["fvu_pooled"] == pytest.approx(found.inertia / total, rel=1e-7)


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


def test_inertia_equals_scikit_learns_from_the_same_start():
    x = blobs(2000, 60, 16)
    start = x[:40]
    expected = cluster.KMeans(40, init=start, n_init=1, tol=1e-4, max_iter=50).fit(x)
    rest = 1e-4 * x.var(0).mean()
    chunks = lambda: iter(torch.from_numpy(x).split(700))  # noqa: E731
    centroids = kmeans.lloyd(chunks, torch.from_numpy(start), rest, 50).centroids
    assert kmeans.inertia(chunks, centroids) == pytest.approx(expected.inertia_, rel=1e-5)
    np.testing.assert_allclose(centroids, expected.cluster_centers_, atol=1e-3)


def test_an_empty_cluster_moves_to_the_farthest_row():
    x = torch.tensor([[0.0], [1], [2], [10]])
    start = torch.tensor([[1.0], [100]])
    found = kmeans.lloyd(lambda: iter([x]), start, 0, 10)
    assert found.centroids.flatten().tolist() == [1, 10]
    assert found.converged


def test_a_constant_dimension_changes_nothing():
    x = blobs()
    with_constant = np.column_stack([x, np.full(len(x), 7, np.float32)])
    found = fit(with_constant).dictionary.centroids
    torch.testing.assert_close(found[:, :-1], fit(x).dictionary.centroids, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[:, -1], torch.full((6,), 7.0))


def stored(path, x):
    n = len(x)
    keys = {
        "sequence_id": np.arange(n),
        "position": np.arange(n, dtype=np.int32) % 16,
        "token_id": np.zeros(n, np.int32),
    }
    made_by = MadeBy("test", "activations", {}, "", {})
    store.write(path, torch.from_numpy(x), {**keys, "document_id": np.arange(n).astype(str)}, "float32", made_by)
    return store.Activations([path])


def test_rows_from_the_store_give_the_fit_of_rows_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "ROWS_PER_GROUP", 300)
    x = blobs(1000, 40)
    activations = stored(tmp_path / "train-000.parquet", x)
    in_order = activations.sample(10**6, np.random.default_rng(3)).x.numpy()  # the start is drawn from these
    monkeypatch.setattr(kmeans, "plus_plus", lambda rows, k, rng: [*range(k)])
    streamed, in_memory = fit(activations, 20), fit(in_order, 20)
    assert streamed.inertia == pytest.approx(in_memory.inertia, rel=1e-6)
    torch.testing.assert_close(streamed.dictionary.centroids, in_memory.dictionary.centroids, rtol=1e-5, atol=1e-5)


def test_data_larger_than_memory_stay_in_the_store(tmp_path, monkeypatch):
    activations = stored(tmp_path / "train-000.parquet", blobs(100))
    np.testing.assert_array_equal(kmeans.data_of(activations), blobs(100))
    monkeypatch.setattr(kmeans, "MEMORY_BYTES", 100 * 8 * 4 - 1)
    assert kmeans.data_of(activations) is activations


def test_a_start_from_the_store_holds_little_and_yet_a_row_for_each_cluster(tmp_path, monkeypatch):
    activations, sampled = stored(tmp_path / "train-000.parquet", blobs(100)), []
    draw = store.Activations.sample
    monkeypatch.setattr(store.Activations, "sample", lambda rows, n, rng: sampled.append(n) or draw(rows, n, rng))
    monkeypatch.setattr(store, "HELD_BYTES", 10 * 8 * 4)  # ten rows
    fit(activations, 5)
    fit(activations, 20)
    assert sampled == [10, 20]


def test_spherical_kmeans_sees_directions_alone():
    rng = np.random.default_rng(0)
    x = np.array([[1, 0], [0, 1], [-1, 0]], np.float32)[rng.integers(3, size=60)] * rng.uniform(1, 9, (60, 1))
    found = fit(x.astype(np.float32), 3, spherical=True)
    assert found.inertia == pytest.approx(0, abs=1e-9)
    torch.testing.assert_close(found.dictionary(torch.tensor([[3.0, 1], [-1, -7]])), torch.tensor([[3.0, 0], [-1, 0]]))


def test_a_prefix_keeps_the_leading_components_exactly():
    x = blobs(600, 5, 6)
    x[:, 0] *= 100
    found = fit(x, 5, pca_prefix=1).dictionary
    rows = torch.from_numpy(x)
    lost = rows - found(rows)
    assert found.n_latents == 6
    assert (lost @ found.components.T).abs().max() < 1e-3
    expected = fit((rows - base.PCA({"components": found.components, "mean": found.mean})(rows)).numpy(), 5)
    assert float(lost.double().square().sum()) == pytest.approx(expected.inertia, rel=1e-4)


def test_a_prefix_that_leaves_nothing_is_refused():
    with pytest.raises(StudyError, match="a prefix of 8 components leaves nothing of 8 dimensions"):
        fit(blobs(), pca_prefix=8)


@pytest.mark.parametrize("prefix", [0, 2])
def test_read_outs_share_the_centroids_and_explain_more_with_a_coefficient(prefix):
    x = blobs(800, 30)
    rows, fitted = torch.from_numpy(x), fit(x, 20, pca_prefix=prefix).dictionary
    found = kmeans.read_out(fitted, "kmeans_nearest", rows.mean(0))
    assert torch.equal(found.centroids, fitted.centroids)
    assert torch.equal(found.encode(rows).indices, fitted.encode(rows).indices)
    assert (rows - found(rows)).square().sum() < (rows - fitted(rows)).square().sum()


def test_ours_refuses_fewer_distinct_rows_than_clusters_too():
    x = torch.from_numpy(np.repeat(blobs(n_rows=3), 10, axis=0))
    with pytest.raises(StudyError, match="6 clusters, but the 30 rows hold fewer distinct"):
        kmeans.lloyd(lambda: iter([x]), x[:6], 0, 10)
