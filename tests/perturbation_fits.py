"""A sparse autoencoder small enough to work out by hand."""

from __future__ import annotations

import numpy as np
import torch

from actspace.dictionaries.base import L1
from actspace.perturbations.latents import Latents, survey

BIAS = np.array([1.0, 0.0, 0.0, 0.0])
POOL = BIAS + np.array([[2.0, 0, 1, 0], [4, 0, 0, 0], [0, 3, 0, 0], [0, 0, 0, 0]])
"""Codes: latent 0 twice (2, 4), latent 1 once (3), latent 2 once (1); 3 and 4 never."""


def axes_sae(scale: float = 1.0) -> L1:
    """Make five latents in four dimensions: the axes, each times `scale` where it is decoded, and one that never fires."""
    directions = torch.cat([torch.eye(4), -torch.ones(1, 4) / 2]).double()
    b_enc = torch.tensor([0, 0, 0, 0, -1e3], dtype=torch.float64)
    return L1(
        {
            "W_enc": directions.T / scale,
            "b_enc": b_enc,
            "W_dec": directions * scale,
            "b_dec": torch.from_numpy(BIAS),
        }
    )


def axes_latents(scale: float = 1.0) -> Latents:
    """Survey it on the pool."""
    return survey(axes_sae(scale), POOL, "axes.safetensors")
