from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterable
from itertools import pairwise
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
    store.write(path, x, keys_of(len(x), first), dtype, MADE_BY)
    return path


def table(x: torch.Tensor, dtype: str, where: str = "") -> pa.Table:
    return store.table(store.to_stored(x, dtype), keys_of(len(x)), where)


def norms(paths: list[Path], **select: Any) -> np.ndarray:
    return store.Activations(paths, **select).norms()


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
    part = table(x, dtype)["activation"].slice(7, 5)
    assert part.chunk(0).offset == 7
    assert torch.equal(store.vectors(part, dtype, D_MODEL).float(), as_stored(x[7:12], dtype))


def test_chunks_follow_each_other_and_empty_ones_are_passed_over():
    x = gaussian()
    column = table(x, "float16")["activation"]
    pieces = [column.slice(start, count).chunk(0) for start, count in ((3, 2), (0, 0), (10, 4))]
    expected = as_stored(torch.cat([x[3:5], x[10:14]]), "float16")
    assert torch.equal(store.vectors(pa.chunked_array(pieces), "float16", D_MODEL).float(), expected)
    assert store.vectors(column.slice(0, 0), "float16", D_MODEL).shape == (0, D_MODEL)


def test_one_chunk_is_viewed_not_copied():
    column = table(gaussian(), "float32")["activation"]
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
    norm = table(x, dtype)["norm"]
    assert norm.type == pa.float32()
    expected = np.linalg.norm(as_stored(x, dtype).double().numpy(), axis=1)
    np.testing.assert_allclose(norm.to_numpy(), expected, rtol=1e-6)


def test_norms_are_read_without_touching_activations(tmp_path):
    paths = [write(tmp_path / f"{i}.parquet", gaussian(seed=i)) for i in (0, 1)]
    expected = torch.cat([gaussian(seed=i).norm(dim=1).view(SEQUENCES, LENGTH)[:, 1:].flatten() for i in (0, 1)])
    np.testing.assert_allclose(norms(paths, first_position=1), expected, rtol=1e-6)


def test_early_positions_are_left_out_when_reading(tmp_path):
    x = gaussian()
    rows = store.read([write(tmp_path / "x.parquet", x)], first_position=2)
    assert torch.equal(rows.x, x.view(SEQUENCES, LENGTH, -1)[:, 2:].flatten(0, 1))
    assert rows.column("position").tolist() == [2, 3] * SEQUENCES


def test_rows_above_a_norm_are_left_out_and_the_limit_itself_stays(tmp_path):
    x = gaussian()
    path = write(tmp_path / "x.parquet", x)
    limit = float(np.sort(norms([path]))[11])
    rows = store.read([path], max_norm=limit)
    assert len(rows) == 12
    assert rows.column("norm").max() == np.float32(limit)
    assert torch.equal(rows.x, x[torch.from_numpy(norms([path]) <= limit)])


def test_all_rows_may_be_left_out(tmp_path):
    rows = store.read([write(tmp_path / "x.parquet", gaussian())], first_position=LENGTH)
    assert rows.x.shape == (0, D_MODEL)
    assert rows.column("norm").shape == (0,)


def test_overflow_names_the_place_and_the_remedy():
    x = gaussian()
    x[13, 2] = 70000
    line = r"\Aearly: blocks.1: row 13: a value overflows float16; set `storage: bfloat16` or `float32`\Z"
    with pytest.raises(StudyError, match=line):
        table(x, "float16", "early: blocks.1")
    assert table(x, "bfloat16").num_rows == N


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_no_number_names_the_place_and_the_remedy(value, dtype):
    x = gaussian()
    x[13, 2] = value
    line = r"\Aearly: blocks.1: row 13: NaN or infinity came out of the model; check `model.dtype`\Z"
    with pytest.raises(StudyError, match=line):
        table(x, dtype, "early: blocks.1")


