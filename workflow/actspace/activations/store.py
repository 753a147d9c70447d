"""The activation store: one Parquet file per hook, split and shard; one row per token position.

Columns: `sequence_id`, `position`, `document_id`, `token_id`, `norm` (L2, float32) and `activation`, a fixed-size binary of the raw
little-endian vector. A fixed-size list is several times slower to write and read, above all in float16. `dtype` and `d_model` stand in the schema's
metadata, so a file can be read alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from actspace import provenance
from actspace.errors import StudyError
from actspace.provenance import MadeBy

ROWS_PER_GROUP = 8192
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
KEYS = ("sequence_id", "position", "document_id", "token_id", "norm")


@dataclass(frozen=True)
class Rows:
    """Rows of activations in memory: `x` is a float32 Tensor (row, d_model), `keys` a Table of the other columns."""

    x: Tensor
    keys: pa.Table

    def __len__(self) -> int:
        return len(self.x)

    def column(self, name: str) -> np.ndarray:
        """Return one of the other columns, of shape (row,)."""
        return self.keys[name].to_numpy()


def table(
    activations: Tensor, keys: Mapping[str, np.ndarray | pa.Array | pa.ChunkedArray], dtype: str, where: str
) -> pa.Table:
    """Make the Arrow table of some rows.

    Parameters
    ----------
    activations : float Tensor of shape (row, d_model)
    keys : the columns `sequence_id`, `position`, `document_id`, `token_id`
    dtype : stored precision
    where : hook and shard, for the message of an error

    Raises
    ------
    StudyError
        If a value is not finite, or overflows the stored precision.
    """
    stored = activations.to("cpu", DTYPES[dtype]).contiguous()
    # A NaN or infinity makes the norm of its row one too: checking rows is cheaper than checking values.
    norms = torch.linalg.vector_norm(stored, dim=-1, dtype=torch.float32)
    if not bool(torch.isfinite(norms).all()):
        row = int((~torch.isfinite(norms)).nonzero()[0])
        overflow = bool(torch.isfinite(activations[row]).all())
        remedy = (
            f"a value overflows {dtype}; set `storage: bfloat16` or `float32`"
            if overflow
            else "NaN or infinity came out of the model; check `model.dtype`"
        )
        raise StudyError(f"{where}: row {row}: {remedy}")
    d_model = stored.shape[1]
    raw = pa.py_buffer(stored.view(torch.uint8).numpy())
    binary = pa.FixedSizeBinaryArray.from_buffers(pa.binary(stored.element_size() * d_model), len(stored), [None, raw])
    columns = {**keys, "norm": norms.numpy(), "activation": binary}
    metadata = {"dtype": dtype, "d_model": str(d_model), "byte_order": "little"}
    return pa.table({name: columns[name] for name in (*KEYS, "activation")}, metadata=metadata)


def write(path: str | Path, rows: pa.Table, made_by: MadeBy) -> None:
    """Write activations, with their receipt; the record of what made them also stands in the file's metadata."""
    described = rows.replace_schema_metadata({**rows.schema.metadata, "actspace": made_by.as_json()})
    # Activations do not compress, and a dictionary of them would cost time for nothing.
    options = {
        "compression": "none",
        "row_group_size": ROWS_PER_GROUP,
        "use_dictionary": ["document_id"],
        "write_statistics": list(KEYS),
    }
    provenance.write(path, lambda temporary: pq.write_table(described, temporary, **options), made_by)


def read(paths: Sequence[str | Path], *, first_position: int = 0, max_norm: float | None = None) -> Rows:
    """Read the activations of one hook from its shards, in token order.

    Parameters
    ----------
    paths : the shards of one hook and split
    first_position : leave out earlier positions
    max_norm : leave out rows whose L2 norm exceeds it

    Raises
    ------
    StudyError
        If a file is not of this format.
    """
    parts = [_read_shard(path, first_position, max_norm) for path in paths]
    return Rows(torch.cat([part.x for part in parts]), pa.concat_tables([part.keys for part in parts]))


def norms(paths: Sequence[str | Path], first_position: int = 0) -> np.ndarray:
    """Read the L2 norms of all rows from `first_position` on; no activation is touched."""
    parts = [_read_parquet(path, columns=["norm", "position"]) for path in paths]
    return np.concatenate([part["norm"].to_numpy()[part["position"].to_numpy() >= first_position] for part in parts])


def vectors(column: pa.ChunkedArray, dtype: str, d_model: int) -> Tensor:
    """View a binary column as a Tensor of shape (row, d_model) of its stored dtype; one chunk is not copied.

    A chunk may be a slice of a longer buffer, so its offset counts.
    """
    # A Tensor of numpy memory that is read-only draws a warning; frombuffer on a memoryview of Arrow's buffer too. Nothing here writes to it.
    parts = [torch.empty((0, d_model), dtype=DTYPES[dtype])]
    for chunk in column.chunks:
        if len(chunk):
            start = chunk.offset * DTYPES[dtype].itemsize * d_model
            flat = torch.frombuffer(chunk.buffers()[1], dtype=DTYPES[dtype], count=len(chunk) * d_model, offset=start)
            parts.append(flat.view(-1, d_model))
    return parts[1] if len(parts) == 2 else torch.cat(parts)


def _read_parquet(path: str | Path, columns: Sequence[str] = (*KEYS, "activation")) -> pa.Table:
    """Read columns of an activation file; what is none, or is damaged, is a StudyError that names the remedy."""
    try:
        rows = pq.read_table(path, columns=list(columns))
        found = {*rows.column_names, *map(bytes.decode, rows.schema.metadata or {})}
    except (pa.ArrowException, OSError, ValueError) as error:
        raise StudyError(
            f"{path}: not an activation file ({(str(error) or type(error).__name__).splitlines()[0]}); delete it and run again"
        ) from None
    if absent := [name for name in (*columns, "dtype", "d_model") if name not in found]:
        raise StudyError(f"{path}: not an activation file (it has no {', '.join(absent)}); delete it and run again")
    return rows


def _read_shard(path: str | Path, first_position: int, max_norm: float | None) -> Rows:
    rows = _read_parquet(path)
    dtype, d_model = rows.schema.metadata[b"dtype"].decode(), int(rows.schema.metadata[b"d_model"])
    keep = rows["position"].to_numpy() >= first_position
    if max_norm is not None:
        keep &= rows["norm"].to_numpy() <= max_norm
    x = vectors(rows["activation"], dtype, d_model)[torch.from_numpy(keep)].float()
    return Rows(x, rows.select(KEYS).filter(pa.array(keep)))
