"""Fit k-means: Lloyd's iterations from one greedy k-means++ start, over rows in memory or in passes over the store.

On a CPU the nearest centroids come from faiss, which finds them at the speed of the matrix product: scikit-learn's Lloyd takes
1.4 times as long, torch 1.2 times (tests/benchmarks/kmeans.py). On a GPU torch does it, some rows at a time. An empty cluster moves to the row
that is farthest from its centroid. Source: methods reference, 1.2 (K1, K3 and K4; K2 and K2' read the centroids of K1 out in another way, see
`read_out`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import faiss
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from actspace.activations import moments, store
from actspace.dictionaries import pca
from actspace.dictionaries.base import (
    KMEANS,
    PCA,
    Dictionary,
    KMeans,
    PrefixedKMeans,
    SphericalKMeans,
    check_finite,
    nearest,
)
from actspace.errors import StudyError
from actspace.threads import limited_to

SCORES_AT_ONCE = 2**28  # (row, cluster) scores held at a time on a GPU: 1 GiB
ROWS_AT_ONCE = 2**15
START_ROWS = 2**18  # rows at most that a start is chosen from when the data stay on the disk
MOVED_AT_ONCE = 256  # empty clusters that find a new place in one pass
MEMORY_BYTES = 2**32
Chunks = Callable[[], Iterator[Tensor]]


class KMeansFit(NamedTuple):
    """A fitted dictionary and how the fit went; `inertia` sums the squared distances to the nearest centroids.

    That of spherical k-means is on the unit sphere, and that behind a prefix in what the components leave.
    """

    dictionary: Dictionary
    inertia: float
    iterations: int
    converged: bool


class Lloyd(NamedTuple):
    """Where Lloyd's iterations ended: centroids (cluster, d_model) in float32, passes made, and whether they rest."""

    centroids: Tensor
    iterations: int
    converged: bool


class Tally(NamedTuple):
    """Sums of the rows nearest to each centroid, float64 (cluster, d_model), and their numbers, float64 (cluster,)."""

    sums: Tensor
    counts: Tensor


def fit(
    x: np.ndarray | store.Activations,
    n_clusters: int,
    seed: int,
    tolerance: float,
    max_iterations: int,
    n_threads: int = 1,
    spherical: bool = False,
    pca_prefix: int = 0,
    device: str = "cpu",
) -> KMeansFit:
    """Fit centroids to activations.

    Parameters
    ----------
    x : float32 array of shape (row, d_model), or activations in the store
        What is in the store is read again in each pass, and the start is chosen from a sample of 262,144 rows, or of 1 GiB.
    n_clusters
        Number of centroids K.
    seed
        Non-negative integer of any size.
    tolerance
        Stop when the centroids together move by less than this, squared, in units of the data's variance averaged over
        dimensions.
    max_iterations
        Stop after so many passes over the data.
    n_threads
        Threads for this fit.
    spherical
        Cluster the rows' directions: unit rows, unit centroids.
    pca_prefix
        Number of leading principal components that are kept exactly; what they leave is clustered.
    device
        Where the centroids are moved. On a CPU the fit is the same in every run, on a GPU up to the order of sums.

    Raises
    ------
    StudyError
        If x has fewer rows, or fewer distinct rows, than K, a row that is not finite, or no more dimensions than the
        prefix.
    """
    rng = np.random.default_rng(seed)
    with limited_to(n_threads):
        prefix = _prefix(x, pca_prefix) if pca_prefix else None
        rows, chunks, offset = _rows_of(x, n_clusters, _preparation(prefix, spherical, device), not spherical, rng)
        if not 1 <= n_clusters <= len(rows):
            raise StudyError(
                f"k-means: {n_clusters} clusters of {len(rows)} rows; choose fewer clusters (at least 1), or more rows"
            )
        start = rows[plus_plus(rows, n_clusters, rng)]
        at_rest = tolerance * float(rows.var(0, correction=0).double().mean())
        found = lloyd(chunks, start, at_rest, max_iterations, spherical)
        total = inertia(chunks, found.centroids)
    kind = SphericalKMeans if spherical else KMeans
    tensors = {"centroids": (found.centroids + offset).cpu()}
    if prefix is None:
        return KMeansFit(kind(tensors), total, found.iterations, found.converged)
    tensors |= {"components": prefix.components.cpu(), "mean": prefix.mean.cpu()}
    return KMeansFit(PrefixedKMeans(tensors, variant=kind.family), total, found.iterations, found.converged)


def data_of(activations: store.Activations) -> np.ndarray | store.Activations:
    """Return the rows for `fit`: read into memory if they take at most 4 GiB, or else as they are."""
    n_bytes = 4 * activations.d_model * activations.count()
    return activations if n_bytes > MEMORY_BYTES else activations.read().x.numpy()


