import numpy as np
import pandas as pd
import pytest
import torch

from actspace.dictionaries.base import L1, PCA, KMeans, TopK
from actspace.errors import StudyError
from actspace.perturbations.bases import fit_gaussian
from actspace.perturbations.spike_statistics import bumps, medians, spike_statistics
from actspace.perturbations.spikes import Pairs, draw_rows, fractions, random_pairs, read_out, real_pairs, run

EYE = torch.eye(3, dtype=torch.float64)
BIASES = {"b_enc": torch.full((3,), -0.25, dtype=torch.float64), "b_dec": torch.zeros(3, dtype=torch.float64)}
AXES = {"W_enc": EYE, "W_dec": EYE, **BIASES}
ZERO = torch.zeros(3, dtype=torch.float64)
LABELS = {"experiment": "e", "dictionaries": "d", "hook": "h"}


def pair(start, end, source="real"):
    start, end = (torch.tensor([x], dtype=torch.float64) for x in (start, end))
    return Pairs(source, start, end, np.array([7]))


def table(error, source="real", documents=None, latents=3):
    """Make a table of three steps from the errors (pair, step)."""
    n = len(error)
    rows = {"pair": np.repeat(range(n), 3), "step": np.tile(range(3), n), "error": np.ravel(error)}
    rows["document"] = np.repeat(range(n) if documents is None else documents, 3).astype(str)
    labels = {**LABELS, "fit": "f", "family": "l1", "source": source}
    return pd.DataFrame(rows).assign(
        active_latents=latents, unexplained=0.5, fraction=lambda t: t["step"] / 2, **labels
    )


def statistics(*tables):
    found = spike_statistics(pd.concat(tables, ignore_index=True), seed=0)
    return found[found["statistic"] == "error_bump"].set_index("source")


def test_read_out_of_a_threshold_worked_out_by_hand():
    x = torch.tensor([[1.0, 0.5, 0.1], [-1.0, 0.0, 0.2]], dtype=torch.float64)
    error, active = read_out(L1(AXES), x, total_variance=2.0)
    assert active.tolist() == [2, 0]
    assert error.tolist() == pytest.approx([(2 * 0.25**2 + 0.01) / 2, (1 + 0.04) / 2])


def test_of_topk_the_positive_pre_activations_count_and_not_k():
    x = torch.tensor([[1.0, 0.5, 0.3]], dtype=torch.float64)
    error, active = read_out(TopK(AXES, k=1), x, total_variance=1.0)
    assert active.tolist() == [3]
    assert error.tolist() == pytest.approx([0.25**2 + 0.5**2 + 0.3**2])


def test_k_means_has_one_active_latent():
    _, active = read_out(KMeans({"centroids": torch.randn(5, 3)}), torch.randn(4, 3), total_variance=1.0)
    assert active.tolist() == [1, 1, 1, 1]


def test_the_middle_of_two_features_has_both():
    found = run({"l1": L1(AXES)}, [pair([2.0, 0, 0], [0, 2.0, 0])], 5, ZERO, 1.0, LABELS)
    assert found["active_latents"].to_list() == [1, 2, 2, 2, 1]
    assert found["fraction"].to_list() == [0, 0.25, 0.5, 0.75, 1]
    assert found["error"].to_list() == pytest.approx([0.0625, 0.125, 0.125, 0.125, 0.0625])
    assert found["unexplained"][[0, 2]].to_list() == pytest.approx([0.0625 / 4, 0.125 / 2])


def test_real_pairs_go_round_all_documents_and_never_stay_in_one():
    documents = np.repeat([4, 9, 2, 7], 5)
    pairs = documents[draw_rows(documents, 12, seed=0)]
    assert (pairs[:, 0] != pairs[:, 1]).all()
    assert all(set(pairs[i : i + 4, 0]) == {2, 4, 7, 9} for i in (0, 4, 8))


def test_pairs_depend_on_their_number_alone():
    documents, gaussian = np.arange(6), fit_gaussian(np.zeros(3), np.eye(3))
    assert (draw_rows(documents, 9, seed=1)[:4] == draw_rows(documents, 4, seed=1)).all()
    torch.testing.assert_close(random_pairs(gaussian, 9, 1).end[:4], random_pairs(gaussian, 4, 1).end)


def test_one_document_makes_no_pairs():
    with pytest.raises(StudyError, match="two held-out documents, and there are 1"):
        draw_rows(np.zeros(5), 3, seed=0)


@pytest.mark.parametrize("steps", [1, 10])
def test_a_path_needs_a_middle(steps):
    with pytest.raises(StudyError, match="have no middle; use an odd number"):
        fractions(steps)


def test_a_bump_is_the_middle_minus_the_mean_of_the_ends():
    assert bumps(table([[1.0, 5.0, 2.0], [0.0, 0.0, 4.0]]), "error").to_list() == [3.5, -2]


def test_statistics_compare_real_with_random_pairs():
    found = statistics(table([[0.0, 2.0, 0.0], [0.0, 4.0, 0.0]]), table([[0.0, 1.0, 0.0]] * 2, "covariance_random"))
    assert found["value"].to_dict() == {"real": 3, "covariance_random": 1, "real_minus_covariance_random": 2}
    assert found.loc["real", ["low", "high"]].to_list() == [2, 4]
    assert found.loc["covariance_random", ["low", "high"]].to_list() == [1, 1]


def test_real_pairs_are_resampled_by_document():
    error = [[0.0, float(i % 2), 0.0] for i in range(40)]
    by_pair, by_document = (statistics(table(error, documents=d)).loc["real"] for d in (None, np.arange(40) % 4))
    assert by_pair["value"] == by_document["value"] == 0.5
    assert by_document["high"] - by_document["low"] > 2 * (by_pair["high"] - by_pair["low"])
    assert (by_document["n_pairs"], by_document["n_documents"]) == (40, 4)


def test_medians_and_quartiles_are_those_of_each_step():
    found = medians(table([[0.0, i, 0.0] for i in range(5)]), "error").set_index("fraction").loc[0.5]
    assert found[["lower_quartile", "median", "upper_quartile"]].to_list() == [1, 2, 3]
    assert np.isnan(found["known"])


def test_a_linear_dictionary_sees_no_spikes():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 6)) * [4, 3, 2, 1, 1, 1] * rng.lognormal(0, 0.3, (400, 1)) + 5
    mean, covariance = x.mean(0), np.cov(x.T)
    axes = torch.linalg.eigh(torch.from_numpy(covariance))[1].T[-2:]
    real = real_pairs(torch.from_numpy(x), np.arange(400), 400, seed=0)
    random = random_pairs(fit_gaussian(mean, covariance), 400, seed=0)
    pca = PCA({"components": axes, "mean": torch.from_numpy(mean)})
    found = run({"pca": pca}, [real, random], 3, torch.from_numpy(mean), float(np.trace(covariance)), LABELS)
    difference = spike_statistics(found, seed=0).set_index(["statistic", "source"])
    for statistic in ("unexplained_bump", "error_bump"):
        row = difference.loc[(statistic, "real_minus_covariance_random")]
        assert row["low"] < 0 < row["high"]
