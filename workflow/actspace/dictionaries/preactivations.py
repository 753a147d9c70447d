"""Pre-activations of SAEs: how they are distributed, and what one must reach for its latent to be active.

A latent may be scaled up and its decoder row down without any change to what the SAE does, so that a pre-activation has
no unit of its own. It is therefore taken times the norm of its decoder row, which is how far the latent would move the
reconstruction, and over the root mean square distance of training activations from their mean: 1 is as far as
activations lie from the mean. So latents, SAEs and hook points share one axis, and zero stays where it is.

Clusterings and PCA have none: the nearest centroid is active however far it lies, and all components are; no latent is
switched on by a score of its own.
Source: ours; random vectors beside real rows as in Heimersheim & Mendel (2024)."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from actspace.activations.moments import Moments
from actspace.dictionaries.base import SAE, SCORES_AT_ONCE

EDGES = torch.arange(-32, 65) / 32
"""Bins of scaled pre-activations, 1/32 wide and exact in float32, from -1 to 2; what lies beyond has a bin on either side."""
COLUMNS = {"vectors": "str", "scaled_low": "float64", "scaled_high": "float64", "pre_activations": "int64"}


class PreActivations(NamedTuple):
    """Pre-activations of some vectors.

    `counts` (bin,) int64 counts those of all latents by `EDGES`, the two open bins at the ends. Of each vector, float64
    of shape (row,): `positive` is the share of latents whose pre-activation is above zero, `least` what a pre-activation
    must reach to stay active (scaled; mean over latents).
    """

    counts: Tensor
    positive: Tensor
    least: Tensor


def unit_of(moments: Moments) -> float:
    """Return the root mean square distance of activations from their mean, in units of activations."""
    return float(moments.covariance.trace().sqrt())


def of_vectors(sae: SAE, x: Tensor, unit: float) -> PreActivations:
    """Measure the pre-activations of vectors (row, d_model), a few at a time; `unit` as `unit_of` gives it."""
    scale = sae.W_dec.norm(dim=1) / unit
    edges = EDGES.to(scale)
    counts, positive, least = torch.zeros(len(EDGES) + 1, dtype=torch.int64), [], []
    for rows in x.split(max(1, SCORES_AT_ONCE // sae.n_latents)):
        p = sae.pre_activations(rows.to(sae.W_dec))
        bins = torch.bucketize(p * scale, edges, right=True)
        counts += torch.bincount(bins.flatten(), minlength=len(counts)).cpu()
        positive.append((p > 0).double().mean(1).cpu())
        least.append((sae.least_active(p) * scale).double().mean(1).expand(len(p)).cpu())
    return PreActivations(counts, torch.cat(positive), torch.cat(least))


def histograms(found: dict[str, PreActivations]) -> pd.DataFrame:
    """Put the counts of several kinds of vectors under each other.

    Returns
    -------
    DataFrame with the columns vectors (their kind), scaled_low, scaled_high (ends of the bin, the outermost infinite;
    the lower one belongs to it) and pre_activations (how many, of all latents and vectors); empty bins are left out
    """
    ends = torch.cat([torch.tensor([-torch.inf]), EDGES, torch.tensor([torch.inf])]).numpy()
    parts = [
        pd.DataFrame({"vectors": kind, "scaled_low": ends[:-1], "scaled_high": ends[1:], "pre_activations": of.counts})
        for kind, of in found.items()
    ]
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=[*COLUMNS])
    return table[table["pre_activations"] > 0].reset_index(drop=True).astype(COLUMNS)
