"""The activation store: one Parquet file per hook, split and shard; one row per token position.

Columns: `sequence_id`, `position`, `document_id`, `token_id`, `norm` (L2, float32) and `activation`, a fixed-size binary of the raw
little-endian vector. A fixed-size list is several times slower to write and read, above all in float16. `dtype` and `d_model` stand in the schema's
metadata, so a file can be read alone; so do sums of every row group and column. Checksums of pages, which Parquet has, take a third off the speed
of reading and writing, XXH3 nothing that can be measured."""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import xxhash
from torch import Tensor

from actspace import provenance, shards, tables
from actspace.errors import StudyError
from actspace.provenance import MadeBy
from actspace.threads import ahead

ROWS_PER_GROUP = 4096
# Activations do not compress, and a dictionary of them would cost time for nothing.
OPTIONS = {
    "compression": "none",
    "write_page_checksum": False,
    "use_dictionary": ["document_id"],
    "write_statistics": ["sequence_id", "position", "token_id", "norm"],
}
BUFFER_BYTES = 128 << 20
BLOCK_BYTES = 256 << 20
HELD_BYTES = 1 << 30
"""Bytes of the rows, in float32, that a stage holds at most where it needs some of them and not each."""
NUMBERED_ROWS = 1 << 24
"""Rows at most of which a number each is held: a norm for their median, a place for a sample."""
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
KEY_TYPES = {
    "sequence_id": pa.int64(),
    "position": pa.int32(),
    "document_id": pa.string(),
    "token_id": pa.int32(),
    "norm": pa.float32(),
}
KEYS = tuple(KEY_TYPES)

Columns = Mapping[str, np.ndarray | pa.Array | pa.ChunkedArray]


# --- writing ---------------------------------------------------------------------------------------------------------------------------------


class Stored(NamedTuple):
    """Rows in the precision they are stored in: `x` (row, d_model), their L2 `norms` (row,) in float32, and whether each was `finite` before."""

    x: Tensor
    norms: Tensor
    finite: Tensor


def to_stored(activations: Tensor, dtype: str) -> Stored:
    """Round rows (row, d_model) to the stored precision, on the device they are on.

    A NaN or infinity makes the norm of its row one too, so checking rows later is enough.
    """
    x = activations.to(DTYPES[dtype]).contiguous()
    norms = _norms(x)
    return Stored(x, norms, torch.isfinite(norms if x.dtype == activations.dtype else _norms(activations)))


def _norms(x: Tensor) -> Tensor:
    """Return the L2 norms of rows in float32."""
    if x.device.type != "cpu":
        return torch.linalg.vector_norm(x, dim=-1, dtype=torch.float32)
    # Rows of halves are twenty times as fast in float32, a few at a time in memory that stays in the cache.
    norms, few = torch.empty(len(x)), torch.empty((256, x.shape[1]))
    for first in range(0, len(x), 256):
        part = x[first : first + 256]
        torch.linalg.vector_norm(few[: len(part)].copy_(part), dim=-1, out=norms[first : first + 256])
    return norms


def table(stored: Stored, keys: Columns, where: str, first_row: int = 0) -> pa.Table:
    """Make the Arrow table of some rows; the activations are not copied.

    Parameters
    ----------
    stored : rows on the CPU
    keys : the columns `sequence_id`, `position`, `document_id`, `token_id`
    where : hook and shard, for the message of an error
    first_row : number of the first row in its file, for the same message

    Raises
    ------
    StudyError
        If a value is not finite, or overflowed the stored precision.
    """
    x, norms, finite = stored
    dtype = str(x.dtype).removeprefix("torch.")
    if not bool(torch.isfinite(norms).all()):
        row = int((~torch.isfinite(norms)).nonzero()[0])
        remedy = (
            f"a value overflows {dtype}; set `storage: bfloat16` or `float32`"
            if bool(finite[row])
            else "NaN or infinity came out of the model; check `model.dtype`"
        )
        raise StudyError(f"{where}: row {first_row + row}: {remedy}")
    width = x.element_size() * x.shape[1]
    raw = pa.py_buffer(x.view(torch.uint8).numpy())
    binary = pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(x), [None, raw])
    columns = {**keys, "norm": norms.numpy(), "activation": binary}
    schema = _schema(dtype, x.shape[1])
    return pa.table([columns[name] for name in schema.names], schema=schema)


