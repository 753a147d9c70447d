"""faiss' k-means from given centroids: prints its version, then for every line that comes in runs once and prints the seconds."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import faiss
import numpy as np

folder, iterations = Path(sys.argv[1]), int(sys.argv[2])
faiss.omp_set_num_threads(2)
x, start = np.load(folder / "x.npy"), np.load(folder / "start.npy")
print(faiss.__version__, flush=True)
for _ in sys.stdin:
    fit = faiss.Kmeans(x.shape[1], len(start), niter=iterations, max_points_per_centroid=len(x))
    began = time.perf_counter()
    fit.train(x, init_centroids=start)
    seconds = time.perf_counter() - began
    np.save(folder / "faiss.npy", fit.centroids)
    print(seconds, flush=True)
