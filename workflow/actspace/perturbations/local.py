"""What the local metric at a base predicts along a path: the null that a plateau is judged against.

To second order, KL(base || base + dx) = dx^T F dx / 2 with the Fisher metric F of the model's output at the base, and the
squared L2 distance at a later hook point is dx^T G dx. So sqrt(2 KL) and L2 would go on as sqrt(dx^T F dx) and
sqrt(dx^T G dx) if the model were as linear along the whole path as it is at its start."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from actspace.perturbations.curves import Sweep

STEP = 0.01
"""Length of the steps that measure the metric, over the norm of the base: 0.6 degrees. In SmolLM2-135M, slopes that steps of 0.002
give differ by less than 1%, those of the first 6 degrees by 2 to 7%, which would move the median excess by 0.04."""
STEP_OVER_EPS = 16
"""Steps are no shorter than this many times the model's precision, or they would measure its rounding: 0.125 in bfloat16,
in
which slopes from steps of 0.03 come out too large by a third, and from steps of 0.01 several times too large."""
PROBED = (1 / 3, 2 / 3, 1.0)
"""Where on the path chords are taken as the directions of these steps, over its end."""


def local_linear(sweep: Sweep) -> tuple[Tensor, Tensor]:
    """Predict sqrt(2 KL) and L2 at every position of the grid from the metric at the base.

    A path's chords lie in a plane. On a straight line all have one direction; on a half circle they turn with half the
    angle theta of the position, so that the squared slope along them, w^T F w, is a + b cos(theta) + c sin(theta):
    three small steps from the base tell all of it, for lines (b = c = 0) as well.

    Returns
    -------
    Two float64 Tensors of shape (prompt, row, step): sqrt(2 KL) in sqrt(nats), and L2
    """
    base = sweep.bases[:, None, None]
    end = sweep.path.end
    chords = sweep.path.points(sweep.bases[:, None], sweep.directions, end * sweep.grid.new_tensor(PROBED)) - base
    precision = torch.finfo(sweep.engine.model.hf.dtype).eps
    stride = max(STEP, STEP_OVER_EPS * precision) * base.norm(dim=-1, keepdim=True)
    vectors = base + stride * chords / chords.norm(dim=-1, keepdim=True)
    out = sweep.engine.measure(sweep.prompts, sweep.reference, vectors.flatten(1, 2))
    shape = chords.shape[:-1]
    slopes = (x.reshape(shape) / stride.squeeze(-1) for x in ((2 * out.kl_base_pert_nats).sqrt(), out.l2_late))
    _, relative = sweep.path.coordinates(sweep.bases[:, None], sweep.directions, sweep.grid)
    distance = relative * base.norm(dim=-1)
    share = sweep.grid / end
    return tuple(distance * _slope(slope, share) for slope in slopes)


def _slope(probed: Tensor, share: Tensor) -> Tensor:
    """Give the slope (..., step) along the chord to each share of the path, from those (..., 3) along three of them."""
    third, two_thirds, end = probed.square().unbind(-1)
    b = third - two_thirds
    a = end + b
    c = (third - a - b / 2) / math.sin(math.pi / 3)
    theta = math.pi * share
    squared = a[..., None] + b[..., None] * theta.cos() + c[..., None] * theta.sin()
    return squared.clamp_min(0).sqrt()
