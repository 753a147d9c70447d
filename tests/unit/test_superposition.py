import numpy as np
import pytest
import torch

from actspace.perturbations import superposition
from actspace.perturbations.spike_statistics import spike_statistics
from actspace.perturbations.superposition import Threshold, known_answer, make, truth

CFG = {"features": [24, 96], "d_model": 32, "active": 3, "values": "uniform", "threshold": 0.2, "k": 4}
CFG |= {"pairs": 30, "steps": 9}
TABLE = superposition.run(CFG, seed=0)


def rows(fit, source="real"):
    return TABLE[(TABLE["fit"] == fit) & (TABLE["source"] == source)]


@pytest.mark.parametrize("fit", ["threshold-n24", "topk-n24-k4"])
def test_with_room_for_all_features_the_answer_is_the_closed_form(fit):
    found = rows(fit)
    assert (found["active_latents"] == found["known_latents"]).all()
    assert found["error"].to_numpy() == pytest.approx(found["known_error"].to_numpy(), abs=1e-8)


def test_the_closed_form_of_disjoint_features_worked_out_by_hand():
    threshold = truth(make(6, 6, 0.5, "uniform", seed=0), 0.25, k=2)["threshold-n6"]
    f, g = np.array([1.0, 0.4, 0, 0, 0, 0]), np.array([0, 0, 0.8, 0.2, 0, 0])
    half, quarter = (np.stack([(1 - a) * f + a * g]) for a in (0.5, 0.25))
    error, active = known_answer(np.concatenate([half, quarter]), threshold)
    assert active.tolist() == [2, 2]  # 0.5 and 0.4; 0.75 and 0.3
    assert error.tolist() == pytest.approx([0.2**2 + 0.1**2, 0.2**2 + 0.05**2])


def test_the_closed_form_of_topk_keeps_the_largest():
    topk = truth(make(4, 4, 0.5, "uniform", seed=0), 0.25, k=2)["topk-n4-k2"]
    error, active = known_answer(np.array([[0.1, 0.5, 0.4, 0.0]]), topk)
    assert (error.tolist(), active.tolist()) == ([pytest.approx(0.01)], [3])


def test_in_superposition_interference_adds_error():
    found = rows("threshold-n96")
    assert found["error"].mean() > 1.5 * found["known_error"].mean()


def test_random_pairs_have_no_known_answer():
    assert rows("threshold-n24", "covariance_random")["known_error"].isna().all()


def test_sparse_features_make_space_spiky_against_covariance_random_pairs():
    found = spike_statistics(TABLE, seed=0).set_index(["fit", "statistic", "source"])
    for statistic in ("error_bump", "latents_bump"):
        assert found.loc[("threshold-n24", statistic, "real_minus_covariance_random"), "low"] > 0


@pytest.mark.parametrize("values", ["uniform", "exponential"])
@pytest.mark.parametrize("n_features", [5, 20])
def test_moments_of_the_toy_are_those_of_its_draws(values, n_features):
    toy = make(n_features, 8, 0.3, values, seed=1)
    x = toy.features(np.random.default_rng(0), 200_000) @ toy.directions
    np.testing.assert_allclose(x.mean(0), toy.mean, atol=0.02)
    np.testing.assert_allclose(np.cov(x.T), toy.covariance, atol=0.05)


def test_directions_are_orthonormal_while_there_is_room():
    np.testing.assert_allclose(
        make(8, 8, 0.1, "uniform", 0).directions @ make(8, 8, 0.1, "uniform", 0).directions.T, np.eye(8), atol=1e-12
    )
    np.testing.assert_allclose(np.linalg.norm(make(20, 8, 0.1, "uniform", 0).directions, axis=1), 1)


def test_the_threshold_keeps_what_exceeds_it_at_full_size():
    eye = torch.eye(3, dtype=torch.float64)
    threshold = Threshold({"W_enc": eye, "W_dec": eye, "b_enc": eye[0] * 0, "b_dec": eye[0] * 0}, 0.5)
    x = torch.tensor([[0.6, 0.5, 0.4], [0.0, -1.0, 2.0]], dtype=torch.float64)
    assert threshold(x).tolist() == [[0.6, 0, 0], [0, 0, 2]]


def test_a_pair_depends_on_its_number_alone():
    fewer = superposition.run(CFG | {"pairs": 10, "features": [96]}, seed=0)
    same = TABLE[(TABLE["pair"] < 10) & TABLE["fit"].str.contains("n96")]
    assert fewer["error"].to_numpy() == pytest.approx(same["error"].to_numpy())
