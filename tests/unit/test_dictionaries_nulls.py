"""The Gaussian surrogate's moments, also of a singular covariance."""

import numpy as np
import pytest
import torch

from actspace.activations import store
from actspace.dictionaries import metrics, nulls
from actspace.errors import StudyError
from actspace.provenance import MadeBy


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


def test_shuffled_dimensions_keep_values_and_lose_correlation():
    x = np.random.default_rng(0).standard_normal((5000, 1)) @ np.ones((1, 3)) + np.arange(3)
    found = nulls.shuffled_dimensions(x, np.random.default_rng(1))
    np.testing.assert_array_equal(np.sort(found, axis=0), np.sort(x, axis=0))
    assert np.abs(np.corrcoef(found.T) - np.eye(3)).max() < 0.05


def test_random_points_are_different_rows_and_the_seed_decides_which(tmp_path):
    x, number = torch.arange(40.0).reshape(20, 2), np.arange(20)
    keys = dict.fromkeys(("sequence_id", "position", "token_id"), number) | {"document_id": number.astype(str)}
    store.write(tmp_path / "train-000.parquet", x, keys, "bfloat16", MadeBy("s", "r", {}, "", {}))
    rows = store.Activations([tmp_path / "train-000.parquet"])
    assert torch.equal(nulls.random_points(rows, 20, seed=0).centroids.sort(0).values, x)
    first, again, other = (nulls.random_points(rows, 4, seed).centroids for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    with pytest.raises(StudyError, match="random_points: 21 of 20 rows"):
        nulls.random_points(rows, 21, seed=0)


def test_token_identity_reconstructs_by_token_and_the_mean_where_it_knows_none():
    x = torch.tensor([[1.0, 0], [3, 0], [0, 8]])
    found = nulls.token_identity(x, np.array([5, 5, 9], np.int32))
    anywhere = torch.full((4, 2), 77.0)
    codes = found.encode(anywhere, torch.tensor([9, 5, 4, 100]))
    assert found.decode(codes).tolist() == [
        [0, 8],
        [2, 0],
        [pytest.approx(4 / 3), pytest.approx(8 / 3)],
        [pytest.approx(4 / 3), pytest.approx(8 / 3)],
    ]


def test_token_identity_is_measured_by_the_tokens_of_the_rows():
    rng = np.random.default_rng(0)
    tokens = rng.integers(7, size=500).astype(np.int32)
    x = torch.from_numpy(3 * np.eye(7)[tokens] + rng.standard_normal((500, 7))).float()
    found = nulls.token_identity(x, tokens)
    table = metrics.evaluate(
        found, x, np.arange(500), rng, n_boot=2, chunk=64, token_ids=torch.from_numpy(tokens)
    ).metrics.set_index("metric")
    within = sum(float((x[tokens == t] - x[tokens == t].mean(0)).square().sum()) for t in range(7))
    total = float((x - x.mean(0)).square().sum())
    assert table.value["fvu_pooled"] == pytest.approx(within / total, rel=1e-5)
    assert not any(table.index.str.startswith("reencoding"))


def test_token_identity_refuses_activations_without_tokens():
    found = nulls.token_identity(torch.eye(2), np.array([5, 9]))
    with pytest.raises(
        StudyError, match="token_identity dictionary: encodes tokens and not activations; give the tokens"
    ):
        found.encode(torch.eye(2))


def test_random_directions_are_a_topk_dictionary_of_unit_vectors_around_the_mean():
    x = torch.randn(100, 6, generator=torch.Generator().manual_seed(0)) + 4
    found = nulls.random_directions(x, 30, 3, seed=0)
    assert torch.equal(found.W_dec, nulls.random_directions(x, 30, 3, seed=0).W_dec)
    assert not torch.equal(found.W_dec, nulls.random_directions(x, 30, 3, seed=1).W_dec)
    torch.testing.assert_close(found.W_dec.norm(dim=1), torch.ones(30))
    expected = ((x - x.mean(0)) @ found.W_dec.T).topk(3).values.relu()
    torch.testing.assert_close(found.encode(x).values.sort().values, expected.sort().values, rtol=1e-4, atol=1e-5)
