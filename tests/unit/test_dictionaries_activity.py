"""How often latents fire, how many at once, and whether a reconstruction makes the same ones fire."""

import numpy as np
import pytest
import torch

from actspace.dictionaries import activity, metrics
from actspace.dictionaries.base import L1, PCA, Codes, KMeans, TopK


def codes(*rows):
    """Codes of rows written as {latent: value}."""
    width = max(len(row) for row in rows)
    padded = [[*row.items(), *[(0, 0.0)] * (width - len(row))] for row in rows]
    pairs = torch.tensor(padded)
    return Codes(pairs[..., 0].long(), pairs[..., 1])


def identity_sae(kind, d_model=4, bias=0.0, scale=1.0, **settings):
    eye = torch.eye(d_model)
    tensors = {"W_enc": eye, "b_enc": torch.full((d_model,), bias), "W_dec": scale * eye, "b_dec": torch.zeros(d_model)}
    return kind(tensors, **settings)


def value(dictionary, x, metric):
    table = metrics.evaluate(dictionary, x, np.arange(len(x)), np.random.default_rng(0)).metrics
    return table.set_index("metric").loc[metric, "value"]


def test_overlap_counts_latents_active_in_both_and_squares_what_changed():
    one, two = codes({3: 2.0, 1: 1.0}, {0: 1.0}, {}), codes({3: 2.5, 0: -3.0}, {2: 1.0}, {})
    jaccard, change = activity.overlap(one, two)
    assert jaccard.tolist() == [1 / 3, 0.0, 1.0]
    assert change.tolist() == pytest.approx([0.25 + 1 + 9, 2.0, 0.0])


def test_encoding_a_reconstruction_again_finds_suppressed_values_smaller():
    # Values 2 - 0.5 and 1 - 0.5 decode to 1.5 and 0.5, which become 1 and nothing.
    x = torch.tensor([[2.0, 1.0, 0.0, 0.0]]).repeat(3, 1)
    x[2, 3] = 0.1
    dictionary = identity_sae(L1, bias=-0.5)
    assert value(dictionary, x, "reencoding_jaccard") == pytest.approx(0.5)
    assert value(dictionary, x, "reencoding_change") == pytest.approx(np.sqrt(0.5 / 2.5), rel=1e-5)


def test_growth_is_the_factor_by_which_values_were_suppressed():
    x = torch.rand(50, 4, generator=torch.Generator().manual_seed(0)) + 1
    assert value(identity_sae(L1, scale=0.8), x, "least_squares_growth") == pytest.approx(1 / 0.8, rel=1e-6)
    pca = PCA({"components": torch.eye(4)[:2], "mean": x.mean(0)})
    assert value(pca, x, "least_squares_growth") == pytest.approx(1, rel=1e-5)


def test_topk_counts_positive_pre_activations_and_l1_active_latents():
    x = torch.tensor([[1.0, 2.0, -1.0, 3.0], [-1.0, -1.0, -1.0, 1.0]])
    assert activity.latents_on(identity_sae(TopK, k=1), x).tolist() == [3, 1]
    assert activity.latents_on(identity_sae(L1, bias=-1.5), x).tolist() == [2, 0]
    assert activity.latents_on(KMeans({"centroids": torch.eye(4)}), x).tolist() == [1, 1]


def test_density_bins_frequencies_and_keeps_dead_latents_apart():
    x = torch.tensor([[1.0, 1.0, -1.0, 1.0]]).repeat(100, 1)
    x[1:, 0] = -1.0
    frequency = activity.frequencies(identity_sae(L1), x)
    assert frequency.tolist() == [0.01, 1.0, 0.0, 1.0]
    table = activity.density(frequency)
    assert table["latents"].tolist() == [1, 1, 2]
    assert table["log10_frequency_low"].tolist() == pytest.approx([-np.inf, -2.0, -0.25])


def test_random_directions_have_the_mean_norm_and_the_gauge():
    x = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
    for gauge in ("raw", "centred"):
        drawn = activity.random_directions(x, 20, gauge, np.random.default_rng(0))
        torch.testing.assert_close(drawn.norm(dim=1), x.norm(dim=1).mean().expand(20))
        assert (drawn.sum(1).abs().max() < 1e-5) == (gauge == "centred")


def test_means_by_document_resample_documents():
    values, ids = torch.tensor([0.0, 0.0, 3.0, 3.0]), np.array(["a", "a", "b", "b"])
    (row,) = metrics.mean_by_document({"m": values}, ids, np.random.default_rng(0)).to_dict("records")
    assert (row["value"], row["low"], row["high"]) == (1.5, 0.0, 3.0)
    assert (row["n_rows"], row["n_documents"]) == (4, 2)