def _schema(dtype: str, d_model: int) -> pa.Schema:
    activation = pa.field("activation", pa.binary(DTYPES[dtype].itemsize * d_model))
    metadata = {"dtype": dtype, "d_model": str(d_model), "byte_order": "little"}
    return pa.schema([*KEY_TYPES.items(), activation], metadata=metadata)


def sums(rows: pa.Table) -> dict[str, str]:
    """Return the XXH3 sum of every column of a row group, in hex, of the values as they are in memory."""
    return {name: _sum(rows[name]) for name in rows.schema.names}


def _sum(column: pa.ChunkedArray) -> str:
    state = xxhash.xxh3_64()
    for chunk in column.chunks:
        state.update(_bytes(chunk))
    return str(state.hexdigest())


def _bytes(chunk: pa.Array) -> bytes | memoryview:
    if pa.types.is_string(chunk.type):
        return "".join(f"{text}\0" for text in chunk.to_pylist()).encode()
    width = chunk.type.bit_width // 8
    return memoryview(chunk.buffers()[1])[chunk.offset * width : (chunk.offset + len(chunk)) * width]


class Writer:
    """Writes the files of one shard, one for each hook, each in a thread of its own, while the caller computes what comes next.

    Used as a context: files get their names in `finish`, all of them, and what is not finished at the end is removed.

    Parameters
    ----------
    paths : file of each hook
    """

    WAITING = 2  # chunks at most that are in memory beside the one in the making

    def __init__(self, paths: Mapping[str, str | Path]) -> None:
        self._files = {hook: tables.Growing(path, ROWS_PER_GROUP, sums, **OPTIONS) for hook, path in paths.items()}
        self._where = {hook: f"captures: {Path(path).parent.name}: {Path(path).stem}" for hook, path in paths.items()}
        self._threads = {hook: ThreadPoolExecutor(1) for hook in paths}
        self._chunks: deque[list[Future[None]]] = deque()

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for thread in self._threads.values():
            thread.shutdown(cancel_futures=True)
        for file in self._files.values():
            file.__exit__(kind, error, trace)

    def add(self, stored: Mapping[str, Stored], keys: Columns, ready: Callable[[], None] = lambda: None) -> None:
        """Append rows to every file; returns at once unless two chunks wait already.

        Parameters
        ----------
        stored : rows of every hook, on the CPU
        keys : their columns, as for `table`
        ready : returns when the rows have arrived on the CPU

        Raises
        ------
        StudyError
            If earlier rows were not finite, or did not fit on the disk.
        """

        def append(hook: str, rows: Stored) -> None:
            ready()
            self._files[hook].add(table(rows, keys, self._where[hook], self._files[hook].rows))

        while len(self._chunks) >= self.WAITING:
            self._wait()
        self._chunks.append([self._threads[hook].submit(append, hook, rows) for hook, rows in stored.items()])

    def finish(self, made_by: Mapping[str, MadeBy]) -> None:
        """Complete the files, each with the record of what made it, and give them their names."""
        while self._chunks:
            self._wait()
        for hook, file in self._files.items():
            file.finish(made_by[hook])

    def _wait(self) -> None:
        for written in self._chunks.popleft():
            written.result()


def write(path: str | Path, activations: Tensor, keys: Columns, dtype: str, made_by: MadeBy) -> None:
    """Write rows (row, d_model) that are in memory as one file, with its receipt; the record of what made them also stands in its metadata."""
    with Writer({"": path}) as writer:
        writer.add({"": to_stored(activations.cpu(), dtype)}, keys)
        writer.finish({"": made_by})


# --- reading ---------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rows:
    """Rows of activations in memory: `x` is a Tensor (row, d_model), `keys` a Table of the other columns."""

    x: Tensor
    keys: pa.Table

    def __len__(self) -> int:
        return len(self.x)

    def column(self, name: str) -> np.ndarray:
        """Return one of the other columns, of shape (row,)."""
        return self.keys[name].to_numpy()


class _Group(NamedTuple):
    """A row group: its file, its number there, its number of rows, and how many rows of all files stand before it."""

    path: str
    number: int
    rows: int
    start: int


