"""Tables: long-format Parquet, one row per measurement, with a CSV beside those that people open."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from actspace import provenance
from actspace.errors import StudyError
from actspace.provenance import MadeBy

ROWS_AT_ONCE = 1024


def write(path: str | Path, table: pd.DataFrame | pa.Table, made_by: MadeBy) -> None:
    """Write a table as Parquet, with its receipt; the record of what made it also stands in the file's metadata."""
    arrow = table if isinstance(table, pa.Table) else pa.Table.from_pandas(table, preserve_index=False)
    described = arrow.replace_schema_metadata({**(arrow.schema.metadata or {}), "actspace": made_by.as_json()})
    provenance.write(
        path,
        lambda temporary: pq.write_table(described, temporary, compression="zstd", write_page_checksum=True),
        made_by,
    )


class Growing:
    """A Parquet file that is written a row group at a time; rows that do not fill one yet wait in memory.

    Used as a context: the file gets its name in `finish`, and what is not finished at the end is removed.

    Parameters
    ----------
    path : the file
    rows_per_group : rows in every row group but the last
    sums : returns something that JSON can hold of a row group; the file's metadata hold the list of them, as `sums`
    options : of `pyarrow.parquet.ParquetWriter`; pages have checksums if they do not say otherwise
    """

    def __init__(
        self, path: str | Path, rows_per_group: int, sums: Callable[[pa.Table], Any] | None = None, **options: Any
    ) -> None:
        self.rows = 0
        self._draft, self._rows_per_group = provenance.Draft(path), rows_per_group
        self._options = {"write_page_checksum": True, **options}
        self._sum, self._sums = sums, list[Any]()
        self._parquet: pq.ParquetWriter | None = None
        self._waiting: list[pa.Table] = []

    def __enter__(self) -> Growing:
        return self

    def __exit__(self, *_: object) -> None:
        self._draft.discard()

    def add(self, part: pa.Table) -> None:
        """Append rows, all of one schema."""
        self.rows += part.num_rows
        self._waiting.append(part)
        waiting = sum(part.num_rows for part in self._waiting)
        if waiting >= self._rows_per_group:
            self._write(waiting - waiting % self._rows_per_group)

    def finish(self, made_by: MadeBy) -> None:
        """Write what waits, record what made the file in its metadata and its receipt, and give it its name; there must be a row."""
        if rest := sum(part.num_rows for part in self._waiting):
            self._write(rest)
        assert self._parquet is not None
        sums = {"sums": json.dumps(self._sums)} if self._sums else {}
        self._parquet.add_key_value_metadata({"actspace": made_by.as_json(), **sums})
        self._parquet.close()
        self._draft.finish(made_by)

    def _write(self, rows: int) -> None:
        waiting = pa.concat_tables(self._waiting)
        if self._parquet is None:
            self._parquet = pq.ParquetWriter(self._draft, waiting.schema, **self._options)
        self._parquet.write_table(waiting.slice(0, rows), row_group_size=self._rows_per_group)
        if self._sum is not None:
            starts = range(0, rows, self._rows_per_group)
            self._sums += [self._sum(waiting.slice(start, min(self._rows_per_group, rows - start))) for start in starts]
        self._waiting = [waiting.slice(rows)]


def write_both(path: str | Path, table: pd.DataFrame, made_by: MadeBy) -> None:
    """Write a table as Parquet and, beside it, as CSV, each with its receipt."""
    write(path, table, made_by)
    csv = Path(path).with_suffix(".csv")
    provenance.write(csv, lambda temporary: table.to_csv(temporary, index=False, lineterminator="\n"), made_by)


def read(path: str | Path) -> pd.DataFrame:
    """Read a table; a damaged file is a StudyError that names the remedy."""
    return read_arrow(path).to_pandas()


def read_arrow(path: str | Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a table, or some of its columns, as Arrow."""
    with _damage(path):
        return pq.read_table(path, columns=columns, page_checksum_verification=True)


def stream(path: str | Path) -> Iterator[pa.Table]:
    """Read a table a thousand rows at a time, so that it is never whole in memory."""
    with _damage(path), pq.ParquetFile(path, page_checksum_verification=True) as file:
        for part in file.iter_batches(ROWS_AT_ONCE):
            yield pa.Table.from_batches([part])


@contextmanager
def _damage(path: str | Path) -> Iterator[None]:
    """Say in one line which file cannot be read, and the remedy."""
    try:
        yield
    except FileNotFoundError:
        raise StudyError(f"{path}: missing; `snakemake --cores all {path}` makes it again") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise StudyError(f"{path}: not a readable Parquet file ({reason}); delete it and run again") from None


def concat(paths: Iterable[str]) -> pd.DataFrame:
    """Read tables of one kind as one; of no tables, an empty one."""
    return joined([read(path) for path in paths])


def joined(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Put tables of one kind under each other; of no tables, an empty one."""
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def take(paths: Iterable[str], numbers: NDArray[np.integer]) -> pa.Table:
    """Read rows by their number in tables of one kind, in the order asked for; no more than these are held."""
    order, start, parts = np.argsort(numbers, kind="stable"), 0, []
    wanted = np.asarray(numbers)[order]
    for part in (part for path in paths for part in stream(path)):
        here = wanted[(wanted >= start) & (wanted < start + part.num_rows)] - start
        parts.append(part.take(here).replace_schema_metadata())
        start += part.num_rows
    return pa.concat_tables(parts).take(np.argsort(order))


def having(paths: Iterable[str], column: str, values: pa.ChunkedArray) -> pa.Table:
    """Read the rows of tables of one kind that have one of some values in a column; no more than these are held."""
    parts = (part for path in paths for part in stream(path))
    kept = [part.filter(pc.is_in(part[column], value_set=values)) for part in parts]
    return pa.concat_tables(part.replace_schema_metadata() for part in kept)


def by_name(paths: Iterable[str]) -> dict[str, pd.DataFrame]:
    """Read tables by the names of their files; CSV files are left to people."""
    return {Path(path).stem: read(path) for path in paths if path.endswith(".parquet")}
