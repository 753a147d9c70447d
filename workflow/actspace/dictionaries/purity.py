"""What latents and clusters respond to: the rows that activate them most, and whether these are all one token.

A dictionary that merely sorts activations by token has pure latents; how pure they are by chance is told by random
directions, read out in the same way.
Source: ours."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from actspace.dictionaries.activity import encoded
from actspace.dictionaries.base import Codes, Dictionary

TOP = 10  # rows per latent
RANDOM_DIRECTIONS = 512


def strengths(dictionary: Dictionary, x: Tensor, codes: Codes) -> Tensor:
    """Return how strongly each active latent responds, of the shape of the codes.

    That is its value; of a centroid, whose value is 1, minus the distance to the reconstruction. Inactive entries have
    minus infinity.
    """
    values = codes.values.double()
    distance = (x.to(codes.values) - dictionary.decode(codes)).double().norm(dim=1, keepdim=True)
    return torch.where(values == 1, -distance, torch.where(values != 0, values, -torch.inf))


def top_rows(dictionary: Dictionary, x: Tensor, n: int = TOP, token_ids: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Find the rows (row, d_model) that activate each latent most.

    `token_ids` (row,) are for a dictionary that needs them.

    Returns
    -------
    rows : int64 Tensor of shape (latent, n)
        Strongest first; -1 where a latent has fewer than n rows.
    strength : float64 Tensor of shape (latent, n)
        As `strengths` gives it; NaN beside -1.
    """
    parts, start = [], 0
    for rows, codes in encoded(dictionary, x, token_ids, chunk=4096):
        strong = strengths(dictionary, rows, codes)
        places = torch.arange(start, start + len(rows))[:, None].expand(codes.indices.shape)
        active = strong > -torch.inf
        parts.append((codes.indices[active].cpu(), strong[active].cpu(), places[active.cpu()]))
        start += len(rows)
    arrays = [torch.cat(part).numpy() for part in zip(*parts, strict=True)]
    order = np.lexsort((arrays[2], -arrays[1], arrays[0]))
    latent, strength, row = (array[order] for array in arrays)
    rank = np.arange(len(latent)) - np.searchsorted(latent, latent)
    chosen = rank < n
    rows_of = torch.full((dictionary.n_latents, n), -1, dtype=torch.int64)
    strength_of = torch.full((dictionary.n_latents, n), torch.nan, dtype=torch.float64)
    place = torch.from_numpy(latent[chosen]), torch.from_numpy(rank[chosen])
    rows_of[place], strength_of[place] = torch.from_numpy(row[chosen]), torch.from_numpy(strength[chosen])
    return rows_of, strength_of


def top_rows_of_directions(directions: Tensor, x: Tensor, n: int = TOP) -> Tensor:
    """Find the rows (row, d_model) with the largest projections on each direction; int64 of shape (direction, n)."""
    scores = (x.float() - x.float().mean(0)) @ directions.float().T
    return scores.topk(min(n, len(x)), dim=0).indices.T


def purity(rows: Tensor, token_ids: Tensor) -> Tensor:
    """Return the share of the most frequent token among the top rows (latent, n) of each latent that has n of them.

    Parameters
    ----------
    token_ids : int Tensor of shape (row,)

    Returns
    -------
    float64 Tensor of shape (latent with n rows,)
    """
    tokens = token_ids[rows[(rows >= 0).all(1)]]
    same = (tokens[:, :, None] == tokens[:, None, :]).sum(2)
    return same.max(dim=1).values.double() / rows.shape[1]
