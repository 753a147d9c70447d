"""Paths through activation space: three straight lines and the great circle; all leave the base at position 0.

Source: Heimersheim (2024), straight and sphere mode. Given float64, their rounding stays below the model's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from actspace.errors import StudyError


def along(base: Tensor, direction: Tensor) -> Tensor:
    """Return the part of a direction that the straight line uses: all of it. Shapes (..., d_model)."""
    return direction.expand(torch.broadcast_shapes(base.shape, direction.shape))


def orthogonal(base: Tensor, direction: Tensor) -> Tensor:
    """Return the part of a direction that the great circle uses: its component orthogonal to the base.

    `base` and `direction` have shapes (..., d_model) that broadcast.
    """
    unit = base / base.norm(dim=-1, keepdim=True)
    return direction - (direction * unit).sum(-1, keepdim=True) * unit


def straight_path(base: Tensor, direction: Tensor, fraction: Tensor) -> Tensor:
    """Walk straight from the base, as far as its own norm: x + alpha ||x|| d / ||d||.

    Parameters
    ----------
    base, direction : float Tensor of shape (..., d_model)
        Leading axes broadcast; the length of `direction` does not count.
    fraction : float Tensor of shape (..., step)
        Distance from the base in units of its norm (alpha), usually 0 to 1.

    Returns
    -------
    Tensor of shape (..., step, d_model), in the dtype of `base`

    Raises
    ------
    StudyError
        If a direction has no length.
    """
    length = direction.norm(dim=-1, keepdim=True)
    _refuse((length == 0) | ~length.isfinite(), "the direction is zero or not finite")
    stride = base.norm(dim=-1, keepdim=True) * direction / length
    return base[..., None, :] + fraction[..., None] * stride[..., None, :]


def absolute_path(base: Tensor, direction: Tensor, length: Tensor) -> Tensor:
    """Walk straight from the base, so far as told: x + l d / ||d||, l in the units of the activations.

    Shapes, dtype and errors as in `straight_path`; `length` (..., step) takes the place of its fraction.
    """
    norm = direction.norm(dim=-1, keepdim=True)
    _refuse((norm == 0) | ~norm.isfinite(), "the direction is zero or not finite")
    return base[..., None, :] + length[..., None] * (direction / norm)[..., None, :]


def interpolating_path(base: Tensor, direction: Tensor, fraction: Tensor) -> Tensor:
    """Walk straight from the base to where the direction ends: x + a d, which at a = 1 is the target that d leads to.

    Shapes, dtype and errors as in `straight_path`; but here the length of `direction` counts.
    """
    norm = direction.norm(dim=-1, keepdim=True)
    _refuse((norm == 0) | ~norm.isfinite(), "the target is the base itself, or not finite")
    return base[..., None, :] + fraction[..., None] * direction[..., None, :]


def sphere_path(base: Tensor, direction: Tensor, angle_deg: Tensor) -> Tensor:
    """Turn the base towards a direction on the great circle, at constant norm.

    With u = x / ||x|| and e the unit vector of the direction's component orthogonal to x, the point at angle theta is
    ||x|| (cos(theta) u + sin(theta) e).

    Parameters
    ----------
    base, direction : float Tensor of shape (..., d_model)
        Leading axes broadcast; only the component of `direction` orthogonal to `base` counts, and not its length.
    angle_deg : float Tensor of shape (..., step)
        Angle from the base in degrees, 0 to 180.

    Returns
    -------
    Tensor of shape (..., step, d_model), in the dtype of `base`

    Raises
    ------
    StudyError
        If a base is zero or a direction parallel to it: there is no circle to follow.
    """
    norm = base.norm(dim=-1, keepdim=True)
    _refuse(norm == 0, "the base is zero")
    unit, side = base / norm, orthogonal(base, direction)
    length = side.norm(dim=-1, keepdim=True)
    # Rounding leaves about eps of a parallel direction; dividing by that would invent a meridian.
    rounding = 8 * torch.finfo(base.dtype).eps * direction.norm(dim=-1, keepdim=True)
    _refuse((length <= rounding) | ~length.isfinite(), "the direction is parallel to the base, zero or not finite")
    theta = torch.deg2rad(angle_deg)[..., None]
    return norm[..., None] * (theta.cos() * unit[..., None, :] + theta.sin() * (side / length)[..., None, :])


def _refuse(bad: Tensor, what: str) -> None:
    """Raise for the first marked row of (..., 1), by its place on the leading axes (prompt, then draw)."""
    if bad.any():
        place = ", ".join(str(i) for i in bad.squeeze(-1).nonzero()[0].tolist())
        raise StudyError(f"perturbation path: row ({place}): {what}; draw another direction or leave this prompt out")


def straight_coordinates(base: Tensor, direction: Tensor, fraction: Tensor) -> tuple[Tensor, Tensor]:
    """Return angle from the base in degrees and distance over the base's norm, (..., step) each, on a straight line."""
    unit = direction / direction.norm(dim=-1, keepdim=True)
    norm = base.norm(dim=-1, keepdim=True)
    cosine = (base * unit).sum(-1, keepdim=True) / norm
    sine = orthogonal(base, unit).norm(dim=-1, keepdim=True)
    angle = torch.rad2deg(torch.atan2(fraction * sine, 1 + fraction * cosine))
    return angle, fraction.expand(angle.shape)