@dataclass(frozen=True)
class Activations:
    """Cached activations of one hook and split, and which of their rows to use. Nothing is read before it is asked for.

    Parameters
    ----------
    paths : the shards, or the list of them
    first_position : leave out earlier positions
    positions : use these positions alone; None for all
    without_tokens : leave out rows of these tokens, special ones for example
    max_norm : leave out rows whose L2 norm exceeds it; None for no limit
    every : use every so many row groups
    """

    paths: Sequence[str | Path]
    first_position: int = 0
    positions: Sequence[int] | None = None
    without_tokens: Sequence[int] = ()
    max_norm: float | None = None
    every: int = 1

    @classmethod
    def of_study(cls, study: str | Path, capture: str, hook: str, split: str = "train", **select: Any) -> Activations:
        """Open the shards of a hook in a study's folder.

        Raises
        ------
        StudyError
            If there are none.
        """
        folder = Path(study, "activations", capture)
        paths = sorted((folder / hook).glob(f"{split}-*.parquet"), key=lambda path: (len(path.name), path.name))
        if paths:  # 999 before 1000
            return cls(paths, **select)
        there = sorted("/".join(path.parts[-2:]) for path in folder.glob("*/*.parquet"))
        raise StudyError(f"{folder / hook}: no file {split}-*.parquet; there are: {', '.join(there) or 'none'}")

    def without_outliers(self, multiple: float) -> Activations:
        """Return the same rows but those whose norm exceeds a multiple of their median norm; of very many, the median of a part is taken."""
        return replace(self, max_norm=float(np.median(self.thinned(NUMBERED_ROWS).norms())) * multiple)

    def thinned(self, rows: int) -> Activations:
        """Return evenly spread row groups, of about so many rows at most; all where there are no more."""
        return replace(self, every=self.every * max(1, -(-self.count() // rows)))

    @cached_property
    def _metadata(self) -> dict[str, pq.FileMetaData]:
        found = {}
        for path in shards.expand(self.paths):
            with _damage(path):
                found[path] = pq.read_metadata(path)
            known = {*found[path].schema.names, *map(bytes.decode, found[path].metadata or {})}
            if absent := [name for name in (*KEYS, "activation", "dtype", "d_model", "sums") if name not in known]:
                raise StudyError(
                    f"{path}: not an activation file (it has no {', '.join(absent)}); delete it and run again"
                )
        return found

    @cached_property
    def _sums(self) -> dict[str, list[dict[str, str]]]:
        return {path: json.loads(metadata.metadata[b"sums"]) for path, metadata in self._metadata.items()}

    @cached_property
    def _groups(self) -> list[_Group]:
        groups, start = [], 0
        for path, metadata in self._metadata.items():
            for number in range(metadata.num_row_groups):
                rows = metadata.row_group(number).num_rows
                groups.append(_Group(path, number, rows, start))
                start += rows
        return groups[:: self.every]

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return int(next(iter(self._metadata.values())).metadata[b"d_model"])

    @property
    def dtype(self) -> str:
        """Stored precision."""
        return next(iter(self._metadata.values())).metadata[b"dtype"].decode()

    def _load(self, group: _Group, columns: Sequence[str]) -> pa.Table:
        """Read columns of a row group, and compare them with their sums; safe in any thread."""
        metadata = self._metadata[group.path]
        with _damage(group.path), pq.ParquetFile(group.path, metadata=metadata, memory_map=True) as f:
            found = f.read_row_group(group.number, columns=list(columns), use_threads=False)
        written = self._sums[group.path][group.number]
        if damaged := [name for name in columns if _sum(found[name]) != written[name]]:
            raise StudyError(
                f"{group.path}: row group {group.number}: {', '.join(damaged)}: not what was written; {provenance.DAMAGED}"
            )
        return found

    def _kept(self, keys: pa.Table) -> Tensor | None:
        """Say which rows are used, by number; None if all are."""
        keep = []
        if self.first_position:
            keep.append(keys["position"].to_numpy() >= self.first_position)
        if self.positions is not None:
            keep.append(np.isin(keys["position"].to_numpy(), self.positions))
        if len(self.without_tokens):
            keep.append(~np.isin(keys["token_id"].to_numpy(), self.without_tokens))
        if self.max_norm is not None:
            keep.append(keys["norm"].to_numpy() <= self.max_norm)
        chosen = np.logical_and.reduce(keep) if keep else np.array(True)
        return None if chosen.all() else torch.from_numpy(np.flatnonzero(chosen))

    @property
    def _needed(self) -> list[str]:
        """Columns that decide which rows are used."""
        needed = {
            "position": self.first_position > 0 or self.positions is not None,
            "token_id": len(self.without_tokens) > 0,
            "norm": self.max_norm is not None,
        }
        return [name for name, wanted in needed.items() if wanted]

    def keys(self, *names: str) -> pa.Table:
        """Read columns of the used rows, in token order; no activation is touched."""
        return pa.concat_tables(self.key_groups(*names)).replace_schema_metadata()

    def key_groups(self, *names: str) -> Iterator[pa.Table]:
        """Read columns of the used rows, in token order, a row group at a time."""
        for group in self._groups:
            found = self._load(group, sorted({*names, *self._needed}))
            kept = self._kept(found)
            yield (found if kept is None else found.take(kept.numpy())).select(names)

    def count(self) -> int:
        """Count the used rows."""
        if not self._needed:
            return sum(group.rows for group in self._groups)
        return sum(part.num_rows for part in self.key_groups("position"))

    def norms(self) -> np.ndarray:
        """Read the L2 norms of the used rows, float32 of shape (row,)."""
        return self.keys("norm")["norm"].to_numpy()

    def groups(self) -> Iterator[Rows]:
        """Read the used rows in token order, a row group at a time, in the stored precision; if all are used, `x` is not copied."""
        for group in self._groups:
            yield self._rows(group)

    def blocks(self) -> Iterator[Rows]:
        """Read the used rows in token order, in float32, as many row groups at once as take 256 MiB, and at least one."""
        parts: list[Rows] = []
        for part in self.groups():
            if parts and 4 * self.d_model * sum(map(len, [*parts, part])) > BLOCK_BYTES:
                yield _joined(parts)
                parts = []
            parts.append(Rows(part.x.float(), part.keys))
        if parts:
            yield _joined(parts)

    def read(self) -> Rows:
        """Read all used rows, in token order, in float32."""
        return _joined([Rows(part.x.float(), part.keys) for part in self.groups()])

    def pick(self, numbers: np.ndarray) -> Rows:
        """Read rows by their number among the used ones, in the order asked for and in float32."""
        order, start, parts = np.argsort(numbers, kind="stable"), 0, []
        wanted = np.asarray(numbers)[order]
        for rows in self.groups():
            here = wanted[(wanted >= start) & (wanted < start + len(rows))] - start
            parts.append(Rows(rows.x[torch.from_numpy(here)].float(), rows.keys.take(pa.array(here))))
            start += len(rows)
        return _taken(_joined(parts), np.argsort(order))

    def take(self, numbers: np.ndarray) -> Rows:
        """Read rows by their number in the files, used or not, in the order asked for and in the stored precision."""
        starts = np.array([group.start for group in self._groups])
        place = np.searchsorted(starts, numbers, side="right") - 1
        order = np.argsort(place, kind="stable")
        every = replace(self, first_position=0, positions=None, without_tokens=(), max_norm=None)
        parts = []
        for number in np.unique(place):
            group, wanted = self._groups[number], np.asarray(numbers)[order][place[order] == number]
            rows = every._rows(group)
            parts.append(
                Rows(rows.x[torch.from_numpy(wanted - group.start)], rows.keys.take(pa.array(wanted - group.start)))
            )
        return _taken(_joined(parts), np.argsort(order))

    def sample(self, n: int, rng: np.random.Generator) -> Rows:
        """Draw `n` different used rows (all of them if there are fewer), in random order; of very many, from a part of the row groups."""
        numbers, some = [], self.thinned(max(n, NUMBERED_ROWS))
        for group in some._groups:
            kept = some._kept(some._load(group, some._needed)) if some._needed else None
            numbers.append(group.start + (np.arange(group.rows) if kept is None else kept.numpy()))
        used = np.concatenate(numbers)
        return self.take(rng.permutation(used)[:n])

    def batches(self, size: int, seed: int, workers: int = 1) -> Iterator[Tensor]:
        """Read the used rows in random order, in batches (size, d_model) of the stored precision; the last may be smaller.

        Row groups come in random order, and those that fill a buffer of 128 MiB are mixed row by row. The order depends on the seed and the
        files alone, not on the size of the batches or the number of workers; memory is that of `workers` + 2 buffers.

        Parameters
        ----------
        size : rows per batch
        seed : of the order
        workers : threads that read ahead; 0 reads when asked
        """
        mixed = max(2, BUFFER_BYTES // (ROWS_PER_GROUP * self.d_model * DTYPES[self.dtype].itemsize))
        order = np.random.default_rng(seed).permutation(len(self._groups))
        buffers = [order[first : first + mixed] for first in range(0, len(order), mixed)]
        seeds = np.random.SeedSequence(seed).spawn(len(buffers))
        rest = torch.empty((0, self.d_model), dtype=DTYPES[self.dtype])
        for rows in ahead(self._mixed, [*zip(buffers, seeds, strict=True)], workers):
            start = 0
            if len(rest):
                start = size - len(rest)
                rest = torch.cat([rest, rows[:start]])
                if len(rest) < size:
                    continue
                yield rest
            n = start + (len(rows) - start) // size * size
            yield from rows[start:n].split(size) if n > start else ()
            rest = rows[n:].clone()  # not a view, which would keep the buffer
        if len(rest):
            yield rest

    def _mixed(self, groups: np.ndarray, seed: np.random.SeedSequence) -> Tensor:
        """Read row groups into one Tensor, every row to a random place."""
        parts = [self._rows(self._groups[group]).x for group in groups]
        places = torch.from_numpy(np.random.default_rng(seed).permutation(sum(map(len, parts))))
        mixed = torch.empty((len(places), self.d_model), dtype=DTYPES[self.dtype])
        for part, place in zip(parts, places.split([len(part) for part in parts]), strict=True):
            _words(mixed).index_copy_(0, place, _words(part))
        return mixed

    def _rows(self, group: _Group) -> Rows:
        found = self._load(group, [*KEYS, "activation"])
        x = vectors(found["activation"], self.dtype, self.d_model)
        keys, kept = found.select(KEYS).replace_schema_metadata(), self._kept(found)
        return Rows(x, keys) if kept is None else Rows(x[kept], keys.take(kept.numpy()))


def read(paths: Sequence[str | Path], **select: Any) -> Rows:
    """Read activations of one hook from its shards, in token order, in float32; `select` as in `Activations`."""
    return Activations(paths, **select).read()


def read_some(paths: Sequence[str | Path], **select: Any) -> Rows:
    """As `read`, where any rows will do: of more than 1 GiB, row groups evenly spread over the shards."""
    rows = Activations(paths, **select)
    some = rows.thinned(HELD_BYTES // (4 * rows.d_model))
    if some.every > 1:
        logging.info("%s: one row group in %d is read", paths[0], some.every)
    return some.read()


def _joined(parts: Sequence[Rows]) -> Rows:
    return Rows(torch.cat([part.x for part in parts]), pa.concat_tables([part.keys for part in parts]))


def _taken(rows: Rows, places: np.ndarray) -> Rows:
    return Rows(rows.x[torch.from_numpy(places)], rows.keys.take(pa.array(places)))


def vectors(column: pa.ChunkedArray, dtype: str, d_model: int) -> Tensor:
    """View a binary column as a Tensor of shape (row, d_model) of its stored dtype; one chunk is not copied.

    A chunk may be a slice of a longer buffer, so its offset counts.
    """
    parts = [torch.empty((0, d_model), dtype=DTYPES[dtype])]
    for chunk in column.chunks:
        if len(chunk):
            start = chunk.offset * DTYPES[dtype].itemsize * d_model
            flat = torch.frombuffer(chunk.buffers()[1], dtype=DTYPES[dtype], count=len(chunk) * d_model, offset=start)
            parts.append(flat.view(-1, d_model))
    return parts[1] if len(parts) == 2 else torch.cat(parts)


def _words(x: Tensor) -> Tensor:
    """View rows as eight-byte words if they consist of such: rows of halves are then moved several times as fast."""
    return x.view(torch.int64) if x.shape[1] * x.element_size() % 8 == 0 else x


@contextmanager
def _damage(path: str | Path) -> Iterator[None]:
    """Say in one line which file cannot be read, and the remedy."""
    try:
        yield
    except FileNotFoundError:
        raise StudyError(f"{path}: missing; `snakemake --cores all {path}` makes it again") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise StudyError(f"{path}: not an activation file ({reason}); delete it and run again") from None
