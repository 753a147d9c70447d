"""Rows to train on: in memory, or streamed from the cache in bounded memory; seeded epochs, and the scale of the data."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from actspace.activations.store import Activations
from actspace.dictionaries.base import check_finite
from actspace.errors import StudyError
from actspace.seeds import rng_for, seed_for

MEDIAN_ROWS = 8192


class Rows(Protocol):
    """What training needs of its data: one hook's activations as Tensors (row, d_model)."""

    def parts(self) -> Iterator[Tensor]:
        """Yield all rows once, in a fixed order, a part at a time."""

    def sample(self, n: int, rng: np.random.Generator) -> Tensor:
        """Draw `n` different rows (all of them if there are fewer)."""

    def batches(self, size: int, seed: int) -> Iterator[Tensor]:
        """Yield all rows once, in an order that the seed decides, about `size` at a time."""


class InMemory:
    """Rows that are in memory already, float Tensor (row, d_model) on any device."""

    def __init__(self, x: Tensor):
        self.x = x

    def parts(self) -> Iterator[Tensor]:
        """Yield all rows; see `Rows`."""
        yield from self.x.split(4096)

    def sample(self, n: int, rng: np.random.Generator) -> Tensor:
        """Draw rows; see `Rows`."""
        return self.x[torch.from_numpy(rng.permutation(len(self.x))[:n]).to(self.x.device)]

    def batches(self, size: int, seed: int) -> Iterator[Tensor]:
        """Yield the rows of a random permutation; see `Rows`."""
        order = torch.randperm(len(self.x), generator=torch.Generator().manual_seed(seed))
        for indices in order.split(size):
            yield self.x[indices.to(self.x.device)]


class Streamed:
    """Rows of the cache: memory is that of a few buffers of the store, however many rows there are."""

    def __init__(self, activations: Activations):
        self.activations = activations

    def parts(self) -> Iterator[Tensor]:
        """Yield all rows, a row group at a time; see `Rows`."""
        for group in self.activations.groups():
            yield group.x

    def sample(self, n: int, rng: np.random.Generator) -> Tensor:
        """Draw rows; see `Rows`."""
        return self.activations.sample(n, rng).x

    def batches(self, size: int, seed: int) -> Iterator[Tensor]:
        """Yield the rows in the store's random order, read ahead by a thread; see `Rows`."""
        return self.activations.batches(size, seed)


class Scaling(NamedTuple):
    """How many rows there are, the factor that gives them a mean norm of sqrt(d_model), and the summed variance of rows so scaled."""

    n_rows: int
    d_model: int
    factor: float
    variance: float


def scaling(rows: Rows) -> Scaling:
    """Measure the rows in one pass, in float64.

    Raises
    ------
    StudyError
        If there are fewer than two rows, all are alike, or one is not finite.
    """
    n, norm, shift, total, square = 0, 0.0, None, torch.zeros(()), 0.0
    for part in rows.parts():
        check_finite(part, "SAE data", first_row=n)
        if len(part) == 0:
            continue
        x = part.double()
        norm += float(x.norm(dim=1).sum())
        shift = x[0] if shift is None else shift
        x = x - shift  # sums of squares around a row of the data cancel less than around zero
        total, square, n = total + x.sum(0), square + float(x.square().sum()), n + len(x)
    if shift is None or n < 2:
        raise StudyError(f"sae: {n} rows to train on; read more activations")
    variance = square / n - float((total / n).square().sum())
    if not variance > 1e-14 * float(shift.square().sum()):
        raise StudyError(f"sae: all {n} rows are alike; there is nothing to learn")
    factor = math.sqrt(len(shift)) * n / norm
    return Scaling(n, len(shift), factor, variance * factor**2)


def endless(rows: Rows, n_rows: int, size: int, seed: int, start: int = 0) -> Iterator[Tensor]:
    """Yield batches (size, d_model) without end: epochs of all rows, each in an order of its own, one after the other.

    `start` leaves out as many batches without a trace in what follows.
    """
    epoch, skip = divmod(start * size, n_rows)
    rest: Tensor | None = None
    while True:
        for part in rows.batches(size, seed_for(seed, "epoch", epoch)):
            fresh, skip = part[skip:], max(0, skip - len(part))
            joined = fresh if rest is None else torch.cat([rest, fresh])
            whole = len(joined) // size * size
            yield from joined[:whole].split(size) if whole else ()
            rest = joined[whole:].clone() if whole < len(joined) else None
        epoch += 1


def median_of_sample(rows: Rows, seed: int, factor: float, device: str | torch.device) -> tuple[Tensor, Tensor]:
    """Return the geometric median (d_model,) of a sample of the scaled rows, and the sample (row, d_model), both float32."""
    sample = factor * rows.sample(MEDIAN_ROWS, rng_for(seed, "median")).to(device, torch.float32)
    return geometric_median(sample), sample


def geometric_median(x: Tensor, iterations: int = 100, tolerance: float = 1e-5) -> Tensor:
    """Return the point (d_model,) of least summed distance to the rows (row, d_model), by Weiszfeld's iteration."""
    median = x.mean(0)
    for _ in range(iterations):
        # A row at the median itself would get infinite weight.
        weights = 1 / (x - median).norm(dim=1).clamp_min(1e-6)
        previous, median = median, (weights[:, None] * x).sum(0) / weights.sum()
        if (median - previous).norm() <= tolerance * median.norm():
            break
    return median