def _too_few(n_clusters: int, n_rows: int) -> StudyError:
    return StudyError(
        f"k-means: {n_clusters} clusters, but the {n_rows} rows hold fewer distinct ones; choose fewer clusters"
    )


def lloyd(chunks: Chunks, start: Tensor, at_rest: float, max_iterations: int, spherical: bool = False) -> Lloyd:
    """Move centroids to the means of the rows nearest to them, until they rest.

    Parameters
    ----------
    chunks : returns the rows anew in each pass, in float32 Tensors of shape (row, d_model), not far from the origin
    start : initial centroids, float32 of shape (cluster, d_model)
    at_rest : squared distance that the centroids together may still move when the iterations end
    max_iterations : passes at most
    spherical : rows are unit vectors, and centroids become such

    Raises
    ------
    StudyError
        If the rows hold fewer distinct ones than there are clusters.
    """
    centroids, resting, iterations = start, False, 0
    while iterations < max_iterations and not resting:
        found = tally(chunks, centroids)
        if not found.counts.all():
            found = fill_empty(found, *farthest(chunks, centroids))
        means = found.sums / found.counts.clamp(min=1)[:, None]
        means = torch.where(found.counts[:, None] > 0, means, centroids.double())
        means = functional.normalize(means, dim=1) if spherical else means
        resting = float((means - centroids).square().sum()) <= at_rest
        centroids = means.float()
        iterations += 1
    return Lloyd(centroids, iterations, resting)


def tally(chunks: Chunks, centroids: Tensor) -> Tally:
    """Assign all rows to the nearest of the centroids (cluster, d_model), and sum them up."""
    sums = torch.zeros_like(centroids, dtype=torch.float64)
    counts = sums.new_zeros(len(centroids))
    for rows, clusters in assigned(chunks, centroids):
        number = torch.bincount(clusters, minlength=len(centroids))
        # Rows in the order of their clusters, in one go: adding row by row makes threads wait for one another.
        sums += functional.embedding_bag(clusters.argsort(), rows, number.cumsum(0) - number, mode="sum")
        counts += number
    return Tally(sums, counts)


