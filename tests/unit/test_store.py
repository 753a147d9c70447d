from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from actspace.activations import store
from actspace.errors import StudyError
from actspace.provenance import MadeBy

MADE_BY = MadeBy("small", "activations", {"a": 1}, "c0de", {})
D_MODEL, LENGTH, SEQUENCES = 6, 4, 5
N = LENGTH * SEQUENCES
DTYPES = ["float32", "float16", "bfloat16"]

# What a reader without actspace writes: three lines, with numpy alone besides the reader itself.
WITH_PANDAS = """
rows, about = pd.read_parquet(path), pq.read_schema(path).metadata
x = np.frombuffer(b"".join(rows["activation"]), "<f4" if about[b"dtype"] == b"float32" else "<f2")
x = x.reshape(-1, int(about[b"d_model"]))
"""
WITH_POLARS = """
rows, about = pl.read_parquet(path), pl.read_parquet_metadata(path)
x = np.frombuffer(b"".join(rows["activation"]), "<f4" if about["dtype"] == "float32" else "<f2")
x = x.reshape(-1, int(about["d_model"]))
"""
WITH_DUCKDB = """
about = dict(duckdb.sql(f"select decode(key), decode(value) from parquet_kv_metadata('{path}')").fetchall())
rows = duckdb.sql(f"select activation from '{path}' order by file_row_number").fetchall()
x = np.frombuffer(b"".join(r for r, in rows), {"float32": "<f4"}.get(about["dtype"], "<f2")).reshape(len(rows), -1)
"""


def gaussian(rows: int = N, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, D_MODEL, generator=torch.Generator().manual_seed(seed))


def keys_of(rows: int = N, first: int = 0) -> dict[str, Any]:
    number = np.arange(first, first + rows)
    return {
        "sequence_id": number // LENGTH,
        "position": (number % LENGTH).astype(np.int32),
        "document_id": pa.chunked_array([[f"0:{n // LENGTH // 2}" for n in number]]),
        "token_id": (1000 + number).astype(np.int32),
    }


def write(path: Path, x: torch.Tensor, dtype: str = "float32", first: int = 0) -> Path:
    store.write(path, store.table(x, keys_of(len(x), first), dtype, "early: blocks.1"), MADE_BY)
    return path


def as_stored(x: torch.Tensor, dtype: str) -> torch.Tensor:
    return x.to(getattr(torch, dtype)).float()


@pytest.mark.parametrize("dtype", DTYPES)
def test_activations_come_back_rounded_to_the_stored_precision_and_no_more(tmp_path, dtype):
    x = gaussian()
    rows = store.read([write(tmp_path / "x.parquet", x, dtype)])
    assert rows.x.dtype == torch.float32
    assert torch.equal(rows.x, as_stored(x, dtype))
    assert len(rows) == N


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_slice_of_a_longer_table_gives_its_own_rows(dtype):
    x = gaussian()
    part = store.table(x, keys_of(), dtype, "")["activation"].slice(7, 5)
    assert part.chunk(0).offset == 7
    assert torch.equal(store.vectors(part, dtype, D_MODEL).float(), as_stored(x[7:12], dtype))


def test_chunks_follow_each_other_and_empty_ones_are_passed_over():
    x = gaussian()
    column = store.table(x, keys_of(), "float16", "")["activation"]
    pieces = [column.slice(start, count).chunk(0) for start, count in ((3, 2), (0, 0), (10, 4))]
    expected = as_stored(torch.cat([x[3:5], x[10:14]]), "float16")
    assert torch.equal(store.vectors(pa.chunked_array(pieces), "float16", D_MODEL).float(), expected)
    assert store.vectors(column.slice(0, 0), "float16", D_MODEL).shape == (0, D_MODEL)


def test_one_chunk_is_viewed_not_copied():
    column = store.table(gaussian(), keys_of(), "float32", "")["activation"]
    address = column.chunk(0).buffers()[1].address
    assert store.vectors(column.slice(2), "float32", D_MODEL).data_ptr() == address + 2 * 4 * D_MODEL


def test_rows_over_several_groups_come_back_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "ROWS_PER_GROUP", 3)
    x = gaussian()
    path = write(tmp_path / "x.parquet", x)
    assert pq.ParquetFile(path).num_row_groups == 7
    assert torch.equal(store.read([path]).x, x)


def test_shards_are_read_in_the_order_they_are_named(tmp_path):
    x = gaussian()
    paths = [write(tmp_path / f"{i}.parquet", x[8 * i : 8 * i + 8], first=8 * i) for i in (0, 1)]
    rows = store.read(paths)
    assert torch.equal(rows.x, x[:16])
    assert rows.column("token_id").tolist() == list(range(1000, 1016))
    assert rows.column("document_id").tolist() == [f"0:{n // 8}" for n in range(16)]


def test_strided_activations_are_stored_as_they_look(tmp_path):
    wide = gaussian().repeat(1, 2)
    rows = store.read([write(tmp_path / "x.parquet", wide[:, ::2])])
    assert torch.equal(rows.x, wide[:, ::2])


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_norm_is_that_of_the_stored_vector(dtype):
    x = 100 * gaussian()
    norm = store.table(x, keys_of(), dtype, "")["norm"]
    assert norm.type == pa.float32()
    expected = np.linalg.norm(as_stored(x, dtype).double().numpy(), axis=1)
    np.testing.assert_allclose(norm.to_numpy(), expected, rtol=1e-6)


