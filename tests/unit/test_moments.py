from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from actspace.activations import moments, store
from actspace.errors import StudyError
from actspace.provenance import MadeBy

MADE_BY = MadeBy("small", "activations", {}, "c0de", {})
D_MODEL, LENGTH = 5, 4
ALL = {"first_position": 0, "norm_outliers": None}


def gaussian(rows: int, seed: int = 0) -> torch.Tensor:
    """Draw correlated rows, float64."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.standard_normal((rows, D_MODEL)) @ rng.standard_normal((D_MODEL, D_MODEL)))


def write(path: Path, x: torch.Tensor) -> str:
    number = np.arange(len(x))
    keys: dict[str, Any] = {"sequence_id": number // LENGTH, "position": number % LENGTH, "token_id": number}
    store.write(path, x, keys | {"document_id": number.astype(str)}, "float32", MADE_BY)
    return str(path)


def test_mean_and_covariance_are_numpys():
    x = gaussian(300)
    count, mean, covariance = moments.accumulate([x])
    assert count == 300
    np.testing.assert_allclose(mean, x.numpy().mean(0), rtol=1e-12)
    np.testing.assert_allclose(covariance, np.cov(x.numpy().T, bias=True), rtol=1e-12)


def test_a_mean_far_larger_than_the_spread_cancels_nothing():
    x = gaussian(400) + 1e6 * torch.arange(1, D_MODEL + 1)
    exact = np.cov(x.numpy().T, bias=True)
    naive = (x.T @ x / len(x) - torch.outer(x.mean(0), x.mean(0))).numpy()
    _, mean, covariance = moments.accumulate(x.split(7))
    assert np.abs(naive - exact).max() > 1e-4
    np.testing.assert_allclose(covariance, exact, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(mean, x.numpy().mean(0), rtol=1e-15)


def test_float32_rows_are_summed_in_float64():
    x = gaussian(20_000).float() + 1000
    _, mean, covariance = moments.accumulate(x.split(1000))
    assert mean.dtype == covariance.dtype == torch.float64
    np.testing.assert_allclose(mean, x.double().mean(0), rtol=1e-12)
    np.testing.assert_allclose(covariance, np.cov(x.double().numpy().T, bias=True), rtol=1e-9)


@pytest.mark.parametrize("size", [1, 3, 100])
def test_chunks_change_nothing(size):
    x = gaussian(50)
    count, mean, covariance = moments.accumulate(x.split(size))
    whole = moments.accumulate([x])
    assert count == whole[0]
    torch.testing.assert_close((mean, covariance), whole[1:], rtol=1e-10, atol=1e-12)


def test_an_empty_chunk_changes_nothing():
    x = gaussian(50)
    found = moments.accumulate([x[:0], x[:20], x[20:20], x[20:]])
    torch.testing.assert_close(found, moments.accumulate([x]), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("rows", [0, 1])
def test_fewer_than_two_rows_have_no_moments(rows):
    with pytest.raises(StudyError, match=f"moments need at least 2 rows, found {rows}; raise the number of sequences"):
        moments.accumulate([gaussian(3)[:rows]])


def test_two_points_are_as_far_apart_as_they_are():
    x = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    distance, angle = moments.distances(x, np.random.default_rng(0))
    assert distance == 5
    assert angle == pytest.approx(90)


def test_the_median_is_over_pairs_of_different_rows():
    corners = 2 * torch.eye(3)  # every two of them sqrt(8) apart; a row with itself would be 0 apart
    distance, angle = moments.distances(corners.repeat(1, 1), np.random.default_rng(0))
    assert distance == pytest.approx(math.sqrt(8))
    assert angle == pytest.approx(90)


def test_distances_of_a_line_have_the_median_of_all_pairs():
    x = torch.arange(8.0)[:, None] + 1
    pairs = [abs(a - b) for a in range(8) for b in range(8) if a != b]
    assert moments.distances(x, np.random.default_rng(0))[0] == np.median(pairs)


def test_pairs_are_drawn_by_the_seed(tmp_path):
    path = write(tmp_path / "x.parquet", gaussian(600))
    first, again, other = (moments.of_files([path], ALL, seed).median_distance for seed in (1, 1, 2))
    assert first == again != other


def test_files_are_taken_together(tmp_path):
    x = gaussian(40).float()
    paths = [write(tmp_path / "a.parquet", x[:24]), write(tmp_path / "b.parquet", x[24:])]
    found = moments.of_files(paths, ALL, 0)
    assert (found.count, found.excluded, found.max_norm) == (40, 0, math.inf)
    np.testing.assert_allclose(found.mean, x.double().mean(0), rtol=1e-10)
    np.testing.assert_allclose(found.covariance, np.cov(x.double().numpy().T, bias=True), rtol=1e-10)
    assert found.mean_norm == pytest.approx(float(x.norm(dim=1).mean()), rel=1e-6)


def test_rows_that_are_not_selected_count_nowhere(tmp_path):
    x = gaussian(40).float()
    x[::LENGTH] += 1000  # position 0
    x[5] *= 1000  # an outlier
    path = write(tmp_path / "x.parquet", x)
    later = x[np.arange(40) % LENGTH > 0]
    limit = 5 * float(later.norm(dim=1).median())
    kept = later[later.norm(dim=1) <= limit]
    found = moments.of_files([path], {"first_position": 1, "norm_outliers": 5}, 0)
    assert (found.count, found.excluded) == (len(kept), 30 - len(kept))
    assert found.max_norm == pytest.approx(5 * np.median(later.norm(dim=1)), rel=1e-6)
    np.testing.assert_allclose(found.mean, kept.double().mean(0), rtol=1e-9)
    assert found.mean_norm == pytest.approx(float(kept.norm(dim=1).mean()), rel=1e-6)


def test_a_shard_without_selected_rows_does_no_harm(tmp_path):
    x = gaussian(20).float()
    paths = [write(tmp_path / "early.parquet", x[:2]), write(tmp_path / "whole.parquet", x)]
    found = moments.of_files(paths, {"first_position": 2, "norm_outliers": None}, 0)
    np.testing.assert_allclose(found.mean, x.view(5, LENGTH, -1)[:, 2:].flatten(0, 1).double().mean(0), rtol=1e-10)


def test_a_selection_that_leaves_nothing_is_one_line(tmp_path):
    path = write(tmp_path / "x.parquet", gaussian(8))
    with pytest.raises(StudyError, match=r"x.parquet: no row has the position 9 or a later one; lower `select.first"):
        moments.of_files([path], {"first_position": 9, "norm_outliers": 10}, 0)


def test_moments_come_back_as_they_were(tmp_path):
    found = moments.of_files([write(tmp_path / "x.parquet", gaussian(40))], ALL, 0)
    moments.save(tmp_path / "m.safetensors", found)
    again = moments.load(tmp_path / "m.safetensors")
    assert torch.equal(again.mean, found.mean)
    assert torch.equal(again.covariance, found.covariance)
    scalars = [{k: v for k, v in vars(m).items() if not isinstance(v, torch.Tensor)} for m in (found, again)]
    assert scalars[0] == scalars[1]
    assert scalars[0]["max_norm"] == math.inf


def test_two_equal_saves_give_equal_bytes(tmp_path):
    found = moments.of_files([write(tmp_path / "x.parquet", gaussian(40))], ALL, 0)
    for name in ("one", "two"):
        moments.save(tmp_path / name, found)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_real_rows_have_the_training_rows_limit_and_surrogates_none(tmp_path):
    path = write(tmp_path / "x.parquet", gaussian(40))
    found = moments.of_files([path], {"first_position": 0, "norm_outliers": 2}, 0)
    moments.save(tmp_path / "m.safetensors", found)
    assert moments.limit_for("real", tmp_path / "m.safetensors") == found.max_norm < math.inf
    assert moments.limit_for("gaussian", tmp_path / "m.safetensors") == math.inf


def test_the_description_names_the_dimension_that_varies_most():
    x = torch.zeros(4, 3, dtype=torch.float64)
    x[:, 1], x[:, 2] = torch.tensor([3.0, -3, 3, -3]), torch.tensor([1.0, 1, -1, -1])
    found = moments.describe(moments.Moments(*moments.accumulate([x]), 3.2, 4.5, 60.0, math.inf, 2))
    assert found == {
        "n_rows": 4,
        "n_excluded": 2,
        "mean_norm": 3.2,
        "median_distance": 4.5,
        "median_angle_deg": 60.0,
        "covariance_rank": 2,
        "largest_dimension": 1,
        "largest_dimension_share": 0.9,
    }


def test_the_rank_is_that_of_the_data():
    x = gaussian(40)
    centred = x - x.mean(1, keepdim=True)
    ranks = [moments.Moments(*moments.accumulate([data]), 0, 0, 0, 0, 0).rank for data in (x, centred, x[:3])]
    assert ranks == [D_MODEL, D_MODEL - 1, 2]
