"""Moments of cached activations: count, mean and covariance in float64, and how long and how far apart activations are."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from actspace import provenance
from actspace.activations import store
from actspace.errors import StudyError

PAIRS = 10_000


@dataclass(frozen=True)
class Moments:
    """Mean (d_model,) and covariance (d_model, d_model, divided by the count), float64, of `count` rows; lengths and angles of a sample.

    `max_norm` is the norm above which rows were left out (infinity: none were) and `excluded` their number.
    """

    count: int
    mean: Tensor
    covariance: Tensor
    mean_norm: float
    median_distance: float
    median_angle_deg: float
    max_norm: float
    excluded: int

    @property
    def rank(self) -> int:
        """Numerical rank of the covariance; below d_model in the centred gauge, and where rows are few."""
        return int(torch.linalg.matrix_rank(self.covariance, hermitian=True))


def of_files(paths: Sequence[str], select: Mapping[str, Any], seed: int) -> Moments:
    """Take the moments of one hook's training rows, a row group at a time.

    `select` holds `first_position` and `norm_outliers`, the multiple of the median norm above which rows are left out (None: none are).
    `seed` draws the pairs of which distance and angle are taken.
    """
    later = store.Activations(paths, first_position=select["first_position"])
    every = later.count()
    if not every:
        raise StudyError(
            f"{paths[0]}: no row has the position {select['first_position']} or a later one; lower `select.first_position`"
        )
    used = later.without_outliers(select["norm_outliers"]) if select["norm_outliers"] else later
    limit = math.inf if used.max_norm is None else used.max_norm
    count, mean, covariance = accumulate(rows.x for rows in used.groups())
    length = sum(float(part["norm"].to_numpy().sum(dtype=np.float64)) for part in used.key_groups("norm")) / count
    rng = np.random.default_rng(seed)
    distance, angle = distances(used.sample(2 * PAIRS, rng).x, rng)
    return Moments(count, mean, covariance, length, distance, angle, limit, every - count)


@dataclass(frozen=True)
class Sums:
    """Count, mean (d_model,) and scatter (d_model, d_model), the sum of outer products of deviations from the mean, in float64.

    Sums of parts add up to those of the whole, in any order: `+` is the pairwise update of Chan, Golub & LeVeque (1983), in which a mean much
    larger than the spread cancels nothing.
    """

    count: int
    mean: Tensor
    scatter: Tensor

    @classmethod
    def of(cls, x: Tensor) -> Sums:
        """Sum rows (row, d_model), at least one."""
        x = x.double()
        mean = x.mean(0)
        x = x - mean
        return cls(len(x), mean, x.T @ x)

    def __add__(self, other: Sums) -> Sums:
        count, offset = self.count + other.count, other.mean - self.mean
        between = torch.outer(offset, offset) * (self.count * other.count / count)
        return Sums(count, self.mean + offset * (other.count / count), self.scatter + other.scatter + between)


def accumulate(chunks: Iterable[Tensor]) -> tuple[int, Tensor, Tensor]:
    """Return count, mean and covariance (divided by the count) of rows that arrive in chunks (row, d_model), in one pass."""
    total: Sums | None = None
    for chunk in chunks:
        if len(chunk):  # of a shard, no row may be selected
            total = Sums.of(chunk) if total is None else total + Sums.of(chunk)
    if total is None or total.count < 2:
        found = total.count if total else 0
        raise StudyError(
            f"moments need at least 2 rows, found {found}; raise the number of sequences or relax `select`"
        )
    return total.count, total.mean, total.scatter / total.count


def distances(x: Tensor, rng: np.random.Generator) -> tuple[float, float]:
    """Return the median L2 distance and the median angle in degrees between random pairs of different rows of `x` (row, d_model)."""
    first = rng.integers(0, len(x), PAIRS)
    second = (first + rng.integers(1, len(x), PAIRS)) % len(x)
    a, b = x[torch.from_numpy(first)].double(), x[torch.from_numpy(second)].double()
    cosine = torch.nn.functional.cosine_similarity(a, b, dim=1).clamp(-1, 1)
    return float((a - b).norm(dim=1).median()), float(torch.rad2deg(cosine.acos()).median())


def save(path: Path, moments: Moments) -> None:
    """Write moments as safetensors; the numbers stand in its metadata."""
    scalars = {k: v for k, v in vars(moments).items() if not isinstance(v, Tensor)}
    tensors = {"mean": moments.mean.contiguous(), "covariance": moments.covariance.contiguous()}
    save_file(tensors, path, metadata={"moments": json.dumps(scalars)})


def load(path: str | Path) -> Moments:
    """Read moments back. Raises StudyError if the file is not what its receipt says."""
    provenance.check(path)
    with safe_open(str(path), framework="pt") as file:
        return Moments(
            mean=file.get_tensor("mean"),
            covariance=file.get_tensor("covariance"),
            **json.loads(file.metadata()["moments"]),
        )


def describe(moments: Moments) -> dict[str, float]:
    """Return what a reader wants to know of a hook point's activations, by column of the table `activations`.

    `largest_dimension_share` is the share of the total variance in the one dimension that has most of it: where that is much, raw
    distances, and with them k-means and unexplained variance, are mostly about that dimension.
    """
    variances = torch.diag(moments.covariance)
    return {
        "n_rows": moments.count,
        "n_excluded": moments.excluded,
        "mean_norm": moments.mean_norm,
        "median_distance": moments.median_distance,
        "median_angle_deg": moments.median_angle_deg,
        "covariance_rank": moments.rank,
        "largest_dimension": int(variances.argmax()),
        "largest_dimension_share": float(variances.max() / variances.sum()),
    }


def limit_for(data: str, path: str | Path) -> float:
    """Return the norm above which rows of some data are left out: the training rows' own limit, or none for a surrogate.

    A surrogate has just as many rows as were selected, and its norms are its own.
    """
    return load(path).max_norm if data in ("real", "untrained") else math.inf
