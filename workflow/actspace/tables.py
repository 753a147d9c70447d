"""Tables: long-format Parquet, one row per measurement, with a CSV beside those that people open."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from actspace import provenance
from actspace.errors import StudyError
from actspace.provenance import MadeBy


def write(path: str | Path, table: pd.DataFrame | pa.Table, made_by: MadeBy) -> None:
    """Write a table as Parquet, with its receipt; the record of what made it also stands in the file's metadata."""
    arrow = table if isinstance(table, pa.Table) else pa.Table.from_pandas(table, preserve_index=False)
    described = arrow.replace_schema_metadata({**(arrow.schema.metadata or {}), "actspace": made_by.as_json()})
    provenance.write(path, lambda temporary: pq.write_table(described, temporary, compression="zstd"), made_by)


def write_both(path: str | Path, table: pd.DataFrame, made_by: MadeBy) -> None:
    """Write a table as Parquet and, beside it, as CSV, each with its receipt."""
    write(path, table, made_by)
    csv = Path(path).with_suffix(".csv")
    provenance.write(csv, lambda temporary: table.to_csv(temporary, index=False, lineterminator="\n"), made_by)


def read(path: str | Path) -> pd.DataFrame:
    """Read a table; a damaged file is a StudyError that names the remedy."""
    return read_arrow(path).to_pandas()


def read_arrow(path: str | Path) -> pa.Table:
    """Read a table as Arrow."""
    try:
        return pq.read_table(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise StudyError(
            f"{path}: not a readable Parquet file ({(str(error) or type(error).__name__).splitlines()[0]}); delete it and run again"
        ) from None


def concat(paths: Iterable[str]) -> pd.DataFrame:
    """Read tables of one kind as one; of no tables, an empty one."""
    return joined([read(path) for path in paths])


def joined(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Put tables of one kind under each other; of no tables, an empty one."""
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def concat_arrow(paths: Iterable[str]) -> pa.Table:
    """Read tables of one kind as one Arrow table; their own metadata is left out."""
    return pa.concat_tables([read_arrow(path).replace_schema_metadata() for path in paths])


def by_name(paths: Iterable[str]) -> dict[str, pd.DataFrame]:
    """Read tables by the names of their files; CSV files are left to people."""
    return {Path(path).stem: read(path) for path in paths if path.endswith(".parquet")}
