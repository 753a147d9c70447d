"""Pre-activations on an axis that all SAEs share: counted by hand."""

import numpy as np
import pytest
import torch

from actspace.dictionaries import preactivations
from actspace.dictionaries.base import L1, JumpReLU, TopK

X = torch.tensor([[4.0, 1.0, -1.0], [0.0, 2.0, -9.0]])


def sae(kind, scale=1.0, **settings):
    """p = x, with decoder rows of length 2, or p `scale` times as large and decoder rows so much shorter."""
    eye = torch.eye(3)
    tensors = {"W_enc": scale * eye, "b_enc": torch.zeros(3), "W_dec": 2 / scale * eye, "b_dec": torch.zeros(3)}
    if kind is JumpReLU:
        tensors["threshold"] = scale * torch.tensor([0.5, 1.0, -3.0])
    return kind(tensors, **settings)


def test_pre_activations_are_counted_in_units_of_the_spread():
    found = preactivations.of_vectors(sae(L1), X, unit=8.0)
    table = preactivations.histograms({"held_out": found})
    # Two eighths of 4, 1, -1, 0, 2 and -9; the lower end belongs to a bin.
    expected = {-np.inf: 1, -0.25: 1, 0.0: 1, 0.25: 1, 0.5: 1, 1.0: 1}
    assert dict(zip(table["scaled_low"], table["pre_activations"], strict=True)) == expected
    assert table["scaled_high"].tolist() == [-1.0, *[low + 1 / 32 for low in [*expected][1:]]]
    assert found.positive.tolist() == pytest.approx([2 / 3, 1 / 3])


def test_what_lies_beyond_the_bins_is_counted_in_open_ones():
    found = preactivations.of_vectors(sae(L1), X, unit=0.01)
    table = preactivations.histograms({"held_out": found})
    assert table["scaled_low"].tolist() == [-np.inf, 0.0, 2.0]
    assert table["scaled_high"].tolist() == [-1.0, 1 / 32, np.inf]
    assert table["pre_activations"].tolist() == [2, 1, 3]


@pytest.mark.parametrize(("kind", "settings"), [(L1, {}), (TopK, {"k": 2}), (JumpReLU, {})])
def test_latents_may_be_scaled_against_their_decoder_rows(kind, settings):
    one, other = (preactivations.of_vectors(sae(kind, scale, **settings), X, 8.0) for scale in (1.0, 16.0))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_what_stays_active_has_reached_the_least():
    def least(kind, **settings):
        return preactivations.of_vectors(sae(kind, **settings), X, 8.0).least.tolist()

    assert least(L1) == [0, 0]
    assert least(TopK, k=1) == [1.0, 0.5]
    assert least(TopK, k=2) == [0.25, 0.0]
    assert least(TopK, k=3) == [0.0, 0.0]  # of a third latent that is negative nothing is active
    assert least(JumpReLU) == pytest.approx([0.125, 0.125])  # (0.5 + 1 + 0) / 3 * 2 / 8


@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_chunks_change_nothing(monkeypatch, at_once):
    whole = preactivations.of_vectors(sae(TopK, k=2), X, 8.0)
    monkeypatch.setattr(preactivations, "SCORES_AT_ONCE", at_once)
    assert all(torch.equal(a, b) for a, b in zip(whole, preactivations.of_vectors(sae(TopK, k=2), X, 8.0), strict=True))


def test_of_no_vectors_there_is_a_table_without_rows():
    table = preactivations.histograms({})
    assert (table.columns.tolist(), len(table)) == ([*preactivations.COLUMNS], 0)
