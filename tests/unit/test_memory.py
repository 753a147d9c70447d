"""Memory does not grow with the corpus: peaks of processes of their own, the same work on ten times as much."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PEAK = "; import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"

WRITE = """
import numpy as np, torch
from actspace.activations import store
from actspace.provenance import MadeBy

def write(path, rows, d_model=512):
    with store.Writer({"": path}) as writer:
        for first in range(0, rows, 4096):
            n = np.arange(first, first + 4096)
            keys = {"sequence_id": n // 64, "position": n % 64, "document_id": (n // 256).astype(str), "token_id": n % 50}
            writer.add({"": store.to_stored(torch.randn(4096, d_model), "float16")}, keys)
        writer.finish({"": MadeBy("s", "r", {}, "", {})})
"""

CAPTURE = """
import sys, torch, pyarrow as pa, numpy as np
import checkpoints
from actspace import tables
from actspace.activations import capture, store
from actspace.models import wrap
from actspace.provenance import MadeBy

made_by, sequences = MadeBy("s", "r", {}, "", {}), int(sys.argv[1])
with tables.Growing("tokens.parquet", 1024) as file:
    for first in range(0, sequences, 1024):
        n = np.arange(first, first + 1024)
        ids = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(1024 * 64, np.int32)), 64).cast(pa.list_(pa.int32()))
        file.add(pa.table({"sequence_id": n, "document_id": n.astype(str), "token_ids": ids}))
    file.finish(made_by)
model, hooks = wrap(checkpoints.network("llama")), ["blocks.0.hook_resid_pre", "blocks.0.hook_resid_post"]
with store.Writer({hook: f"{hook}.parquet" for hook in hooks}) as writer:
    for chunk in capture.chunks(model, tables.stream("tokens.parquet"), hooks, positions="all", storage="float32", gauge="raw", batch_tokens=4096):
        writer.add(chunk.stored, chunk.keys, chunk.ready)
    writer.finish(dict.fromkeys(hooks, made_by))
"""

SHUFFLE = (
    WRITE
    + """
import sys
write("x.parquet", int(sys.argv[1]))
"""
)

PASS = """
import torch
from actspace.activations import store
store.BUFFER_BYTES = 16 << 20
for batch in store.Activations(["x.parquet"]).batches(1000, 0):
    pass
"""


def peak(folder: Path, code: str, *arguments: int) -> int:
    """Run code in a process of its own; return its peak memory in kilobytes."""
    path = os.pathsep.join([str(TESTS.parent / "workflow"), str(TESTS)])
    # Freed blocks go back at once, or the peak would depend on how the allocator happens to reuse its own.
    environment = os.environ | {"PYTHONPATH": path, "MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "1000000"}
    command = [sys.executable, "-c", code + PEAK.lstrip("; "), *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1])


@pytest.mark.slow
def test_capturing_ten_times_as_much_needs_no_more_memory(tmp_path):
    """The larger corpus has 170 MB of activations."""
    small, large = (peak(tmp_path, CAPTURE, n) for n in (1024, 10 * 1024))
    assert large < 1.1 * small


@pytest.mark.slow
def test_a_shuffled_pass_over_ten_times_as_much_needs_no_more_memory(tmp_path):
    """The larger store has 1 GB."""
    found = []
    for rows in (25 * 4096, 250 * 4096):
        peak(tmp_path, SHUFFLE, rows)
        found.append(peak(tmp_path, PASS))
    assert found[1] < 1.1 * found[0]
