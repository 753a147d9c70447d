"""Latents as sums of others: hand-computed shares, scikit-learn's pursuit, and all pairs tried out."""

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import nnls
from sklearn.linear_model import orthogonal_mp
from torch.nn.functional import normalize

from actspace.dictionaries import composites, matching

EYE = torch.eye(5)


def unit(*shape, seed=0):
    return normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double(), dim=-1)


def test_a_sum_of_two_atoms_is_explained_by_two_and_a_difference_by_one():
    rows = torch.stack([0.8 * EYE[0] + 0.6 * EYE[1], 0.8 * EYE[0] - 0.6 * EYE[1], EYE[4]])
    expected = [[0.36, 0, 0], [0.36, 0.36, 0.36], [1, 1, 1]]
    assert composites.pursue(rows, EYE[:3]).tolist() == [pytest.approx(row, abs=1e-6) for row in expected]


def test_positive_sums_are_pursued_as_by_scikit_learn():
    atoms = unit(40, 400)
    drawn = torch.randn(30, 40, generator=torch.Generator().manual_seed(2)).argsort(1)
    weights = torch.where(drawn < 5, drawn + 1.0, 0.0).double()
    rows = normalize(weights @ atoms + 0.05 * unit(30, 400, seed=1), dim=1)
    found = composites.pursue(rows, atoms)
    for column, n in enumerate(composites.N_ATOMS):
        coefficients = orthogonal_mp(atoms.numpy().T, rows.numpy().T, n_nonzero_coefs=n)
        assert (coefficients >= 0).all()
        left = np.square(rows.numpy() - (atoms.numpy().T @ coefficients).T).sum(1)
        np.testing.assert_allclose(found[:, column].numpy(), left, rtol=1e-9)


def test_greedy_choices_are_never_better_than_the_best_and_equal_for_one_atom():
    rows, atoms = unit(60, 5), unit(9, 5, seed=1)
    found = composites.pursue(rows, atoms).numpy()
    for column, n in enumerate(composites.N_ATOMS):
        best = [
            min(nnls(atoms[list(some)].numpy().T, row)[1] ** 2 for some in itertools.combinations(range(9), n))
            for row in rows.numpy()
        ]
        assert (found[:, column] >= np.array(best) - 1e-12).all()
        if n == 1:
            np.testing.assert_allclose(found[:, column], best, rtol=1e-9)
    assert (np.diff(found, axis=1) <= 1e-12).all()


def test_the_null_keeps_the_component_along_the_nearest_and_turns_the_rest():
    rows, nearest = unit(50, 30), unit(50, 30, seed=1)
    turned = composites.turned(rows, nearest, np.random.default_rng(0))
    torch.testing.assert_close((turned * nearest).sum(1), (rows * nearest).sum(1))
    torch.testing.assert_close(turned.norm(dim=1), torch.ones(50, dtype=torch.float64))
    across = [some - (some * nearest).sum(1, keepdim=True) * nearest for some in (rows, turned)]
    assert (across[0] * across[1]).sum(1).abs().mean() < 0.2


def test_at_most_so_many_rows_are_taken(monkeypatch):
    monkeypatch.setattr(composites, "MOST_ROWS", 7)
    taken = []
    monkeypatch.setattr(composites, "pursue", lambda rows, atoms: taken.append(len(rows)) or torch.zeros(7, 3))
    composites.composites(unit(20, 6), unit(20, 6), unit(9, 6), np.random.default_rng(0))
    assert taken == [7, 7]


def test_of_no_rows_nothing_is_known():
    found = composites.composites(EYE[:0], EYE[:0], EYE, np.random.default_rng(0))
    assert list(found) == [f"{p}unexplained_{n}" for p in ("", "random_") for n in (1, 2, 4)]
    assert np.isnan(list(found.values())).all()


def test_children_that_are_composites_leave_less_than_the_null():
    """A latent that splits: one half towards another latent of the small dictionary, one towards nothing known."""
    atoms = unit(6, 200).float()
    others = torch.cat([0.8 * atoms[:3] + 0.6 * atoms[3:], unit(4, 200, seed=2).float(), torch.zeros(1, 200)])
    found = matching.split(atoms, normalize(others, dim=1), np.random.default_rng(0))
    assert (found["n_children"], found["n_novel"]) == (3, 4)
    assert found["children_unexplained_1"] == pytest.approx(found["children_random_unexplained_1"], rel=1e-5)
    assert found["children_unexplained_1"] > 0.25
    assert found["children_unexplained_2"] < 1e-10
    assert found["children_random_unexplained_4"] > 0.25
    assert found["novel_unexplained_4"] > 0.9
