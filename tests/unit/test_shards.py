from __future__ import annotations

import pyarrow as pa
import pytest
import torch
from test_provenance import MADE_BY

from actspace import manifest, provenance, shards, tables, tokens
from actspace.activations import store
from actspace.errors import StudyError

FILES = {"a/h/train-000.parquet": "00", "a/h/train-1000.parquet": "11", "a/h/train-101.parquet": "22"}


def test_a_list_keeps_the_order_of_its_files(tmp_path):
    path = tmp_path / f"train{shards.SUFFIX}"
    shards.write(path, FILES, MADE_BY)
    assert [*shards.read(path).items()] == [*FILES.items()]
    assert shards.expand([path, "other.parquet"]) == [*FILES, "other.parquet"]


def test_the_receipt_of_a_list_has_the_listed_files_as_inputs_and_changes_with_them(tmp_path):
    path = tmp_path / f"train{shards.SUFFIX}"
    receipts = []
    for sha256 in ("22", "33"):
        shards.write(path, FILES | {"a/h/train-101.parquet": sha256}, MADE_BY.adding(token_passes=5.0, tokens=9))
        receipts.append(provenance.read_receipt(f"{path}.json"))
    assert receipts[0]["inputs"] == FILES
    assert receipts[0]["extra"] == {"tokens": 9}  # the passes count once, with the shards
    assert receipts[1]["inputs"]["a/h/train-101.parquet"] == "33"
    assert receipts[0]["sha256"] != receipts[1]["sha256"]


def test_a_file_of_a_list_is_found_by_its_name(tmp_path):
    path = tmp_path / f"train{shards.SUFFIX}"
    shards.write(path, FILES, MADE_BY)
    assert shards.named(path, "train-101") == "a/h/train-101.parquet"
    with pytest.raises(StudyError, match=r"train\.files\.csv: lists no file train-102; ask for one of those"):
        shards.named(path, "train-102")


@pytest.mark.parametrize("text", ["", "file,sha256\n", "file,sha256\na\n", "a,b\nc,d\n"])
def test_a_damaged_list_is_one_line(tmp_path, text):
    (path := tmp_path / f"train{shards.SUFFIX}").write_text(text)
    with pytest.raises(StudyError, match=r"\A\S+: not a list of files[^\n]*; delete it and run again$"):
        shards.read(path)


def stored(folder, name: str, value: float) -> str:
    keys = {"sequence_id": [0], "position": [1], "document_id": ["d"], "token_id": [7]}
    store.write(folder / name, torch.full((1, 4), value), keys, "float32", MADE_BY)
    return str(folder / name)


def test_activations_are_read_by_their_list(tmp_path):
    files = [stored(tmp_path, "train-000.parquet", 1), stored(tmp_path, "train-001.parquet", 2)]
    shards.write(path := tmp_path / f"train{shards.SUFFIX}", shards.sums(files), MADE_BY)
    assert store.read([path]).x[:, 0].tolist() == [1, 2]
    assert shards.settings([path]) == {"b": 1, "a": [0.5]}


def test_a_listed_shard_that_is_missing_is_one_line_with_what_makes_it_again(tmp_path):
    files = [stored(tmp_path, "train-000.parquet", 1), stored(tmp_path, "train-001.parquet", 2)]
    shards.write(path := tmp_path / f"train{shards.SUFFIX}", shards.sums(files), MADE_BY)
    (tmp_path / "train-001.parquet").unlink()
    with pytest.raises(
        StudyError, match=r"\A\S+train-001\.parquet: missing; `snakemake --cores all \S+` makes it again$"
    ):
        store.read([path])


def test_the_manifest_finds_shards_by_their_lists(tmp_path):
    file = stored(tmp_path, "train-000.parquet", 1)
    shards.write(path := tmp_path / f"train{shards.SUFFIX}", shards.sums([file]), MADE_BY)
    assert [*manifest.read_receipts([f"{path}.json"])] == sorted([str(path), file])


def test_shards_of_tokens_are_complete_as_soon_as_the_next_one_begins(tmp_path):
    paths = [str(tmp_path / f"{name}.parquet") for name in ("train-000", "train-001", "test-000")]
    rows = pa.table({"sequence_id": [0, 1]})
    with tokens.Shards(paths, MADE_BY) as written:
        for split, shard in (("train", 0), ("test", 0), ("train", 0), ("train", 1)):
            written.add(split, shard, rows)
        assert [path.name for path in sorted(tmp_path.glob("*.parquet"))] == ["train-000.parquet"]
        written.finish()
    assert [tables.read_arrow(path).num_rows for path in paths] == [4, 2, 2]
    assert not list(tmp_path.glob(".*"))
