"""Description length: bits worked out by hand, and what entropy says of Gaussians."""

import numpy as np
import pytest
import torch

from actspace.dictionaries import description
from actspace.dictionaries.activity import frequencies
from actspace.dictionaries.base import L1, PCA, Codes, KMeans


def describe(dictionary, x):
    return description.describe(dictionary, x, frequencies(dictionary, x), len(x))


def gaussian(n, d_model, seed=0):
    return torch.randn(n, d_model, generator=torch.Generator().manual_seed(seed))


def test_a_cluster_costs_the_logarithm_of_their_number_and_nothing_for_its_value():
    found = describe(KMeans({"centroids": gaussian(64, 5)}), gaussian(100, 5, seed=1))
    assert found.which.tolist() == [6.0] * 100
    assert found.values.tolist() == [0.0] * 100


def test_a_set_costs_the_binary_entropies_of_its_latents():
    codes = Codes(torch.tensor([[0, 1], [0, 2], [0, 2], [0, 2]]), torch.tensor([[1.0, 1.0]] + [[1.0, 0.0]] * 3))
    bits = description.bits_of_set(codes, torch.tensor([1.0, 0.25, 0.0]).double(), 10**9)
    assert bits.tolist() == pytest.approx([2.0] + [np.log2(4 / 3)] * 3)
    assert float(bits.mean()) == pytest.approx(0.25 * 2 + 0.75 * np.log2(4 / 3))


def test_the_step_raises_the_error_by_one_percent():
    x = gaussian(3000, 12)
    dictionary = PCA({"components": torch.eye(12)[:5], "mean": torch.zeros(12)})
    codes, lengths = dictionary.encode(x), description.decoder_rows(dictionary).norm(dim=1)
    step = description.step_for(dictionary, x, codes, lengths)
    values = (codes.values / step).round() * step
    before, after = ((x - dictionary.decode(Codes(codes.indices, v))).square().sum() for v in (codes.values, values))
    assert float(after / before) == pytest.approx(1.01, rel=1e-4)
    # Five values, each off by step^2 / 12, against seven unit variances.
    assert step == pytest.approx(np.sqrt(12 * 0.01 * 7 / 5), rel=0.05)


def test_gaussian_values_cost_their_differential_entropy_less_the_step():
    x = gaussian(20_000, 6) * torch.tensor([8.0, 4.0, 1.0, 1.0, 1.0, 1.0])
    dictionary = PCA({"components": torch.eye(6)[:2], "mean": torch.zeros(6)})
    found = describe(dictionary, x)
    expected = sum(0.5 * np.log2(2 * np.pi * np.e * s**2) - np.log2(found.step) for s in (8, 4))
    assert float(found.values.mean()) == pytest.approx(expected, abs=0.05)
    assert found.which.abs().max() == 0


def test_the_length_of_decoder_rows_does_not_count():
    x, eye = gaussian(500, 6).abs(), torch.eye(6)
    found = []
    for factor in (torch.ones(4), torch.tensor([1.0, 10, 0.1, 7])):
        tensors = {"W_enc": eye[:, :4] / factor, "b_enc": torch.zeros(4), "W_dec": eye[:4] * factor[:, None]}
        found.append(describe(L1(tensors | {"b_dec": torch.zeros(6)}), x))
    assert found[0].step == pytest.approx(found[1].step, rel=1e-3)
    assert float(found[0].values.mean()) == pytest.approx(float(found[1].values.mean()), abs=0.01)


def test_without_error_no_precision_is_enough():
    x = gaussian(50, 3)
    perfect = PCA({"components": torch.eye(3), "mean": torch.zeros(3)})
    assert describe(perfect, x).values.tolist() == [np.inf] * 50


def test_a_cluster_beside_latents_that_always_fire_costs_the_logarithm_of_the_number_of_clusters():
    codes = Codes(torch.tensor([[0, 1], [0, 4], [0, 2]]), torch.tensor([[3.0, 1.0], [2.0, 1.0], [-1.0, 1.0]]))
    bits = description.bits_of_set(codes, torch.tensor([1.0, 0.3, 0.3, 0.0, 0.4]).double(), 1000)
    assert bits.tolist() == [2.0] * 3
    assert description.coefficients(codes).tolist() == [[True, False]] * 3
