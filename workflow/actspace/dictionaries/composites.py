"""Are the latents of a large dictionary sums of a few latents of a small one?

Each decoder row of the large dictionary is rebuilt as a sum with non-negative weights of one, two or four rows of the small
one, as latents add to a reconstruction: non-negative orthogonal matching pursuit. A child, whose nearest row of the small
dictionary is its parent, is a composite if what it has beside its parent is made of other latents of the small dictionary.
The null keeps each row's component along its nearest, and turns the rest into a random direction: with one row it leaves
the same unexplained, with more just what any direction would.

Source: decoder rows as sparse non-negative sums, the meta-SAEs of Leask et al. (2025), here of the small dictionary's own rows
instead of trained ones; children and novel latents by their nearest row, their SAE stitching; the pursuit, Bruckstein et
al. (2008); the null is ours."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor
from torch.nn.functional import normalize

from actspace.dictionaries.fits import MOST_ROWS, N_ATOMS


def composites(rows: Tensor, nearest: Tensor, atoms: Tensor, rng: np.random.Generator) -> dict[str, float]:
    """Average what sums of a few atoms leave of rows, and of the rows of the null.

    Parameters
    ----------
    rows, nearest : float Tensor of shape (row, d_model)
        Unit rows, and the atom that has the largest cosine with each. Of more than `MOST_ROWS` a sample is taken.
    atoms : float Tensor of shape (atom, d_model)
        Unit rows; a row of zeros is never used.

    Returns
    -------
    `unexplained_1`, `unexplained_2` and `unexplained_4`: the mean share of a row's squared length that the sum leaves; the
    same with `random_` for the null. NaN where there are no rows.
    """
    chosen = torch.from_numpy(rng.permutation(len(rows))[:MOST_ROWS])
    rows, nearest = rows[chosen], nearest[chosen]
    left = {"": rows, "random_": turned(rows, nearest, rng)}
    return {
        f"{prefix}unexplained_{n}": share
        for prefix, some in left.items()
        for n, share in zip(N_ATOMS, pursue(some, atoms).mean(0).tolist(), strict=True)
    }


def turned(rows: Tensor, nearest: Tensor, rng: np.random.Generator) -> Tensor:
    """Turn what unit rows (row, d_model) have beside the unit rows `nearest` into random directions of the same length."""
    along = (rows * nearest).sum(1, keepdim=True)
    drawn = torch.from_numpy(rng.standard_normal(rows.shape)).to(rows)
    across = normalize(drawn - (drawn * nearest).sum(1, keepdim=True) * nearest, dim=1)
    return along * nearest + (1 - along.square()).clamp(min=0).sqrt() * across


def pursue(rows: Tensor, atoms: Tensor) -> Tensor:
    """Return the share of each unit row that non-negative sums of `N_ATOMS` atoms leave; float64 of shape (row, N_ATOMS).

    One atom at a time is added, that with the largest cosine with what is left; then all weights are fitted again.
    """
    rows, atoms = rows.double(), atoms.double()
    left, chosen = rows, torch.empty(len(rows), 0, dtype=torch.int64)
    found = torch.empty(len(rows), max(N_ATOMS), dtype=torch.float64)
    for step in range(max(N_ATOMS)):
        chosen = torch.cat([chosen, (left @ atoms.T).argmax(1, keepdim=True)], 1)
        left = torch.from_numpy(np.array([remainder(row, atoms[some]) for row, some in zip(rows, chosen, strict=True)]))
        left = left.reshape(rows.shape)  # of no rows there is no shape
        found[:, step] = left.square().sum(1)
    return found[:, torch.tensor(N_ATOMS) - 1]


def remainder(row: Tensor, atoms: Tensor) -> np.ndarray:
    """Return what the best non-negative sum of atoms (atom, d_model) leaves of a row (d_model,)."""
    columns = atoms.numpy().T
    weights, _ = nnls(columns, row.numpy())
    return row.numpy() - columns @ weights
