"""Sweeps along paths, and where a curve first crosses a threshold of KL.

Source: Heimersheim (2024). A crossing is sought on a grid and then bisected in its bracket, since a curve can come back
under the threshold; one that never crosses is censored, and its crossing is infinite."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from actspace.perturbations.engine import Engine, Prompts, Readout, Reference
from actspace.perturbations.paths import Path

NUMBERS_AT_ONCE = {"cpu": 2**22, "cuda": 2**26}
"""Numbers in the perturbed vectors that exist at once, at most, whatever the number of directions and steps: 32 MB of
float64 on a CPU, 512 MB on a GPU. One direction of every prompt is always taken whole."""
POSITIONS_AT_ONCE = 4
"""Positions of the grid that `crossings_alone` walks between two looks at which rows have crossed."""


@dataclass(frozen=True)
class Sweep:
    """Some directions at some bases, to be walked along one path."""

    engine: Engine
    prompts: Prompts
    reference: Reference
    """Of the bases, from the engine."""
    bases: Tensor
    """(prompt, d_model), float64"""
    directions: Tensor
    """(prompt, row, d_model), float64"""
    path: Path
    grid: Tensor
    """(step,), float64, evenly spaced positions from 0 to the end of the path"""

    def along_grid(self) -> Readout:
        """Measure every position of the grid for every direction: Tensors (prompt, row, step) on the model's device."""
        budget = NUMBERS_AT_ONCE.get(self.bases.device.type, NUMBERS_AT_ONCE["cpu"])
        rows = max(1, budget // (self.bases.numel() * len(self.grid)))
        parts = [self._walk(directions) for directions in self.directions.split(rows, 1)]
        return Readout(*(torch.cat([getattr(part, field.name) for part in parts], 1) for field in fields(Readout)))

    def _walk(self, directions: Tensor) -> Readout:
        """Measure every position of the grid for some of the directions."""
        vectors = self.path.points(self.bases[:, None], directions, self.grid)
        out = self.engine.measure(self.prompts, self.reference, vectors.flatten(1, 2))
        return Readout(*(getattr(out, field.name).reshape(vectors.shape[:-1]) for field in fields(Readout)))

    def first_crossings(self, kl: Tensor, threshold_nats: float) -> Tensor:
        """Find where each curve first rises above the threshold: its bracket on the grid, then bisection inside it.

        All open brackets of all prompts are halved in the same launches.

        Parameters
        ----------
        kl : Tensor of shape (prompt, row, step)
            KL on the grid.
        threshold_nats : float, positive

        Returns
        -------
        float64 Tensor of shape (prompt, row)
            Middle of the last bracket, which is at most `path.tolerance` wide; +inf where the grid is never above.
        """
        above = kl > threshold_nats
        # Position 0 is the base itself; it also stands for rows that never cross.
        return self._refine(torch.where(above.any(-1), above.byte().argmax(-1).clamp_min(1), 0), threshold_nats)

    def crossings_alone(self, threshold_nats: float) -> Tensor:
        """Find first crossings as `along_grid` and `first_crossings` do together, at less cost: no curve is kept.

        The grid is walked from the base on, a few positions at a time, and a direction that has crossed goes no further.

        Parameters
        ----------
        threshold_nats : float, positive

        Returns
        -------
        float64 Tensor of shape (prompt, row), +inf where the grid is never above
        """
        first = torch.zeros(self.directions.shape[:2], dtype=torch.long, device=self.directions.device)
        for start in range(1, len(self.grid), POSITIONS_AT_ONCE):
            if (first > 0).all():
                break
            rows = _to_the_front(first == 0)
            block = replace(self, directions=self._at(rows), grid=self.grid[start : start + POSITIONS_AT_ONCE])
            above = block.along_grid().kl_base_pert_nats > threshold_nats
            now = torch.where(above.any(-1), start + above.byte().argmax(-1), 0)
            before = first.gather(1, rows)
            first = first.scatter(1, rows, torch.where(before > 0, before, now))
        return self._refine(first, threshold_nats)

    def _refine(self, first: Tensor, threshold_nats: float) -> Tensor:
        """Turn the index of each row's first position above the threshold, 0 for never, into its crossing."""
        crossed = first > 0
        low, high = self.grid[(first - 1).clamp_min(0)], self.grid[first]
        if crossed.any():
            rows = _to_the_front(crossed)
            halved = self._bisect(rows, low.gather(1, rows), high.gather(1, rows), threshold_nats)
            low, high = (whole.scatter(1, rows, part) for whole, part in zip((low, high), halved, strict=True))
        return torch.where(crossed, (low + high) / 2, torch.inf)

    def _at(self, rows: Tensor) -> Tensor:
        """Return the directions in some rows (prompt, some) of each prompt: (prompt, some, d_model)."""
        return self.directions[torch.arange(len(rows), device=rows.device)[:, None], rows]

    def _bisect(self, rows: Tensor, low: Tensor, high: Tensor, threshold_nats: float) -> tuple[Tensor, Tensor]:
        """Halve the brackets (prompt, bracket) of some rows of the directions until they are narrow enough."""
        chosen = self._at(rows)
        widest = float((self.grid[1:] - self.grid[:-1]).max())
        # A hair off the ratio: the rounding of the grid's spacing must not cost another round.
        for _ in range(math.ceil(math.log2(widest / self.path.tolerance) - 1e-9)):
            middle = (low + high) / 2
            vectors = self.path.points(self.bases[:, None], chosen, middle[..., None])[:, :, 0]
            over = self.engine.measure(self.prompts, self.reference, vectors).kl_base_pert_nats > threshold_nats
            low, high = torch.where(over, low, middle), torch.where(over, middle, high)
        return low, high


def _to_the_front(wanted: Tensor) -> Tensor:
    """Return rows (prompt, most): those wanted (prompt, row) of each prompt first, in as many columns as the most has.

    Prompts differ in their number of rows that are still of interest; the others fill up with rows that are not.
    """
    return (~wanted).byte().argsort(dim=-1, stable=True)[:, : int(wanted.sum(-1).max())]
