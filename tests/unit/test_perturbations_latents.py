import numpy as np
import pytest
import torch

from actspace.dictionaries.base import PCA, TopK
from actspace.errors import StudyError
from actspace.perturbations import latents as latents_module
from actspace.perturbations.bases import (
    Prompt,
    base_activations,
    composite_ids,
    fit_gaussian,
    matched_ids,
)
from actspace.perturbations.fitted import Fitted
from actspace.perturbations.latents import Code, Latents, survey
from perturbation_fits import BIAS, POOL, axes_latents, axes_sae

GAUSSIAN = fit_gaussian(np.zeros(4), np.eye(4))
X = BIAS + np.array([[2.0, 0, 1, 0]])


def random_topk(n_latents: int = 40, d_model: int = 8, k: int = 5) -> TopK:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((n_latents, d_model))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    tensors = {
        "W_enc": rows.T.copy(),
        "b_enc": np.zeros(n_latents),
        "W_dec": rows,
        "b_dec": rng.standard_normal(d_model),
    }
    return TopK({name: torch.from_numpy(value).float() for name, value in tensors.items()}, k)


REAL = np.random.default_rng(1).standard_normal((300, 8))
RANDOM = survey(random_topk(), REAL, "random.safetensors")


def bases(kind: str, real=X, latents=None, seed: int = 0, first: int = 0):
    return base_activations(kind, real, GAUSSIAN, 1.0, "raw", seed, first, Fitted(latents or axes_latents()))


def with_frequencies(frequency, n_rows: int = 1000) -> Latents:
    """Give a dictionary of axes, one per latent, these frequencies."""
    n = len(frequency)
    eye = torch.eye(n, dtype=torch.float64)
    tensors = {"W_enc": eye, "b_enc": torch.zeros(n), "W_dec": eye, "b_dec": torch.zeros(n)}
    return Latents(TopK(tensors, 1), "given", np.array(frequency), np.ones(n), 1.0, n_rows)


def test_a_survey_counts_how_often_and_how_strongly_each_latent_fires():
    found = axes_latents()
    np.testing.assert_array_equal(found.frequency, [0.5, 0.25, 0.25, 0, 0])
    np.testing.assert_array_equal(found.mean_active_value, [3, 3, 1, 0, 0])
    assert found.mean_code_norm == pytest.approx((5**0.5 + 4 + 3 + 0) / 4)


def test_batches_do_not_change_a_survey(monkeypatch):
    monkeypatch.setattr(latents_module, "ROWS_AT_ONCE", 7)
    again = survey(random_topk(), REAL, "random.safetensors")
    np.testing.assert_allclose(again.frequency, RANDOM.frequency)
    np.testing.assert_allclose(again.mean_active_value, RANDOM.mean_active_value, rtol=1e-6)
    np.testing.assert_allclose(again.reconstruct(REAL), RANDOM.reconstruct(REAL), rtol=1e-5, atol=1e-6)


def test_the_classes_of_a_base_are_disjoint_and_hold_all_latents():
    found = axes_latents()
    (code,) = found.codes(X)
    np.testing.assert_array_equal(code.ids, [0, 2])
    np.testing.assert_array_equal(code.values, [2, 1])
    np.testing.assert_array_equal(found.of_class("inactive", code), [1])
    np.testing.assert_array_equal(found.of_class("dead", code), [3, 4])


def test_a_latent_that_fires_on_the_base_alone_is_active_and_not_dead():
    found = axes_latents()
    (code,) = found.codes(BIAS + np.array([[0.0, 0, 0, 5]]))
    np.testing.assert_array_equal(found.of_class("active", code), [3])
    np.testing.assert_array_equal(found.of_class("dead", code), [4])


def test_only_a_sparse_autoencoder_has_latents():
    pca = PCA({"components": torch.eye(4), "mean": torch.zeros(4)})
    with pytest.raises(StudyError, match=r"pca-r4 is a pca dictionary; name a sparse autoencoder"):
        survey(pca, POOL, "pca-r4")


def test_a_dictionary_that_never_fires_is_refused():
    with pytest.raises(StudyError, match="no latent of axes fires on the pool"):
        survey(axes_sae(), np.repeat(BIAS[None], 3, 0), "axes")


@pytest.mark.parametrize("which", ["active", "inactive", "dead"])
def test_an_empty_class_names_the_prompt_or_the_dictionary(which):
    found = with_frequencies([0.5, 0.5])
    code = Code(*((np.array([0, 1]), np.ones(2)) if which == "inactive" else (np.array([], int), np.array([]))))
    lines = {
        "active": "prompt 3 has no active latents in given; leave this base or direction out",
        "inactive": "prompt 3 has no latents that are alive but inactive in given",
        "dead": "given has no dead latents, all 2 fire on the 1000 activations of the pool",
    }
    with pytest.raises(StudyError, match=lines[which]):
        found.choose(which, code, 1, 1, np.random.default_rng(0), 3)


def test_draws_share_no_latents_before_the_class_is_exhausted():
    code = RANDOM.codes(REAL[:1])[0]
    pairs = RANDOM.choose("active", code, 2, 3, np.random.default_rng(0), 0)
    assert [len(set(pair)) for pair in pairs] == [2, 2, 2]
    assert len(set(np.concatenate(pairs))) == 5  # of five active ones
    (every,) = RANDOM.choose("active", code, 9, 1, np.random.default_rng(0), 0)
    assert sorted(every) == list(code.ids)


