from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actspace import provenance, tables
from actspace.errors import StudyError
from actspace.provenance import MadeBy

MADE_BY = MadeBy("small", "rule", {"a": 1}, "c0de", {})
TABLE = pd.DataFrame({"metric": ["l0", "fvu"], "value": [1.5, np.nan], "kl_nats": [np.inf, 0.1], "n_rows": [3, 2**40]})


def test_a_table_comes_back_as_it_was(tmp_path):
    tables.write(tmp_path / "t.parquet", TABLE, MADE_BY)
    pd.testing.assert_frame_equal(tables.read(tmp_path / "t.parquet"), TABLE)


def test_an_arrow_table_comes_back_with_its_types(tmp_path):
    table = pa.table(
        {"token_ids": pa.array([[1, 2], [3]], pa.list_(pa.int32())), "window": pa.array([0, 1], pa.int32())}
    )
    tables.write(tmp_path / "t.parquet", table, MADE_BY)
    assert tables.read_arrow(tmp_path / "t.parquet").equals(table)


def test_the_file_itself_says_what_made_it(tmp_path):
    tables.write(tmp_path / "t.parquet", TABLE, MADE_BY)
    inside = json.loads(pq.read_schema(tmp_path / "t.parquet").metadata[b"actspace"])
    receipt = provenance.read_receipt(tmp_path / "t.parquet.json")
    assert inside == {key: receipt[key] for key in inside}
    assert inside["rule"] == "rule"


def test_metadata_that_a_table_had_is_kept(tmp_path):
    tables.write(tmp_path / "t.parquet", pa.table({"a": [1]}, metadata={"unit": "nats"}), MADE_BY)
    assert pq.read_schema(tmp_path / "t.parquet").metadata[b"unit"] == b"nats"


def test_two_equal_writes_give_equal_bytes(tmp_path):
    for name in ("one", "two"):
        tables.write_both(tmp_path / name / "t.parquet", TABLE.copy(), MADE_BY)
    files = ["t.csv", "t.csv.json", "t.parquet", "t.parquet.json"]
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == files
    assert [(tmp_path / "one" / f).read_bytes() for f in files] == [(tmp_path / "two" / f).read_bytes() for f in files]


def test_the_csv_holds_the_same_numbers(tmp_path):
    tables.write_both(tmp_path / "blocks.1.parquet", TABLE, MADE_BY)
    assert (tmp_path / "blocks.1.csv").read_bytes().startswith(b"metric,value,kl_nats,n_rows\nl0,1.5,inf,3\n")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "blocks.1.csv"), TABLE, check_dtype=False)


@pytest.mark.parametrize("damage", [lambda b: b[:-30], lambda b: b"", lambda b: b"PAR1" * 9, lambda b: b[:4] + b[40:]])
def test_a_damaged_file_is_one_line_with_the_remedy(tmp_path, damage):
    path = tmp_path / "t.parquet"
    tables.write(path, TABLE, MADE_BY)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(
        StudyError, match=r"\A\S+t.parquet: not a readable Parquet file \(.+\); delete it and run again\Z"
    ):
        tables.read(path)


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(
        StudyError, match=r"\A\S+t.parquet: missing; `snakemake --cores all \S+t.parquet` makes it again$"
    ):
        tables.read_arrow(tmp_path / "t.parquet")


def write_parts(folder: Path) -> list[str]:
    paths = [str(folder / f"{name}.parquet") for name in "ab"]
    for path, part in zip(paths, (TABLE[:1], TABLE[1:]), strict=True):
        tables.write(path, part, MADE_BY.adding(path=path))
    return paths


def test_parts_are_read_in_the_order_they_are_named(tmp_path):
    paths = write_parts(tmp_path)
    pd.testing.assert_frame_equal(tables.concat(paths), TABLE)
    assert tables.concat(paths[::-1])["metric"].tolist() == ["fvu", "l0"]


def test_no_parts_are_an_empty_table():
    assert tables.concat([]).empty


def test_tables_go_by_the_names_of_their_files(tmp_path):
    paths = write_parts(tmp_path)
    found = tables.by_name([*paths, str(tmp_path / "a.csv")])
    assert list(found) == ["a", "b"]
    assert found["b"]["metric"].tolist() == ["fvu"]


def test_rows_are_taken_by_their_number_over_all_files_in_the_order_asked_for(tmp_path):
    paths = write_parts(tmp_path)
    numbers = np.array([1, 0, 1])
    found = tables.take(paths, numbers)
    assert found.schema.metadata is None
    assert found["metric"].to_pylist() == ["fvu", "l0", "fvu"]


def test_rows_that_have_a_value_are_found_in_all_files(tmp_path):
    paths = write_parts(tmp_path)
    found = tables.having(paths, "metric", pa.chunked_array([["fvu", "other"]]))
    assert found["metric"].to_pylist() == ["fvu"]
