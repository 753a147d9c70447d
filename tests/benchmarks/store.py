"""Writing and shuffled reading of activations: our store, the fixed-size-list layout, and a raw file.

Rows are 768 wide, float16, and written as the capture does: in chunks, checked, hashed, with a receipt. Reading is one seeded, shuffled pass in
one thread. The ways take turns, so that a busy machine slows all of them. Files go to memory where the system offers it as a folder, so that the
rates are those of the format; `--folder` puts them on a disk, whose own rate `write_raw_gb_s` tells. The last line is one JSON object."""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from shared import disk_of

sys.path.insert(0, str(Path(__file__).parents[2] / "workflow"))

from actspace import provenance
from actspace.activations import store
from actspace.provenance import MadeBy

D_MODEL, CHUNK, BATCH = 768, 8192, 4096
MADE_BY = MadeBy("benchmark", "store", {}, "", {})
MEMORY = Path("/dev/shm")


def keys_of(first: int, rows: int) -> dict[str, np.ndarray | pa.Array]:
    number = np.arange(first, first + rows)
    documents = pa.array((number // 1024).astype(str))
    return {
        "sequence_id": number // 128,
        "position": (number % 128).astype(np.int32),
        "document_id": documents,
        "token_id": (number % 50_000).astype(np.int32),
    }


def write_store(path: Path, x: torch.Tensor, keys: list[dict[str, np.ndarray | pa.Array]]) -> None:
    with store.Writer({"": path}) as writer:
        for part, columns in zip(x.split(CHUNK), keys, strict=True):
            writer.add({"": store.to_stored(part, "float16")}, columns)
        writer.finish({"": MADE_BY})


class NoHash:
    """Stands in for SHA-256, to see what hashing costs."""

    def update(self, _data: object) -> None:
        pass

    def hexdigest(self) -> str:
        return ""


def write_unhashed(path: Path, x: torch.Tensor, keys: list[dict[str, np.ndarray | pa.Array]]) -> None:
    with mock.patch.object(provenance.hashlib, "sha256", NoHash):
        write_store(path, x, keys)


def write_list(path: Path, x: torch.Tensor) -> None:
    rows = pa.FixedSizeListArray.from_arrays(pa.array(x.numpy().ravel()), D_MODEL)
    pq.write_table(
        pa.table({"activation": rows}),
        path,
        compression="none",
        use_dictionary=False,
        row_group_size=store.ROWS_PER_GROUP,
    )


def read_store(path: Path) -> None:
    for _batch in store.Activations([path]).batches(BATCH, seed=0, workers=0):
        pass


def read_list(path: Path) -> None:
    table = pq.read_table(path, use_threads=False, memory_map=True)
    table["activation"].combine_chunks().flatten().to_numpy().reshape(-1, D_MODEL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="ignored: the store is on the CPU")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--folder", type=Path, default=MEMORY if MEMORY.is_dir() else Path(tempfile.gettempdir()))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows, rounds = (100_000, 3) if arguments.quick else (500_000, 5)
    x = torch.randn(rows, D_MODEL, generator=torch.Generator().manual_seed(0)).half()
    keys = [keys_of(first, len(part)) for first, part in zip(range(0, rows, CHUNK), x.split(CHUNK), strict=True)]
    gigabytes = rows * D_MODEL * 2 / 1e9
    folder = Path(tempfile.mkdtemp(dir=arguments.folder))
    try:
        ours, lists, raw = folder / "ours.parquet", folder / "lists.parquet", folder / "raw.bin"
        ways: dict[str, Callable[[], object]] = {
            "write_raw_gb_s": lambda: x.numpy().tofile(raw),
            "hash_gb_s": lambda: hashlib.sha256(x.numpy()).digest(),
            "write_without_hash_gb_s": lambda: write_unhashed(folder / "unhashed.parquet", x, keys),
            "write_fixed_size_list_gb_s": lambda: write_list(lists, x[: rows // 10]),
            "read_fixed_size_list_gb_s": lambda: read_list(lists),
            "write_gb_s": lambda: write_store(ours, x, keys),
            "stream_gb_s": lambda: read_store(ours),
        }
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, work in ways.items():
                if name.startswith(
                    "write"
                ):  # into new files, as a capture does: replacing one makes the file system flush
                    for file in folder.iterdir():
                        file.unlink()
                started = time.perf_counter()
                work()
                share = 0.1 if "list" in name else 1
                rates[name].append(share * gigabytes / (time.perf_counter() - started))
        found = {name: round(statistics.median(values), 3) for name, values in rates.items()}
        spread = {name: [round(min(values), 3), round(max(values), 3)] for name, values in rates.items()}
        stored = store.read([ours]).x.half()
        shuffled = torch.cat([*store.Activations([ours]).batches(BATCH, seed=0)])
        same = torch.equal(stored, x) and torch.equal(shuffled.float().sum(1).sort()[0], x.float().sum(1).sort()[0])
    finally:
        shutil.rmtree(folder)
    print(
        json.dumps(
            {
                "benchmark": "store",
                "device": "cpu",
                "disk": disk_of(arguments.folder),
                "ratios": {
                    "over_fixed_size_list_write": round(found["write_gb_s"] / found["write_fixed_size_list_gb_s"], 2)
                },
                "rates": found,
                "best": {name: round(max(values), 3) for name, values in rates.items()},
                "spread": spread,
                "exactness": {"rows_identical": bool(same)},
                "rows": rows,
            }
        )
    )


if __name__ == "__main__":
    main()
