import numpy as np
import pytest
import torch

from actspace.errors import StudyError
from actspace.perturbations.bases import base_activations, fit_gaussian
from actspace.perturbations.directions import (
    Pool,
    cosine_minus_deviation,
    directions,
    draw_targets,
)
from actspace.perturbations.paths import PATHS
from perturbation_models import gaussian

RNG = np.random.default_rng(0)
D_MODEL = 6
FREE = ("toward_real", "toward_covariance_random", "isotropic", "real_mixture", "covariance_mixture")
POOL = Pool(RNG.standard_normal((40, D_MODEL)), np.arange(40) // 4)


def moments(rank: int = D_MODEL, n: int = 500):
    data = RNG.standard_normal((n, rank)) @ RNG.standard_normal((rank, D_MODEL)) + 3
    return data.mean(0), np.cov(data.T)


def targets(n_prompts: int = 3, draws: int = 5, first: int = 0, gauge: str = "raw"):
    return draw_targets(POOL, fit_gaussian(*moments()), range(n_prompts), draws, gauge, seed=1, first=first)


def test_samples_have_the_mean_and_covariance():
    mean, covariance = moments()
    sample = fit_gaussian(mean, covariance).sample(np.random.default_rng(1), 200_000)
    np.testing.assert_allclose(sample.mean(0), mean, atol=0.03)
    np.testing.assert_allclose(np.cov(sample.T), covariance, atol=0.15)


def test_a_singular_covariance_keeps_its_rank():
    mean, covariance = moments(rank=4)
    fitted = fit_gaussian(mean, covariance)
    assert fitted.rank == 4
    np.testing.assert_allclose(fitted.factor @ fitted.factor.T, covariance, atol=1e-10)


def test_samples_of_centred_moments_stay_centred():
    data = RNG.standard_normal((300, D_MODEL))
    data -= data.mean(1, keepdims=True)
    fitted = fit_gaussian(data.mean(0), np.cov(data.T))
    assert fitted.rank == D_MODEL - 1
    np.testing.assert_allclose(fitted.sample(np.random.default_rng(0), 50).mean(1), 0, atol=1e-12)


def test_moments_without_variance_or_with_nan_are_refused():
    with pytest.raises(StudyError, match="have no variance"):
        fit_gaussian(np.ones(3), np.zeros((3, 3)))
    with pytest.raises(StudyError, match="not finite"):
        fit_gaussian(np.full(3, np.nan), np.eye(3))


def test_isotropic_bases_have_the_mean_norm_and_in_the_centred_gauge_no_mean():
    real, fitted = RNG.standard_normal((4, D_MODEL)), fit_gaussian(*moments())
    bases = base_activations("isotropic_random", real, fitted, 7.5, "centred", seed=0)
    np.testing.assert_allclose(np.linalg.norm(bases, axis=1), 7.5)
    np.testing.assert_allclose(bases.mean(1), 0, atol=1e-12)


@pytest.mark.parametrize("kind", ["covariance_random", "isotropic_random"])
def test_a_random_base_depends_on_the_prompts_number_alone(kind):
    real, fitted = RNG.standard_normal((5, D_MODEL)), fit_gaussian(*moments())
    together = base_activations(kind, real, fitted, 1.0, "raw", seed=3)
    alone = base_activations(kind, real[2:3], fitted, 1.0, "raw", seed=3, first=2)
    np.testing.assert_array_equal(together[2:3], alone)
    assert not np.allclose(together[0], together[1])


def test_an_unknown_base_or_direction_is_refused():
    with pytest.raises(StudyError, match="bases: 'sampled' is unknown"):
        base_activations("sampled", np.ones((1, D_MODEL)), fit_gaussian(*moments()), 1.0, "raw", seed=0)
    with pytest.raises(StudyError, match="directions: 'toward_mean' is unknown"):
        directions("toward_mean", targets(), gaussian(3, D_MODEL))


def test_real_targets_come_from_two_other_documents():
    drawn = targets(n_prompts=10, draws=300).real.numpy()
    for prompt in range(10):
        rows = (drawn[prompt, :, :, None] == POOL.activations).all(-1).argmax(-1)
        documents = POOL.documents[rows]
        assert prompt not in documents
        assert (documents[:, 0] != documents[:, 1]).all()
        assert set(documents.ravel()) == set(range(10)) - {prompt}


def test_a_pool_without_two_other_documents_is_refused():
    pool = Pool(POOL.activations[:8], POOL.documents[:8])
    with pytest.raises(StudyError, match="targets for document 1 need two other documents"):
        pool.pairs(np.random.default_rng(0), 1, 3)


def test_draws_depend_on_the_prompts_number_alone():
    together = targets(n_prompts=3)
    alone = draw_targets(POOL, fit_gaussian(np.zeros(D_MODEL), np.eye(D_MODEL)), [2], 5, "raw", seed=1, first=2)
    assert torch.equal(together.real[2:], alone.real)
    assert torch.equal(together.isotropic[2:], alone.isotropic)


def test_toward_directions_contain_minus_the_base_and_the_others_do_not():
    drawn, base, shift = targets(), gaussian(3, D_MODEL), gaussian(3, D_MODEL, seed=1)
    for family in FREE:
        moved = directions(family, drawn, base + shift) - directions(family, drawn, base)
        expected = -shift[:, None] if family.startswith("toward") else torch.zeros(3, 1, D_MODEL, dtype=torch.float64)
        torch.testing.assert_close(moved, expected.expand_as(moved))


def test_toward_and_mixture_share_their_first_target():
    drawn, base = targets(), gaussian(3, D_MODEL)
    toward, mixture = directions("toward_real", drawn, base), directions("real_mixture", drawn, base)
    torch.testing.assert_close(toward + base[:, None], mixture + drawn.real[:, :, 1])


def test_isotropic_directions_lose_their_mean_in_the_centred_gauge():
    assert targets(gauge="centred").isotropic.mean(-1).abs().max() < 1e-12
    assert targets(gauge="raw").isotropic.mean(-1).abs().max() > 0.1


def test_straight_cosine_is_one_for_the_direction_to_the_mean():
    base, mean = gaussian(3, D_MODEL), gaussian(D_MODEL, seed=1)
    cosine = cosine_minus_deviation(PATHS["straight"], base, (mean - base)[:, None], mean)
    torch.testing.assert_close(cosine, torch.ones(3, 1, dtype=torch.float64))


def test_sphere_cosine_is_that_of_the_orthogonal_components():
    base, mean, direction = gaussian(3, D_MODEL), gaussian(D_MODEL, seed=1), gaussian(3, 4, D_MODEL, seed=2)
    cosine = cosine_minus_deviation(PATHS["sphere"], base, direction, mean)
    for prompt in range(3):
        x = base[prompt]
        projector = torch.eye(D_MODEL, dtype=torch.float64) - torch.outer(x, x) / (x @ x)
        expected = torch.cosine_similarity(direction[prompt] @ projector, (projector @ (mean - x))[None], dim=-1)
        torch.testing.assert_close(cosine[prompt], expected)
    # orth(t - x) = orth(t): the base itself drops out, its deviation from the mean does not
    shifted = cosine_minus_deviation(PATHS["sphere"], base, direction - base[:, None], mean)
    torch.testing.assert_close(cosine, shifted)


def test_sphere_cosine_is_undefined_where_the_mean_is_zero():
    base, direction = gaussian(3, D_MODEL), gaussian(3, 4, D_MODEL, seed=2)
    assert cosine_minus_deviation(PATHS["sphere"], base, direction, np.zeros(D_MODEL)).isnan().all()
