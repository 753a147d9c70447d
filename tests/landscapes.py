"""Engines whose answer is known: the crossing is a given function of the direction in which the base is left."""

from __future__ import annotations

from dataclasses import fields
from types import SimpleNamespace

import numpy as np
import torch

from actspace.perturbations.directions import Pool
from actspace.perturbations.engine import Readout
from actspace.perturbations.setting import Activations, Setting
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
        return Readout(*[kl] * len(fields(Readout)))


def peaks(side: torch.Tensor) -> torch.Tensor:
    """Cross at 30 degrees along each axis, later the further from it; a little askew, so that nowhere both sides tie."""
    skew = gaussian(D_MODEL - 1, seed=9)
    return 90 - 60 * side.abs().amax(-1) + 3 * side @ skew / skew.norm()


def landscape(crossing, prompts: int) -> Setting:
    """Start at the first axis of a landscape; the pool's rows lie on the others, on both sides."""
    base = np.eye(D_MODEL)[:1].repeat(prompts, 0)
    rows = 2 * np.r_[np.eye(D_MODEL)[1:], -np.eye(D_MODEL)[1:]]
    token_ids = torch.zeros(prompts, 3, dtype=torch.long)
    pool = Pool(rows, np.arange(len(rows)) + prompts)
    return Setting(Landscape(crossing), Activations(token_ids, np.arange(prompts), base, pool))