def test_norms_are_read_without_touching_activations(tmp_path):
    paths = [write(tmp_path / f"{i}.parquet", gaussian(seed=i)) for i in (0, 1)]
    expected = torch.cat([gaussian(seed=i).norm(dim=1).view(SEQUENCES, LENGTH)[:, 1:].flatten() for i in (0, 1)])
    np.testing.assert_allclose(store.norms(paths, first_position=1), expected, rtol=1e-6)


def test_early_positions_are_left_out_when_reading(tmp_path):
    x = gaussian()
    rows = store.read([write(tmp_path / "x.parquet", x)], first_position=2)
    assert torch.equal(rows.x, x.view(SEQUENCES, LENGTH, -1)[:, 2:].flatten(0, 1))
    assert rows.column("position").tolist() == [2, 3] * SEQUENCES


def test_rows_above_a_norm_are_left_out_and_the_limit_itself_stays(tmp_path):
    x = gaussian()
    path = write(tmp_path / "x.parquet", x)
    limit = float(np.sort(store.norms([path]))[11])
    rows = store.read([path], max_norm=limit)
    assert len(rows) == 12
    assert rows.column("norm").max() == np.float32(limit)
    assert torch.equal(rows.x, x[torch.from_numpy(store.norms([path]) <= limit)])


def test_all_rows_may_be_left_out(tmp_path):
    rows = store.read([write(tmp_path / "x.parquet", gaussian())], first_position=LENGTH)
    assert rows.x.shape == (0, D_MODEL)
    assert rows.column("norm").shape == (0,)


def test_overflow_names_the_place_and_the_remedy():
    x = gaussian()
    x[13, 2] = 70000
    line = r"\Aearly: blocks.1: row 13: a value overflows float16; set `storage: bfloat16` or `float32`\Z"
    with pytest.raises(StudyError, match=line):
        store.table(x, keys_of(), "float16", "early: blocks.1")
    assert store.table(x, keys_of(), "bfloat16", "").num_rows == N


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_no_number_names_the_place_and_the_remedy(value, dtype):
    x = gaussian()
    x[13, 2] = value
    line = r"\Aearly: blocks.1: row 13: NaN or infinity came out of the model; check `model.dtype`\Z"
    with pytest.raises(StudyError, match=line):
        store.table(x, keys_of(), dtype, "early: blocks.1")


def test_large_values_that_fit_are_stored(tmp_path):
    x = torch.full((1, D_MODEL), 65504.0)
    assert torch.equal(store.read([write(tmp_path / "x.parquet", x, "float16")]).x, x)


def test_the_file_says_how_it_is_read_and_what_made_it(tmp_path):
    metadata = pq.read_schema(write(tmp_path / "x.parquet", gaussian(), "bfloat16")).metadata
    found = {key: metadata[key] for key in (b"dtype", b"d_model", b"byte_order")}
    assert found == {b"dtype": b"bfloat16", b"d_model": b"6", b"byte_order": b"little"}
    assert json.loads(metadata[b"actspace"])["rule"] == "activations"


def test_the_columns_are_those_of_the_contract(tmp_path):
    schema = pq.read_schema(write(tmp_path / "x.parquet", gaussian(), "float16"))
    assert schema.names == ["sequence_id", "position", "document_id", "token_id", "norm", "activation"]
    assert schema.field("activation").type == pa.binary(2 * D_MODEL)


def test_two_equal_writes_give_equal_bytes(tmp_path):
    first, second = (write(tmp_path / name / "x.parquet", gaussian()) for name in ("one", "two"))
    assert first.read_bytes() == second.read_bytes()
    assert Path(f"{first}.json").read_bytes() == Path(f"{second}.json").read_bytes()


@pytest.mark.parametrize("damage", [lambda b: b[:-50], lambda b: b"", lambda b: b[:4] + b[90:]])
@pytest.mark.parametrize("reader", [store.read, store.norms])
def test_a_damaged_file_is_one_line_with_the_remedy(tmp_path, reader, damage):
    path = write(tmp_path / "x.parquet", gaussian())
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(
        StudyError, match=r"\A\S+x.parquet: not an activation file \([^\n]+\); delete it and run again\Z"
    ):
        reader([path])


@pytest.mark.parametrize("reader", [store.read, store.norms])
def test_another_parquet_file_is_refused(tmp_path, reader):
    pd.DataFrame({"norm": [1.0], "position": [0]}).to_parquet(tmp_path / "x.parquet")
    with pytest.raises(StudyError, match=r"x.parquet: not an activation file \("):
        reader([tmp_path / "x.parquet"])


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(
    ("package", "name", "recipe"),
    [("pandas", "pd", WITH_PANDAS), ("polars", "pl", WITH_POLARS), ("duckdb", "duckdb", WITH_DUCKDB)],
)
def test_other_tools_read_a_file_in_three_lines(tmp_path, dtype, package, name, recipe):
    path = write(tmp_path / "x.parquet", gaussian(), dtype)
    scope = {name: pytest.importorskip(package), "np": np, "pq": pq, "path": str(path)}
    exec(recipe, scope)
    np.testing.assert_array_equal(scope["x"], as_stored(gaussian(), dtype).numpy())


def test_numpy_reads_bfloat16_as_the_upper_halves_of_float32(tmp_path):
    raw = b"".join(pd.read_parquet(write(tmp_path / "x.parquet", gaussian(), "bfloat16"))["activation"])
    x = (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4").reshape(-1, D_MODEL)
    np.testing.assert_array_equal(x, as_stored(gaussian(), "bfloat16").numpy())


def test_the_store_needs_no_model_library():
    code = "import sys; from actspace.activations import store; print({'transformers', 'transformer_lens'} & {*sys.modules})"
    path = str(Path(store.__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", code], cwd=path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
