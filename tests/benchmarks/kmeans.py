"""Lloyd's iterations from the same start: ours (over rows in memory, and over a store), and those of scikit-learn, faiss and flash-kmeans.

On the CPU: 96,000 clustered vectors of 576 dimensions, K = 1,024, 2 threads. On a GPU: 1,000,000 of 768, K = 16,384. The vectors have a residual
stream's shape. All make the same number of passes and take turns, every round beginning with another: what follows torch is slower for a
moment. A ratio is the peer's time over ours. What is not installed, or does not run on the device, is null; flash-kmeans needs a GPU. The last
line is one JSON object."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import faiss
import numpy as np
import torch
from sklearn import cluster
from torch import Tensor

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "workflow"))

from actspace.activations import store  # noqa: E402
from actspace.dictionaries import kmeans  # noqa: E402
from actspace.provenance import MadeBy  # noqa: E402
from actspace.threads import limited_to  # noqa: E402

THREADS = 2


class Setting(NamedTuple):
    """What is clustered, and how often."""

    rows: int
    d_model: int
    clusters: int
    passes: int
    rounds: int


SETTINGS = {
    ("cpu", False): Setting(96_000, 576, 1024, 5, 8),
    ("cpu", True): Setting(16_000, 576, 256, 4, 3),
    ("cuda", False): Setting(1_000_000, 768, 16_384, 5, 5),
    ("cuda", True): Setting(100_000, 768, 1024, 4, 3),
}


def clustered(setting: Setting, seed: int = 0) -> Tensor:
    """Draw centred rows (row, d_model): 2,000 groups of unequal size, variances that fall as one over the rank of the dimension."""
    rng = np.random.default_rng(seed)
    scale = (1 / np.sqrt(np.arange(1, setting.d_model + 1))).astype(np.float32)
    centres = rng.standard_normal((2000, setting.d_model), dtype=np.float32)
    x = centres[rng.choice(2000, setting.rows, p=rng.dirichlet(np.ones(2000)))]
    x += rng.standard_normal(x.shape, dtype=np.float32)
    x *= scale
    return torch.from_numpy(x - x.mean(0))


# --- the ways: each returns the centroids that it ends with ----------------------------------------------------------------------------------


def ours(x: Tensor, start: Tensor, passes: int) -> Tensor:
    with limited_to(THREADS):
        return kmeans.lloyd(lambda: iter(x.split(kmeans.ROWS_AT_ONCE)), start, 0, passes).centroids


def from_store(activations: store.Activations, start: Tensor, passes: int) -> Tensor:
    with limited_to(THREADS):
        chunks = lambda: (part.x.to(start) for part in activations.groups())  # noqa: E731
        return kmeans.lloyd(chunks, start, 0, passes).centroids


def scikit_learns(x: Tensor, start: Tensor, passes: int) -> Tensor:
    with limited_to(THREADS):
        fit = cluster.KMeans(len(start), init=start.numpy(), n_init=1, max_iter=passes, tol=0)
        return torch.from_numpy(fit.fit(x.numpy()).cluster_centers_)


def faiss_s(x: Tensor, start: Tensor, passes: int) -> Tensor:
    with limited_to(THREADS):
        fit = faiss.Kmeans(x.shape[1], len(start), niter=passes, max_points_per_centroid=len(x))
        fit.train(x.numpy(), init_centroids=start.numpy())
        return torch.from_numpy(fit.centroids)


def flash_kmeans_s(x: Tensor, start: Tensor, passes: int) -> Tensor:
    from flash_kmeans import batch_kmeans_Euclid

    _, centroids, _ = batch_kmeans_Euclid(
        x[None], len(start), max_iters=passes, tol=-1, init_centroids=start[None].clone()
    )
    return centroids[0]


def ways(device: str, x: Tensor, activations: store.Activations) -> dict[str, Callable[[Tensor, int], Tensor]]:
    """Return what is measured on the device, by name, as functions of the start and the number of passes."""
    own = {
        "ours": lambda start, passes: ours(x, start, passes),
        "from_store": lambda start, passes: from_store(activations, start, passes),
    }
    if device == "cpu":
        return own | {
            "sklearn": lambda start, passes: scikit_learns(x, start, passes),
            "faiss": lambda start, passes: faiss_s(x, start, passes),
        }
    return own | ({"flash_kmeans": lambda s, passes: flash_kmeans_s(x, s, passes)} if installed("flash-kmeans") else {})


def installed(name: str) -> str | None:
    """Return the version of a package, None if it is not there."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


# --- the measurement -------------------------------------------------------------------------------------------------------------------------


def stored(x: Tensor, path: Path) -> store.Activations:
    """Write the rows as activations of one hook, in float32."""
    n = np.arange(len(x))
    keys = {"sequence_id": n, "position": n.astype(np.int32) % 64, "token_id": n.astype(np.int32)}
    store.write(path, x, keys | {"document_id": n.astype(str)}, "float32", MadeBy("bench", "kmeans", {}, "", {}))
    return store.Activations([path])


def in_turns(found: dict[str, Callable[[Tensor, int], Tensor]], start: Tensor, setting: Setting):
    """Return the seconds of each way in each round, and the centroids that each ended with."""
    seconds: dict[str, list[float]] = {name: [] for name in found}
    centroids: dict[str, Tensor] = {}
    turns = deque(found)
    for _ in range(setting.rounds):
        for name in turns:
            began = time.perf_counter()
            centroids[name] = found[name](start, setting.passes)
            if start.is_cuda:
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - began)
        turns.rotate(-1)
    return seconds, centroids


def main(device: str, quick: bool) -> dict[str, object]:
    setting = SETTINGS[device, quick]
    on_cpu = clustered(setting)
    x = on_cpu.to(device)
    start = x[
        torch.from_numpy(np.random.default_rng(1).choice(setting.rows, setting.clusters, replace=False)).to(device)
    ]
    with tempfile.TemporaryDirectory() as scratch:
        found = ways(device, x, stored(on_cpu, Path(scratch, "train-000.parquet")))
        seconds, centroids = in_turns(found, start, setting)
    inertia = {
        name: kmeans.inertia(lambda: iter(x.split(kmeans.ROWS_AT_ONCE)), value) for name, value in centroids.items()
    }
    ratios = {
        name: [theirs / own for theirs, own in zip(seconds[name], seconds["ours"], strict=True)]
        if name in seconds
        else None
        for name in ("sklearn", "faiss", "flash_kmeans", "from_store")
    }
    return {
        "benchmark": "kmeans",
        "device": device,
        "ratios": {f"over_{name}": ratio and round(statistics.median(ratio), 3) for name, ratio in ratios.items()},
        "spread": {
            f"over_{name}": ratio and [round(min(ratio), 3), round(max(ratio), 3)] for name, ratio in ratios.items()
        },
        "rates": {"vectors_per_s": round(setting.rows * setting.passes / statistics.median(seconds["ours"]))},
        "seconds": {name: [round(value, 3) for value in values] for name, values in seconds.items()},
        "exactness": {
            f"inertia_over_{name}": round(inertia["ours"] / value, 6)
            for name, value in inertia.items()
            if name != "ours"
        },
        "setting": setting._asdict(),
        "versions": {name: installed(name) for name in ("torch", "faiss-cpu", "scikit-learn", "flash-kmeans")},
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    print(json.dumps(main(arguments.device, arguments.quick)))