def test_added_latents_are_alive_inactive_and_at_their_mean_value():
    np.testing.assert_array_equal(bases("plus_latents"), X + [[0, 3, 0, 0]])


def test_taking_every_active_latent_away_leaves_the_bias():
    np.testing.assert_allclose(bases("minus_latents_x9"), [BIAS], atol=1e-12)


def test_taking_latents_away_removes_just_these():
    removed = REAL[:20] - bases("minus_latents_x2", REAL[:20], RANDOM)
    for row, code in zip(removed, RANDOM.codes(REAL[:20]), strict=True):
        terms = code.values[:, None] * RANDOM.rows(code.ids)
        pairs = [terms[i] + terms[j] for i in range(len(terms)) for j in range(i)]
        assert min(np.abs(row - pair).max() for pair in pairs) < 1e-12


def test_more_latents_are_the_fewer_and_some_besides():
    one, two = (bases(f"minus_latents{suffix}", REAL[:5], RANDOM) for suffix in ("", "_x2"))
    for x, less, code in zip(one, one - two, RANDOM.codes(REAL[:5]), strict=True):
        terms = code.values[:, None] * RANDOM.rows(code.ids)
        assert np.abs(terms - less).max(1).min() < 1e-12
        assert not np.allclose(x, less)


def test_a_reconstruction_is_what_the_dictionary_says():
    expected = RANDOM.dictionary(torch.from_numpy(REAL).float()).double().numpy()
    np.testing.assert_array_equal(bases("reconstruction", REAL, RANDOM), expected)


def test_a_single_latent_has_the_mean_code_norm():
    latents = axes_latents(scale=2.0)  # codes half as large, decoder rows of norm 2
    single = bases("synthetic_single", np.repeat(X, 30, 0), latents) - BIAS
    np.testing.assert_allclose(single.sum(1), 2 * latents.mean_code_norm)
    assert set(single.argmax(1)) == {0, 1, 2}  # the alive ones
    assert (np.count_nonzero(single, axis=1) == 1).all()


@pytest.mark.parametrize("choose", [composite_ids, matched_ids])
def test_a_composite_has_as_many_latents_as_the_base_all_alive_and_different(choose):
    for number, code in enumerate(RANDOM.codes(REAL[:20])):
        ids = choose(RANDOM, Prompt(number, REAL[number], code), np.random.default_rng(number))
        assert len(set(ids)) == len(code.ids) == 5
        assert RANDOM.alive[ids].all()


def test_a_composite_keeps_the_values():
    composite = bases("synthetic_composite", BIAS + [[2.0, 0, 1, 0]]) - BIAS
    assert sorted(composite[composite != 0]) == [1, 2]


def test_matched_latents_have_about_the_same_frequency_and_are_not_the_bases_own():
    frequency = [0.30, 0.29, 0.31, 0.10, 0.099, 0.02]
    code = Code(np.array([0, 3]), np.ones(2))
    chosen = {
        tuple(matched_ids(with_frequencies(frequency), Prompt(0, X, code), np.random.default_rng(i))) for i in range(30)
    }
    assert chosen == {(1, 4), (2, 4)}


def test_without_a_match_the_nearest_in_log_frequency_is_taken():
    code = Code(np.array([0]), np.ones(1))
    # ln(0.2 / 0.1) = 0.69 is less than ln(0.1 / 0.03) = 1.20, though 0.1 is more than 0.07.
    ids = matched_ids(with_frequencies([0.1, 0.2, 0.03]), Prompt(0, X, code), np.random.default_rng(0))
    np.testing.assert_array_equal(ids, [1])


def test_too_few_alive_latents_for_a_composite_are_an_error():
    code = Code(np.array([0, 1, 2]), np.ones(3))
    with pytest.raises(StudyError, match="prompt 7 has 3 active latents in given, and only 1 others"):
        matched_ids(with_frequencies([0.1, 0.2, 0.03, 0.5]), Prompt(7, X, code), np.random.default_rng(0))


@pytest.mark.parametrize("kind", ["minus_latents", "synthetic_composite", "synthetic_sparsity_matched"])
def test_a_real_activation_without_latents_is_named(kind):
    with pytest.raises(StudyError, match=r"prompt 4 has no active latents in axes\.safetensors"):
        bases(kind, BIAS[None], first=4)


@pytest.mark.parametrize(
    "kind",
    ["plus_latents_x3", "minus_latents", "synthetic_single", "synthetic_composite", "synthetic_sparsity_matched"],
)
def test_a_base_depends_on_the_prompts_number_alone(kind):
    together, alone = bases(kind, REAL[:6], RANDOM, seed=3), bases(kind, REAL[2:3], RANDOM, seed=3, first=2)
    np.testing.assert_allclose(together[2:3], alone, rtol=1e-6)
    assert not np.allclose(together, bases(kind, REAL[:6], RANDOM, seed=4))


def test_a_base_without_its_dictionary_is_refused():
    with pytest.raises(StudyError, match="'reconstruction' needs a sparse autoencoder; name one under `dictionary`"):
        base_activations("reconstruction", X, GAUSSIAN, 1.0, "raw", 0)
