"""Which latents fire: how often, how many at once, and whether the same ones fire for a reconstruction.

Source: methods reference, 1.1 (density) and 1.3; a random direction as in Heimersheim & Mendel (2024)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from actspace.dictionaries.base import SCORES_AT_ONCE, Codes, Dictionary, TopK

DENSITY_EDGES = np.linspace(-7, 0, 29)
"""Bins of log10 of a latent's firing frequency: four to a factor of ten."""


def encoded(
    dictionary: Dictionary, x: Tensor, token_ids: Tensor | None = None, chunk: int | None = None
) -> Iterator[tuple[Tensor, Codes]]:
    """Yield rows (row, d_model) on the dictionary's device with their codes, `chunk` rows at a time.

    `token_ids` (row,) are for a dictionary that needs them. Without a `chunk` there are few enough rows at a time for
    dense (row, latent) scores.
    """
    device = next(dictionary.buffers()).device
    chunk = chunk or max(1, SCORES_AT_ONCE // dictionary.n_latents)
    for start in range(0, len(x), chunk):
        some = slice(start, start + chunk)
        rows = x[some].to(device)
        yield rows, dictionary.encode(rows, None if token_ids is None else token_ids[some])


def unlimited(dictionary: Dictionary, rows: Tensor, codes: Codes) -> Tensor:
    """Return the values of the latents that would be active without a limit on their number; others are zero.

    Of a TopK SAE these are the positive pre-activations (row, latent); of all others the codes' own values (row,
    active).
    """
    if isinstance(dictionary, TopK):
        return dictionary.pre_activations(rows.to(codes.values)).relu()
    return codes.values


def latents_on(dictionary: Dictionary, x: Tensor, token_ids: Tensor | None = None) -> Tensor:
    """Count the latents that each row (row, d_model) switches on, `unlimited`; int64 of shape (row,)."""
    parts = encoded(dictionary, x, token_ids)
    return torch.cat([(unlimited(dictionary, rows, codes) != 0).sum(1) for rows, codes in parts]).cpu()


def frequencies(dictionary: Dictionary, x: Tensor, token_ids: Tensor | None = None) -> Tensor:
    """Return the fraction of the rows (row, d_model) for which each latent fires; float64 of shape (latent,)."""
    counts = torch.zeros(dictionary.n_latents, dtype=torch.float64)
    for _, codes in encoded(dictionary, x, token_ids):
        counts += torch.bincount(codes.indices[codes.values != 0], minlength=dictionary.n_latents).double().cpu()
    return counts / len(x)


def density(frequency: Tensor) -> pd.DataFrame:
    """Count latents by log10 of their firing frequency (latent,).

    Returns
    -------
    DataFrame with the columns log10_frequency_low, log10_frequency_high (ends of the bin; both minus infinity for
    latents that never fire) and latents (how many); empty bins are left out
    """
    alive = frequency[frequency > 0].log10().numpy()
    counts, edges = np.histogram(alive.clip(DENSITY_EDGES[0], 0), DENSITY_EDGES)
    low, high = np.append(-np.inf, edges[:-1]), np.append(-np.inf, edges[1:])
    table = pd.DataFrame(
        {
            "log10_frequency_low": low,
            "log10_frequency_high": high,
            "latents": np.append(len(frequency) - len(alive), counts),
        }
    )
    return table[table["latents"] > 0].reset_index(drop=True)


def random_directions(x: Tensor, n: int, gauge: str, rng: np.random.Generator) -> Tensor:
    """Draw n isotropic vectors with the mean norm of the rows x (row, d_model); float32 of shape (n, d_model).

    In the gauge `centred` they have no component along the vector of ones, as activations there.
    """
    drawn = torch.from_numpy(rng.standard_normal((n, x.shape[1])))
    if gauge == "centred":
        drawn -= drawn.mean(1, keepdim=True)
    return (drawn / drawn.norm(dim=1, keepdim=True) * x.double().norm(dim=1).mean()).float()


def overlap(codes: Codes, again: Codes) -> tuple[Tensor, Tensor]:
    """Compare two codes of the same rows, latent by latent.

    Returns
    -------
    jaccard : float64 Tensor of shape (row,)
        Latents active in both over latents active in either; 1 where none is.
    change : float64 Tensor of shape (row,)
        Sum over latents of the squared difference of the values.
    """
    indices = torch.cat([codes.indices, again.indices], dim=1)
    values = torch.cat([codes.values, again.values], dim=1).double()
    # Sorted by latent, inactive entries last, a latent that is active in both stands next to itself.
    key, order = torch.where(values != 0, indices, torch.iinfo(torch.int64).max).sort(dim=1, stable=True)
    values = values.gather(1, order)
    both = (key[:, 1:] == key[:, :-1]) & (values[:, 1:] != 0)
    common = both.sum(1)
    either = (values != 0).sum(1) - common
    shared = (values[:, 1:] * values[:, :-1] * both).sum(1)
    jaccard = torch.where(either > 0, common.double() / either.clamp(min=1), 1.0)
    return jaccard, (values.square().sum(1) - 2 * shared).clamp(min=0)