def absolute_coordinates(base: Tensor, direction: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
    """Return angle from the base in degrees and distance over the base's norm, (..., step) each, by lengths walked."""
    return straight_coordinates(base, direction, length / base.norm(dim=-1, keepdim=True))


def interpolating_coordinates(base: Tensor, direction: Tensor, fraction: Tensor) -> tuple[Tensor, Tensor]:
    """Return angle from the base in degrees and distance over the base's norm, (..., step) each, on the way to a target."""
    return absolute_coordinates(base, direction, fraction * direction.norm(dim=-1, keepdim=True))


def sphere_coordinates(base: Tensor, direction: Tensor, angle_deg: Tensor) -> tuple[Tensor, Tensor]:
    """Return angle from the base in degrees and distance over the base's norm, (..., step) each, on a great circle."""
    shape = torch.broadcast_shapes((*direction.shape[:-1], 1), angle_deg.shape)
    return angle_deg.expand(shape), (2 * torch.sin(torch.deg2rad(angle_deg) / 2)).expand(shape)


@dataclass(frozen=True)
class Path:
    """A way to leave the base; positions run from 0 to `end`.

    They are degrees (sphere), base norms (straight), units of the activations (absolute) or fractions of the way
    (interpolate).
    """

    name: str
    end: float
    fewest_steps: int
    """Steps of the coarsest grid on which a first crossing may be sought: curves can fall back under the threshold."""
    tolerance: float
    """Width of the bracket at which the bisection of a crossing stops."""
    points: Callable[[Tensor, Tensor, Tensor], Tensor]
    component: Callable[[Tensor, Tensor], Tensor]
    """(base, direction) -> the part of the direction that moves the point."""
    coordinates: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
    """(base, direction, positions) -> angle in degrees, distance over the base's norm."""

    def grid(self, steps: int) -> Tensor:
        """Return `steps` evenly spaced float64 positions from 0 to the end.

        Raises
        ------
        StudyError
            If they are too far apart to find first crossings.
        """
        if steps <= self.fewest_steps:
            raise StudyError(
                f"steps: {steps} is too coarse for the {self.name} path; set it to {self.fewest_steps + 1} or more"
            )
        return torch.linspace(0, self.end, steps, dtype=torch.float64)


PATHS = {
    "sphere": Path("sphere", 180.0, 30, 0.1, sphere_path, orthogonal, sphere_coordinates),
    "straight": Path("straight", 1.0, 20, 1e-3, straight_path, along, straight_coordinates),
    "absolute": Path("absolute", 1.0, 20, 1e-3, absolute_path, along, absolute_coordinates),
    "interpolate": Path("interpolate", 1.0, 20, 1e-3, interpolating_path, along, interpolating_coordinates),
}


def path_of(name: str, length: float) -> Path:
    """Return a path by its name; `length`, in units of the activations, ends the `absolute` one (alone: 1)."""
    path = PATHS[name]
    return replace(path, end=length, tolerance=length / 1000) if name == "absolute" else path
