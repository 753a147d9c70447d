"""PCA against the spectrum of the covariance."""

import numpy as np
import pytest
import torch

from actspace.dictionaries import metrics, pca
from actspace.errors import StudyError


def moments(d_model=6, n_rows=500):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n_rows, d_model)) @ rng.standard_normal((d_model, d_model)) + 3
    return x, x.mean(0), np.cov(x.T, bias=True)


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_unexplained_variance_is_the_tail_of_the_spectrum(rank):
    x, mean, covariance = moments()
    x = torch.from_numpy(x)
    spectrum = np.linalg.eigvalsh(covariance)[::-1]
    found = metrics.fvu(x, pca.fit(mean, covariance, rank)(x))
    assert found["fvu_pooled"] == pytest.approx(spectrum[rank:].sum() / spectrum.sum(), rel=1e-5)


def test_all_components_reconstruct_exactly():
    x, mean, covariance = moments()
    x = torch.from_numpy(x).float()
    torch.testing.assert_close(pca.fit(mean, covariance, 6)(x), x, rtol=1e-4, atol=1e-4)


def test_codes_are_projections_and_signs_are_fixed():
    x, mean, covariance = moments()
    dictionary = pca.fit(mean, covariance, 6)
    components = dictionary.components.double().numpy()
    values = dictionary.encode(torch.from_numpy(x)).values
    np.testing.assert_allclose(values, (x - mean) @ components.T, rtol=1e-3, atol=1e-4)
    assert (components[range(6), np.abs(components).argmax(1)] > 0).all()


@pytest.mark.parametrize("rank", [0, 7])
def test_an_impossible_rank_is_refused(rank):
    _, mean, covariance = moments()
    with pytest.raises(StudyError, match=f"rank {rank} is not between 1 and d_model, 6"):
        pca.fit(mean, covariance, rank)