def assigned(chunks: Chunks, centroids: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield chunks of rows with the numbers (row,) of their nearest centroids."""
    for rows in chunks():
        yield rows, _nearest(rows, centroids)


def _nearest(rows: Tensor, centroids: Tensor) -> Tensor:
    """Find the nearest of the centroids (cluster, d_model) of each row (row, d_model): int64 of shape (row,)."""
    if rows.is_cuda:
        step = max(64, SCORES_AT_ONCE // len(centroids))
        return torch.cat([nearest(some, centroids) for some in rows.split(step)])
    _, found = faiss.knn(rows.numpy(), centroids.numpy(), 1)
    return torch.from_numpy(found[:, 0])


def farthest(chunks: Chunks, centroids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the rows that are farthest from their centroids, the farthest first.

    Returns
    -------
    rows (few, d_model), their squared distances (few,), and the numbers (few,) of their centroids
    """
    far, distances = centroids[:0], centroids.new_zeros(0)
    clusters = torch.zeros(0, dtype=torch.int64, device=centroids.device)
    for rows, own in assigned(chunks, centroids):
        gaps = (rows - centroids[own]).square().sum(1)
        worst = gaps.topk(min(MOVED_AT_ONCE, len(gaps))).indices
        together = torch.cat([distances, gaps[worst]])
        kept = together.topk(min(MOVED_AT_ONCE, len(together))).indices
        far, distances = torch.cat([far, rows[worst]])[kept], together[kept]
        clusters = torch.cat([clusters, own[worst]])[kept]
    return far, distances, clusters


def fill_empty(found: Tally, far: Tensor, distances: Tensor, clusters: Tensor) -> Tally:
    """Give empty clusters the rows that are farthest from their centroids, and take them from where they were.

    Parameters are as `tally` and `farthest` return them. Empty clusters beyond the number of these rows stay empty.

    Raises
    ------
    StudyError
        If the farthest rows lie on their centroids, so that there is no other place.
    """
    sums, counts = found.sums.clone(), found.counts.clone()
    rounding = 1e-12 * float(far.square().sum(1).max())
    spare = iter(range(len(far)))
    for empty in (counts == 0).nonzero()[:, 0].tolist():
        row = next((i for i in spare if counts[clusters[i]] > 1), None)
        if row is None:
            break
        if float(distances[row]) <= rounding:
            raise _too_few(len(counts), int(counts.sum()))
        place = far[row].double()
        sums[clusters[row]] -= place
        counts[clusters[row]] -= 1
        sums[empty], counts[empty] = place, 1
    return Tally(sums, counts)


def inertia(chunks: Chunks, centroids: Tensor) -> float:
    """Sum the squared distances of all rows to the nearest of the centroids (cluster, d_model), in float64."""
    gaps = (rows.double() - centroids[own].double() for rows, own in assigned(chunks, centroids))
    return sum(float(gap.square().sum()) for gap in gaps)


def plus_plus(x: Tensor, n_clusters: int, rng: np.random.Generator) -> list[int]:
    """Choose rows to start from, far from one another: greedy k-means++.

    Each is the best of 2 + log K rows drawn with probability proportional to the squared distance from the rows chosen so far
    (Arthur & Vassilvitskii 2007, with the trials that scikit-learn makes; its own version computes in float64 and takes three times as long).

    Parameters
    ----------
    x : float32 Tensor of shape (row, d_model)
    n_clusters : K
    rng : draws the rows

    Returns
    -------
    K row numbers
    """
    x = x - x.mean(0)  # distances come from scalar products, which a common offset would swamp
    squares = x.square().sum(1)
    trials = 2 + int(np.log(n_clusters))
    chosen = [int(rng.integers(len(x)))]
    nearest = (squares + squares[chosen[0]] - 2 * (x @ x[chosen[0]])).clamp_(min=0)
    while len(chosen) < n_clusters:
        cumulative = nearest.double().cumsum(0)
        drawn = torch.searchsorted(cumulative, torch.from_numpy(rng.random(trials)).to(x.device) * cumulative[-1])
        drawn = drawn.clamp_(max=len(x) - 1)
        distances = squares + squares[drawn, None] - 2 * (x[drawn] @ x.T)
        distances = torch.minimum(distances.clamp_(min=0), nearest)
        best = int(distances.sum(1).argmin())
        chosen.append(int(drawn[best]))
        nearest = distances[best]
    return chosen


def read_out(fitted: Dictionary, family: str, mean: Tensor) -> Dictionary:
    """Read the centroids of a fit out in another way: `kmeans_unit` or `kmeans_nearest` (K2 and K2' in the reference).

    Parameters
    ----------
    fitted : KMeans, or PrefixedKMeans of such
    family : the other way
    mean : float Tensor of shape (d_model,), which directions start from; behind a prefix they start from its mean
    """
    if isinstance(fitted, PrefixedKMeans):
        return PrefixedKMeans(dict(fitted.named_buffers()), variant=family)
    return KMEANS[family]({**dict(fitted.named_buffers()), "mean": mean.float()})


def _prefix(x: np.ndarray | store.Activations, rank: int) -> PCA:
    """Fit the components that are kept; at least one dimension must be left."""
    chunks = _finite(x).split(ROWS_AT_ONCE) if isinstance(x, np.ndarray) else (rows.x for rows in x.groups())
    _, mean, covariance = moments.accumulate(chunks)
    if rank >= len(mean):
        raise StudyError(f"k-means: a prefix of {rank} components leaves nothing of {len(mean)} dimensions; lower it")
    return pca.fit(mean.numpy(), covariance.numpy(), rank)


def _preparation(prefix: PCA | None, spherical: bool, device: str) -> Callable[[Tensor], Tensor]:
    """Return what is done to rows (row, d_model) before they are clustered."""
    prefix = prefix and prefix.to(device)

    def prepare(x: Tensor) -> Tensor:
        x = x.to(device, torch.float32)
        x = x if prefix is None else x - prefix(x)
        return functional.normalize(x, dim=1) if spherical else x

    return prepare


def _rows_of(
    x: np.ndarray | store.Activations,
    n_clusters: int,
    prepare: Callable[[Tensor], Tensor],
    centre: bool,
    rng: np.random.Generator,
) -> tuple[Tensor, Chunks, Tensor]:
    """Return the rows to choose a start from, what reads all rows, and the offset (d_model,) that both were shifted by.

    Distances come from scalar products, which a common offset would swamp.
    """
    rows = prepare(_finite(x) if isinstance(x, np.ndarray) else x.sample(_start_rows(n_clusters, x.d_model), rng).x)
    offset = rows.mean(0) * centre
    rows = rows - offset
    if isinstance(x, np.ndarray):
        return rows, lambda: iter(rows.split(ROWS_AT_ONCE)), offset
    return rows, lambda: (prepare(part.x) - offset for part in x.groups() if len(part)), offset


def _start_rows(n_clusters: int, d_model: int) -> int:
    """Say how many rows of the store a start is chosen from: in float32 they take 1 GiB at most, unless there are as many clusters."""
    return max(n_clusters, min(START_ROWS, store.HELD_BYTES // (4 * d_model)))


def _finite(x: np.ndarray) -> Tensor:
    rows = torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32))
    check_finite(rows, "k-means data")
    return rows