def test_large_values_that_fit_are_stored(tmp_path):
    x = torch.full((1, D_MODEL), 65504.0)
    assert torch.equal(store.read([write(tmp_path / "x.parquet", x, "float16")]).x, x)


def test_the_file_says_how_it_is_read_and_what_made_it(tmp_path):
    metadata = pq.read_metadata(write(tmp_path / "x.parquet", gaussian(), "bfloat16")).metadata
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
@pytest.mark.parametrize("reader", [store.read, norms])
def test_a_damaged_file_is_one_line_with_the_remedy(tmp_path, reader, damage):
    path = write(tmp_path / "x.parquet", gaussian())
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(
        StudyError, match=r"\A\S+x.parquet: not an activation file \([^\n]+\); delete it and run again\Z"
    ):
        reader([path])


@pytest.mark.parametrize("reader", [store.read, norms])
def test_another_parquet_file_is_refused(tmp_path, reader):
    pd.DataFrame({"norm": [1.0], "position": [0]}).to_parquet(tmp_path / "x.parquet")
    with pytest.raises(StudyError, match=r"x.parquet: not an activation file \("):
        reader([tmp_path / "x.parquet"])


def test_numpy_reads_bfloat16_as_the_upper_halves_of_float32(tmp_path):
    raw = b"".join(pd.read_parquet(write(tmp_path / "x.parquet", gaussian(), "bfloat16"))["activation"])
    x = (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4").reshape(-1, D_MODEL)
    np.testing.assert_array_equal(x, as_stored(gaussian(), "bfloat16").numpy())


def test_the_store_needs_no_model_library():
    code = "import sys; from actspace.activations import store; print({'transformers', 'transformer_lens'} & {*sys.modules})"
    path = str(Path(store.__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", code], cwd=path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# --- reading a part, in random order, at random ----------------------------------------------------------------------------------------------


@pytest.fixture
def shards(tmp_path, monkeypatch) -> list[Path]:
    """Three shards of 50 rows each, in row groups of 8: a buffer holds two of them."""
    monkeypatch.setattr(store, "ROWS_PER_GROUP", 8)
    monkeypatch.setattr(store, "BUFFER_BYTES", 1)
    return [write(tmp_path / f"train-{i:03d}.parquet", numbered(50 * i), first=50 * i) for i in range(3)]


def numbered(first: int, rows: int = 50) -> torch.Tensor:
    """Rows whose every value is the row's number."""
    return torch.arange(first, first + rows, dtype=torch.float32)[:, None].expand(rows, D_MODEL)


def numbers(batches: Iterable[torch.Tensor]) -> list[int]:
    return [int(x) for batch in batches for x in batch[:, 0]]


def test_a_shuffled_pass_has_every_row_once_and_not_in_order(shards):
    batches = [*store.Activations(shards).batches(16, seed=0)]
    assert [len(batch) for batch in batches] == [16] * 9 + [6]
    found = numbers(batches)
    assert sorted(found) == list(range(150))
    neighbours = sum(abs(a - b) == 1 for a, b in pairwise(found))
    assert neighbours < 30


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_the_order_depends_on_the_seed_alone(shards, size, workers):
    rows = store.Activations(shards, first_position=1)
    assert numbers(rows.batches(size, 5, workers)) == numbers(rows.batches(16, 5, 1))
    assert numbers(rows.batches(size, 6, workers)) != numbers(rows.batches(16, 5, 1))


def test_an_unfinished_pass_leaves_no_thread_behind(shards):
    before = threading.active_count()
    batches = store.Activations(shards).batches(4, 0, workers=3)
    next(batches)
    batches.close()
    assert threading.active_count() == before


@pytest.mark.parametrize("dtype", DTYPES)
def test_batches_keep_the_stored_precision_bit_by_bit(tmp_path, dtype):
    x = gaussian()
    (batch,) = store.Activations([write(tmp_path / "x.parquet", x, dtype)]).batches(100, 0)
    assert batch.dtype == getattr(torch, dtype)
    assert sorted(map(tuple, batch.float().tolist())) == sorted(map(tuple, as_stored(x, dtype).tolist()))


@pytest.mark.parametrize(
    ("select", "kept"),
    [
        ({"positions": [0, 2]}, lambda n: n % 4 in (0, 2)),
        ({"without_tokens": [1003, 1140]}, lambda n: n not in (3, 140)),
        ({"max_norm": 60 * D_MODEL**0.5 + 0.01}, lambda n: n <= 60),
        ({"first_position": 1, "without_tokens": [1001]}, lambda n: n % 4 > 0 and n != 1),
    ],
)
def test_only_selected_rows_are_read(shards, select, kept):
    rows = store.Activations(shards, **select)
    expected = [n for n in range(150) if kept(n)]
    assert numbers([rows.read().x]) == expected
    assert rows.read().column("token_id").tolist() == [1000 + n for n in expected]
    assert rows.keys("token_id")["token_id"].to_pylist() == [1000 + n for n in expected]
    assert sorted(numbers(rows.batches(9, 1))) == expected
    drawn = rows.sample(10, np.random.default_rng(0))
    assert set(numbers([drawn.x])) <= set(expected)
    assert len(set(numbers([drawn.x]))) == 10


def test_outliers_are_a_multiple_of_the_median_norm(shards):
    rows = store.Activations(shards).without_outliers(1.5)
    assert numbers([rows.read().x]) == [n for n in range(150) if n <= 1.5 * 74.5]


def test_rows_are_taken_by_number_in_the_order_asked_for(shards):
    wanted = np.array([149, 0, 51, 50, 0, 8])
    rows = store.Activations(shards, first_position=3).take(wanted)
    assert numbers([rows.x]) == wanted.tolist()
    assert rows.column("token_id").tolist() == (1000 + wanted).tolist()


def test_a_sample_is_drawn_by_its_seed_and_is_all_there_is_at_most(shards):
    rows = store.Activations(shards)
    first, again, other = (numbers([rows.sample(20, np.random.default_rng(seed)).x]) for seed in (1, 1, 2))
    assert first == again != other
    assert sorted(numbers([rows.sample(1000, np.random.default_rng(0)).x])) == list(range(150))


def test_row_groups_come_one_at_a_time_in_token_order(shards):
    groups = [*store.Activations(shards, first_position=1).groups()]
    assert [len(group) for group in groups[:7]] == [6, 6, 6, 6, 6, 6, 1]
    assert numbers([group.x for group in groups]) == [n for n in range(150) if n % 4]


def test_a_study_is_opened_by_capture_and_hook(tmp_path):
    folder = tmp_path / "activations" / "contexts" / "blocks.1.hook_resid_post"
    for name in ("train-001", "train-000", "test-000"):
        write(folder / f"{name}.parquet", gaussian())
    rows = store.Activations.of_study(tmp_path, "contexts", "blocks.1.hook_resid_post", first_position=1)
    assert [path.stem for path in map(Path, rows.paths)] == ["train-000", "train-001"]
    assert (rows.d_model, rows.dtype, rows.first_position) == (D_MODEL, "float32", 1)
    with pytest.raises(StudyError, match=r"no file train-\*\.parquet; there are: blocks\.1\.hook_resid_post/test-000"):
        store.Activations.of_study(tmp_path, "contexts", "blocks.2.hook_resid_post")


def test_a_thousand_shards_and_more_are_opened_in_their_order(tmp_path):
    names = [f"train-{number}.parquet" for number in ("000", "101", "999", "1000", "1001")]
    for name in reversed(names):
        (tmp_path / "activations" / "c" / "h").mkdir(parents=True, exist_ok=True)
        (tmp_path / "activations" / "c" / "h" / name).touch()
    assert [Path(path).name for path in store.Activations.of_study(tmp_path, "c", "h").paths] == names


# --- writing while the model computes --------------------------------------------------------------------------------------------------------


def test_chunks_become_whole_row_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "ROWS_PER_GROUP", 8)
    x = numbered(0)
    with store.Writer({"a": tmp_path / "a.parquet", "b": tmp_path / "b.parquet"}) as writer:
        for first in range(0, 50, 3):
            keys = {name: column[first : first + 3] for name, column in keys_of(50).items()}
            part = x[first : first + 3]
            writer.add({"a": store.to_stored(part, "float16"), "b": store.to_stored(-part, "float32")}, keys)
        writer.finish({"a": MADE_BY, "b": MADE_BY})
    metadata = pq.read_metadata(tmp_path / "a.parquet")
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [8] * 6 + [2]
    assert torch.equal(store.read([tmp_path / "a.parquet"]).x, x)
    assert torch.equal(store.read([tmp_path / "b.parquet"]).x, -x)


def test_what_is_not_finished_leaves_nothing(tmp_path):
    with store.Writer({"a": tmp_path / "a.parquet"}) as writer:
        writer.add({"a": store.to_stored(gaussian(), "float16")}, keys_of())
    assert [*tmp_path.iterdir()] == []


def test_a_bad_row_stops_the_writer_with_its_number_in_the_file(tmp_path):
    x = gaussian()
    x[3, 1] = 1e6
    line = rf"\Acaptures: {tmp_path.name}: train-000: row 23: a value overflows float16; set `storage: [^\n]*\Z"
    with store.Writer({"a": tmp_path / "train-000.parquet"}) as writer:
        writer.add({"a": store.to_stored(gaussian(), "float16")}, keys_of())
        writer.add({"a": store.to_stored(x, "float16")}, keys_of())
        with pytest.raises(StudyError, match=line):
            writer.finish({"a": MADE_BY})
    assert [*tmp_path.iterdir()] == []


@pytest.fixture
def five_groups(tmp_path) -> store.Activations:
    """Return 5 row groups of 4,096 rows, of which the first value is the row's number."""
    x = torch.zeros(5 * store.ROWS_PER_GROUP, 4)
    x[:, 0] = torch.arange(len(x))
    n = np.arange(len(x))
    keys = {"sequence_id": n // 8, "position": n % 8, "document_id": (n // 64).astype(str), "token_id": n % 7}
    store.write(tmp_path / "x.parquet", x, keys, "float32", MADE_BY)
    return store.Activations([tmp_path / "x.parquet"], first_position=1)


def test_thinning_keeps_every_so_many_row_groups_and_all_where_there_are_few(five_groups):
    assert five_groups.count() == 5 * store.ROWS_PER_GROUP * 7 // 8
    assert five_groups.thinned(five_groups.count()).every == 1
    some = five_groups.thinned(five_groups.count() // 2)
    assert sorted({int(x) // store.ROWS_PER_GROUP for x in some.read().x[:, 0]}) == [0, 2, 4]


def test_blocks_are_all_rows_in_order_and_no_larger_than_they_may_be(five_groups, monkeypatch):
    monkeypatch.setattr(store, "BLOCK_BYTES", 2 * store.ROWS_PER_GROUP * 16)
    blocks = list(five_groups.blocks())
    assert [len(block) for block in blocks] == [2 * 3584, 2 * 3584, 3584]
    assert torch.equal(torch.cat([block.x for block in blocks]), five_groups.read().x)


def test_rows_are_picked_by_their_number_among_the_used_ones(five_groups):
    numbers = np.array([17_000, 3, 0, 9_999])
    assert torch.equal(five_groups.pick(numbers).x, five_groups.read().x[numbers])


def test_of_more_rows_than_may_be_held_some_are_read(five_groups, monkeypatch):
    monkeypatch.setattr(store, "HELD_BYTES", 3 * store.ROWS_PER_GROUP * 16)
    assert len(store.read_some(five_groups.paths)) == 3 * store.ROWS_PER_GROUP
