"""Engines whose answer is known: the crossing is a given function of the direction in which the base is left."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch

from actspace.perturbations.experiment import Activations
from perturbation_models import gaussian

D_MODEL, THRESHOLD = 12, 0.5


class Landscape:
    """Cross half a nat at the angle that `crossing` gives for unit directions (..., d_model); the base is the first axis."""

    site, read_hook, gauge, rows_per_launch = "blocks.1.hook_resid_pre", "ln_final.hook_normalized", "raw", 512
    model = SimpleNamespace(device=torch.device("cpu"), d_model=D_MODEL)

    def __init__(self, crossing):
        self.crossing = crossing

    def prepare(self, token_ids):
        return None

    def reference(self, prompts, bases):
        return None

    def measure(self, prompts, reference, vectors):
        unit = vectors / vectors.norm(dim=-1, keepdim=True)
        angle = torch.rad2deg(torch.acos(unit[..., 0].clamp(-1, 1)))
        side = unit[..., 1:] / unit[..., 1:].norm(dim=-1, keepdim=True).clamp_min(1e-12)
        kl = THRESHOLD * (angle / self.crossing(side)) ** 2
        return SimpleNamespace(kl_base_pert_nats=kl, l2_late=angle, cosine_late=angle)


def axis(place: int) -> torch.Tensor:
    """Return a unit vector of the space in which directions lie."""
    return torch.eye(D_MODEL - 1, dtype=torch.float64)[place]


def activations(prompts: int, targets=None) -> Activations:
    """Make bases on the first axis, and a pool whose rows are random or all one target."""
    base = np.eye(D_MODEL)[:1].repeat(prompts, 0)
    pool = gaussian(20, D_MODEL).numpy() if targets is None else np.tile(targets, (20, 1))
    token_ids = torch.zeros(prompts, 3, dtype=torch.long)
    documents = np.arange(20) + prompts
    return Activations(token_ids, np.arange(prompts), base, pool, documents, np.zeros(D_MODEL), np.eye(D_MODEL))
