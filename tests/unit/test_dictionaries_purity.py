"""Which rows activate a latent most, and how often these are one token."""

import pytest
import torch

from actspace.dictionaries import purity
from actspace.dictionaries.base import L1, KMeans, TokenIdentity

X = torch.tensor([[3.0, 0.0], [1.5, 0.0], [2.0, 5.0], [0.0, 4.0], [0.0, 0.0]])


def l1():
    return L1({"W_enc": torch.eye(2), "b_enc": torch.zeros(2), "W_dec": torch.eye(2), "b_dec": torch.zeros(2)})


def test_the_rows_with_the_largest_values_come_first():
    rows, strength = purity.top_rows(l1(), X, 3)
    assert rows.tolist() == [[0, 2, 1], [2, 3, -1]]
    assert strength[0].tolist() == [3.0, 2.0, 1.5]
    assert strength[1].isnan().tolist() == [False, False, True]


def test_of_a_cluster_the_rows_nearest_to_its_centroid_come_first():
    rows, strength = purity.top_rows(KMeans({"centroids": torch.tensor([[2.5, 0.0], [2.0, 6.0]])}), X, 3)
    assert rows.tolist() == [[0, 1, 4], [2, 3, -1]]
    assert strength[0].tolist() == pytest.approx([-0.5, -1.0, -2.5])


def test_the_top_rows_of_a_token_are_its_own_wherever_the_activations_lie():
    means = TokenIdentity(
        {"centroids": torch.tensor([[0.0, 0], [9, 9], [0, 0]]), "token_ids": torch.tensor([-1, 7, 8])}
    )
    tokens = torch.tensor([7, 8, 7, 8, 8])
    rows, strength = purity.top_rows(means, X, 3, tokens)
    # Token 7 has the rows 0 and 2, at the distances sqrt(117) and sqrt(65) from (9, 9).
    assert rows.tolist() == [[-1, -1, -1], [2, 0, -1], [4, 1, 3]]
    assert strength[1, :2].tolist() == pytest.approx([-(65**0.5), -(117**0.5)])
    assert purity.purity(rows, tokens).tolist() == [1.0]


def test_chunks_change_nothing():
    x = torch.randn(5000, 2, generator=torch.Generator().manual_seed(0))
    rows, _ = purity.top_rows(l1(), x, 4)
    assert rows.tolist() == x.T.topk(4, dim=1).indices.tolist()


def test_purity_is_the_share_of_the_most_frequent_token():
    rows = torch.tensor([[0, 1, 2, 3], [4, 3, 2, 1], [0, 1, 2, -1]])
    assert purity.purity(rows, torch.tensor([7, 7, 8, 7, 9])).tolist() == [0.75, 0.5]


def test_directions_are_read_out_around_the_mean():
    directions = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
    found = purity.top_rows_of_directions(directions, X + 100, 1)
    assert found[0].tolist() == [2]
    assert found[1].tolist() in ([3], [4])
