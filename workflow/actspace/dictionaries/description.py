"""Description length: bits per vector to say which latents fire and how strongly, so that all families share an axis.

Which latents fire is coded as if they fired independently, with the frequencies of training rows; one latent out of K
that always fires alone, as in k-means, takes log2 K bits. Their values are rounded to multiples of one step. One step in
units of activation space for all latents, because at a given error of the sum the bits are fewest when all
values err alike (reverse water-filling); a step per latent would spend bits on weak latents. It is the step at which the
unexplained variance has risen by 1% of itself. The rounded values are then coded by their entropy.

Source: minimum description length of SAEs, Ayonrinde et al. (2024); independent latents, common step and groups are
ours."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from actspace.dictionaries.base import Codes, Dictionary
from actspace.dictionaries.metrics import nothing_active

RISE = 0.01  # of the squared error
ROWS = 2048  # with which the step is looked for
HALVINGS = 14  # of a range of 16 octaves: the step is known to a tenth of a percent
GROUPS_PER_OCTAVE = 4


class Description(NamedTuple):
    """Bits of each row, float64 of shape (row,): which latents fire, their values, and the step in activation units."""

    which: Tensor
    values: Tensor
    step: float


def describe(
    dictionary: Dictionary,
    x: Tensor,
    training_frequencies: Tensor,
    training_rows: int,
    token_ids: Tensor | None = None,
) -> Description:
    """Count the bits that a dictionary needs for each row.

    Parameters
    ----------
    x : float Tensor of shape (row, d_model)
        Held-out rows, on any device; a few thousand are enough.
    training_frequencies : float64 Tensor of shape (latent,)
        Fraction of `training_rows` rows for which each latent fires.
    token_ids : int Tensor of shape (row,), or None
        The token of each row of x, for a dictionary that needs them.
    """
    x = x.to(next(dictionary.buffers()))
    codes = dictionary.encode(x, token_ids)
    which = bits_of_set(codes, training_frequencies, training_rows)
    if not coefficients(codes).any():
        return Description(which, torch.zeros_like(which), np.inf)
    lengths = decoder_rows(dictionary).norm(dim=1)
    step = step_for(dictionary, x, codes, lengths)
    return Description(which, bits_of_values(codes, lengths, step), step)


def coefficients(codes: Codes) -> Tensor:
    """Say which entries are active with a value that must be told, (row, active): that of a centroid is always 1."""
    return (codes.values != 0) & (codes.values != 1)


def bits_of_set(codes: Codes, frequencies: Tensor, n_rows: int) -> Tensor:
    """Return -log2 of the probability of each row's set of active latents, if latents fire independently; (row,).

    Where one latent at most fires in every row, beside those that always do, it is told as one of so many (or none), in
    log2 of their number, if that is cheaper.
    Averaged over rows that fire as often as in training this is the sum of binary entropies. Half a row is added to
    either count (Krichevsky and Trofimov), so that what never happened in training costs many bits and not infinitely
    many; a latent that fired in all rows, or in none, counts as certain until it does otherwise.
    """
    smoothed = (frequencies * n_rows + 0.5) / (n_rows + 1)
    fires, silent = -smoothed.log2(), -(1 - smoothed).log2()
    fires = torch.where(frequencies == 1, 0.0, fires)
    silent = torch.where(frequencies == 0, 0.0, silent)
    active, indices = (codes.values != 0).cpu(), codes.indices.cpu()
    bits = silent.sum() + torch.where(active, (fires - silent)[indices], 0.0).sum(1)
    choice = frequencies < 1
    chosen = (active & choice[indices]).sum(1)
    one_of_many = float(choice.sum() + (chosen == 0).any())
    if chosen.max() == 1 and np.log2(one_of_many) < bits.mean():
        return torch.full_like(bits, np.log2(one_of_many))
    return bits


def decoder_rows(dictionary: Dictionary) -> Tensor:
    """Return what the value 1 of each latent adds to the reconstruction; float64 of shape (latent, d_model)."""
    buffer = next(dictionary.buffers())
    latents = torch.arange(dictionary.n_latents, device=buffer.device)[:, None]
    bias = nothing_active(dictionary)
    parts = [
        dictionary.decode(Codes(some, torch.ones_like(some, dtype=buffer.dtype))).double() - bias
        for some in latents.split(ROWS)
    ]
    return torch.cat(parts)


def rounded(codes: Codes, lengths: Tensor, step: float) -> Tensor:
    """Return the values as multiples of the step, counted in activation space; int64 of shape (row, active)."""
    return (codes.values.double() * lengths[codes.indices] / step).round().long()


def step_for(dictionary: Dictionary, x: Tensor, codes: Codes, lengths: Tensor) -> float:
    """Find the step at which rounding raises the summed squared error by `RISE`, by halving on a logarithmic scale.

    Returns 0 where there is no error that could rise.
    """
    every = -(-len(x) // ROWS)
    x, codes = x[::every].double(), Codes(codes.indices[::every], codes.values[::every])
    before = (x - dictionary.decode(codes).double()).square().sum()
    told = coefficients(codes)
    if before == 0 or not told.any():
        return 0.0
    # Evenly spread errors of step^2 / 12 per value: where the search begins.
    guess = float((12 * RISE * before / told.sum()).sqrt())
    low, high = np.log2(guess) - 8, np.log2(guess) + 8
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        values = rounded(codes, lengths, 2**middle) * 2**middle / lengths[codes.indices].clamp(min=1e-300)
        values = torch.where(told, values.to(codes.values), codes.values)
        after = (x - dictionary.decode(Codes(codes.indices, values)).double()).square().sum()
        low, high = (middle, high) if after < (1 + RISE) * before else (low, middle)
    return float(2**low)


def bits_of_values(codes: Codes, lengths: Tensor, step: float) -> Tensor:
    """Return -log2 of the relative frequency of each row's rounded values; float64 of shape (row,).

    Latents of like size (root mean square within a quarter of an octave) share one table of frequencies: a latent
    that fires a few times cannot fill a table of its own, and would seem to cost nothing.
    """
    active = coefficients(codes)
    if step == 0:
        return torch.full((len(active),), torch.inf, dtype=torch.float64)
    latents, values = codes.indices[active], codes.values[active].double()
    sizes = torch.zeros(len(lengths), dtype=torch.float64, device=lengths.device)
    squares = sizes.index_add(0, latents, (values * lengths[latents]).square())
    rms = (squares / torch.bincount(latents, minlength=len(lengths)).clamp(min=1)).sqrt()
    group = (rms.clamp(min=1e-300).log2() * GROUPS_PER_OCTAVE).round().long()[latents]
    # One number for group and value: a sort of numbers is many times as fast as one of pairs.
    _, kind, times = ((group << 40) + rounded(codes, lengths, step)[active]).unique(
        return_inverse=True, return_counts=True
    )
    _, family, members = group.unique(return_inverse=True, return_counts=True)
    bits = torch.zeros(active.shape, dtype=torch.float64, device=active.device)
    bits[active] = (members[family] / times[kind]).double().log2()
    return bits.sum(1).cpu()
