"""Lloyd's iterations from the same start: ours (in memory, and as streamed from a disk), scikit-learn's and faiss's.

The vectors are clustered and have a residual stream's shape. All do the same number of passes on 2 threads, and take turns, every round
beginning with another: what follows torch is slower for a moment. A ratio is the peer's time over ours. faiss is there after `make bench-peers`
and runs in a process of its own; what is not installed is null, and so is flash-kmeans, which needs a GPU. The last line is one JSON object."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from pathlib import Path

import numpy as np
import torch
from sklearn import cluster
from threadpoolctl import threadpool_limits

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "workflow"))

from actspace.dictionaries import kmeans  # noqa: E402
from actspace.threads import torch_threads  # noqa: E402

PEER = ROOT / ".venv-peers" / "bin" / "python"
D_MODEL, THREADS = 576, 2


def clustered(rows: int, seed: int = 0) -> np.ndarray:
    """Draw rows (row, d_model): 2,000 groups of unequal size, variances that fall as one over the rank of the dimension."""
    rng = np.random.default_rng(seed)
    scale = (1 / np.sqrt(np.arange(1, D_MODEL + 1))).astype(np.float32)
    centres = rng.standard_normal((2000, D_MODEL), dtype=np.float32)
    weights = rng.dirichlet(np.ones(2000))
    x = centres[rng.choice(2000, rows, p=weights)]
    x += rng.standard_normal((rows, D_MODEL), dtype=np.float32)
    return x * scale


class Faiss:
    """faiss in a process and environment of its own: one line in, one run, its seconds out."""

    def __init__(self, python: Path, folder: Path, iterations: int) -> None:
        self.centroids = folder / "faiss.npy"
        command = [str(python), str(Path(__file__).parent / "peers" / "faiss_kmeans.py"), str(folder), str(iterations)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.version = self._read()

    def seconds(self) -> float:
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self._read())

    def _read(self) -> str:
        line = self.process.stdout.readline().strip()
        if not line:
            raise RuntimeError("faiss ended early; see its message above")
        return line

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def has_faiss(python: Path) -> bool:
    return python.exists() and not subprocess.run([python, "-c", "import faiss"], capture_output=True).returncode


def ours(x: np.ndarray, start: np.ndarray, iterations: int) -> tuple[float, np.ndarray]:
    began = time.perf_counter()
    found = kmeans.scikit_learns(x, start, 0, iterations, THREADS)
    return time.perf_counter() - began, found.centroids.numpy()


def streamed(x: np.ndarray, start: np.ndarray, iterations: int) -> tuple[float, np.ndarray]:
    """Do it as on rows that stay on the disk, but read them from memory."""
    began = time.perf_counter()
    with torch_threads(THREADS):
        rows = torch.from_numpy(x)
        found = kmeans.lloyd(lambda: iter(rows.split(kmeans.ROWS_AT_ONCE)), torch.from_numpy(start), 0, iterations)
    return time.perf_counter() - began, found.centroids.numpy()


def scikit_learns(x: np.ndarray, start: np.ndarray, iterations: int) -> tuple[float, np.ndarray]:
    began = time.perf_counter()
    with threadpool_limits(THREADS):
        found = cluster.KMeans(len(start), init=start, n_init=1, max_iter=iterations, tol=0).fit(x)
    return time.perf_counter() - began, found.cluster_centers_


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="ignored: k-means runs on the CPU")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--peer", type=Path, default=PEER, help="a Python that has faiss")
    arguments = parser.parse_args()
    rows, k, iterations, rounds = (16_000, 256, 4, 3) if arguments.quick else (96_000, 1024, 5, 8)
    x = clustered(rows)
    x -= x.mean(0)
    start = x[np.random.default_rng(1).choice(rows, k, replace=False)]
    ways = {"ours": ours, "sklearn": scikit_learns, "streamed": streamed}
    seconds: dict[str, list[float]] = {**{name: [] for name in ways}, "faiss": []}
    found: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        np.save(folder / "x.npy", x)
        np.save(folder / "start.npy", start)
        faiss = Faiss(arguments.peer, folder, iterations) if has_faiss(arguments.peer) else None
        turns = deque([*ways, "faiss"] if faiss else ways)
        for _ in range(rounds):
            for name in turns:
                if name in ways:
                    taken, found[name] = ways[name](x, start, iterations)
                else:
                    taken, found[name] = faiss.seconds(), np.load(faiss.centroids)
                seconds[name].append(taken)
            turns.rotate(-1)
        version = faiss.version if faiss else None
        if faiss is not None:
            faiss.close()
    chunks = lambda: iter(torch.from_numpy(x).split(kmeans.ROWS_AT_ONCE))  # noqa: E731
    inertia = {name: kmeans.inertia(chunks, torch.from_numpy(centroids)) for name, centroids in found.items()}

    def over(name: str) -> float | None:
        pairs = [theirs / own for theirs, own in zip(seconds[name], seconds["ours"], strict=False)]
        return round(statistics.median(pairs), 3) if pairs else None

    print(
        json.dumps(
            {
                "benchmark": "kmeans",
                "device": "cpu",
                "ratios": {"over_sklearn": over("sklearn"), "over_faiss": over("faiss"), "over_flash_kmeans": None},
                "rates": {"vectors_per_s": round(rows * iterations / statistics.median(seconds["ours"]))},
                "seconds": {name: [round(value, 2) for value in values] for name, values in seconds.items()},
                "exactness": {
                    f"inertia_over_{name}": round(inertia["ours"] / value, 6)
                    for name, value in inertia.items()
                    if name != "ours"
                },
                "rows": rows,
                "clusters": k,
                "iterations": iterations,
                "faiss": version,
            }
        )
    )


if __name__ == "__main__":
    main()
