"""Latents matched between fits: cosines and children worked out by hand."""

import pytest
import torch

from actspace.dictionaries import matching
from actspace.dictionaries.base import PCA, KMeans
from actspace.dictionaries.pairs import pairs, relation

EYE = torch.eye(4)


def test_fits_are_paired_that_differ_in_one_respect():
    assert relation("topk-n64-k4-s0", "topk-n64-k4-s1") == "seed"
    assert relation("topk-n64-k4-s0", "topk-n128-k4-s0") == "size"
    assert relation("l1-n64-c0.5-s0", "l1-n64-c1-s0") == "sparsity"
    assert relation("kmeans-k64-s0", "topk-n128-k4-s0") == "family"
    assert relation("kmeans-k64-s0", "kmeans-k16-s0") == "size"
    for other in ("token_identity", "given-gpt2_small-v5", "topk-n128-k8-s0", "kmeans-k8-s0", "kmeans-k64-s1"):
        assert relation("topk-n64-k4-s0", other) is None
    assert relation("pca-r4", "pca-r16") is None
    assert len(pairs(["kmeans-k64-s0", "kmeans-k64-s1", "pca-r2"])) == 2


def test_cosines_and_children_of_a_latent_that_splits():
    half = 0.5**0.5
    others = torch.stack([half * (EYE[0] + EYE[2]), half * (EYE[0] + EYE[3]), EYE[1], EYE[2]])
    found = matching.match(EYE[:2], others, null=EYE[2:])
    assert found["mean_best_cosine"] == pytest.approx((half + 1) / 2)
    assert found["share_above_0_7"] == 1
    assert (found["random_mean_best_cosine"], found["random_share_above_0_7"]) == (0, 0)
    # The first row has two children, the second one; the last of the others belongs to nobody.
    assert (found["mean_children"], found["max_children"], found["share_split"]) == (1.5, 2, 0.5)


def test_centroids_are_compared_around_their_mean_and_components_of_either_sign():
    centroids = torch.tensor([[9.0, 1.0], [9.0, -1.0]])
    kmeans, pca = KMeans({"centroids": centroids}), PCA({"components": -torch.eye(2)[1:], "mean": torch.ones(2)})
    assert matching.directions(kmeans).tolist() == [[0.0, 1.0], [0.0, -1.0]]
    fits = {"kmeans-k2-s0": kmeans, "pca-r1": pca}
    table = matching.match_all(fits, {"capture": "c", "hook": "h", "data": "real"}, seed=0)
    assert table["fit"].tolist() == ["kmeans-k2-s0", "pca-r1"]
    assert table["mean_best_cosine"].tolist() == [1.0, 1.0]
    assert table["relation"].tolist() == ["family"] * 2


def test_the_excess_over_chance_has_the_t_interval_of_the_latents():
    others, null = torch.stack([EYE[0], EYE[2]]), EYE[3:]
    found = matching.match(EYE[:2], others, null)
    # Cosines 1 and 0 against 0 and 0: mean 1/2, standard deviation 1/sqrt(2), t of one degree of freedom.
    ends = [found[f"excess_cosine{end}"] for end in ("", "_low", "_high")]
    assert ends == pytest.approx([0.5, 0.5 - 12.706204736 / 2, 0.5 + 12.706204736 / 2])


def test_sizes_alone_are_split_the_smaller_first():
    grow = {f"kmeans-k{k}-s0": KMeans({"centroids": torch.randn(k, 4) - 5}) for k in (3, 6)}
    table = matching.match_all(grow, {"capture": "c", "hook": "h", "data": "real"}, seed=0).set_index("fit")
    assert table["n_children"].notna().to_dict() == {"kmeans-k3-s0": True, "kmeans-k6-s0": False}


def test_chunks_change_nothing(monkeypatch):
    rows, others = (torch.randn(n, 5, generator=torch.Generator().manual_seed(n)) for n in (40, 30))
    whole = matching.best_matches(rows, others)
    monkeypatch.setattr(matching, "COSINES_AT_ONCE", 90)
    torch.testing.assert_close(matching.best_matches(rows, others), whole)
