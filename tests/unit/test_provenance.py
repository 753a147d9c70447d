from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path
from types import SimpleNamespace

import numpy
import pytest
import torch

from actspace import provenance
from actspace.errors import StudyError
from actspace.provenance import MadeBy

MADE_BY = MadeBy("small", "rule", {"b": 1, "a": [0.5]}, "0123456789abcdef", {"in.txt": "aa"}, {"torch": "2"})
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fails(_path: Path) -> None:
    raise RuntimeError("no space left")


def write_abc(path: Path) -> None:
    path.write_text("abc")


def test_a_receipt_says_what_the_file_is_and_what_made_it(tmp_path):
    provenance.write(tmp_path / "x.txt", write_abc, MADE_BY.adding(device="cpu").adding(rows=3))
    assert json.loads((tmp_path / "x.txt.json").read_text()) == {
        "sha256": ABC,
        "size": 3,
        "study": "small",
        "rule": "rule",
        "cfg": {"a": [0.5], "b": 1},
        "code": "0123456789abcdef",
        "inputs": {"in.txt": "aa"},
        "versions": {"torch": "2"},
        "extra": {"device": "cpu", "rows": 3},
    }


def test_adding_leaves_the_record_itself_as_it_is():
    assert MADE_BY.adding(device="cpu") != MADE_BY
    assert MADE_BY.extra == {}


def test_a_receipt_does_not_depend_on_the_order_of_keys_nor_on_the_time(tmp_path):
    provenance.write(tmp_path / "x", write_abc, MADE_BY)
    first = (tmp_path / "x.json").read_bytes()
    os.utime(tmp_path / "x", (1, 1))
    turned = MadeBy(*vars(MADE_BY).values())
    object.__setattr__(turned, "cfg", {"a": [0.5], "b": 1})
    provenance.stamp(tmp_path / "x", turned)
    assert (tmp_path / "x.json").read_bytes() == first


def test_the_record_for_metadata_is_one_line_of_sorted_json():
    text = MADE_BY.as_json()
    assert json.loads(text)["inputs"] == {"in.txt": "aa"}
    assert "\n" not in text
    assert text.index('"a"') < text.index('"b"')


def test_a_large_file_is_hashed_to_its_end(tmp_path):
    content = bytes(range(256)) * 5000
    (tmp_path / "large").write_bytes(content)
    assert provenance.sha256_of(tmp_path / "large") == hashlib.sha256(content).hexdigest()


def test_folders_are_made_and_others_may_read_what_lies_in_them(tmp_path):
    mask = os.umask(0o022)
    try:
        provenance.write(tmp_path / "a/b/x", write_abc, MADE_BY)
    finally:
        os.umask(mask)
    assert names(tmp_path / "a/b") == ["x", "x.json"]
    assert [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "a/b").iterdir()] == [0o644, 0o644]


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_writer_that_fails_leaves_nothing(tmp_path, kind):
    def half(path: Path) -> None:
        path.write_text("half")
        raise kind("stopped")

    with pytest.raises(kind, match="stopped"):
        provenance.write(tmp_path / "x", half, MADE_BY)
    assert names(tmp_path) == []


def test_a_writer_that_fails_leaves_the_older_file_and_its_receipt(tmp_path):
    provenance.write(tmp_path / "x", write_abc, MADE_BY)
    with pytest.raises(RuntimeError, match="no space left"):
        provenance.write(tmp_path / "x", fails, MADE_BY)
    assert names(tmp_path) == ["x", "x.json"]
    assert provenance.read_receipt(tmp_path / "x.json")["sha256"] == provenance.sha256_of(tmp_path / "x")


@pytest.mark.parametrize("older", [False, True])
def test_a_crash_between_a_file_and_its_receipt_leaves_no_receipt(tmp_path, monkeypatch, older):
    if older:
        provenance.write(tmp_path / "x", lambda path: path.write_text("older"), MADE_BY)
    monkeypatch.setattr(provenance, "stamp", lambda *_: fails(tmp_path))
    with pytest.raises(RuntimeError, match="no space left"):
        provenance.write(tmp_path / "x", write_abc, MADE_BY)
    assert names(tmp_path) == ["x"]


def test_a_failed_receipt_leaves_no_temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "_write_text", lambda path, text: fails(path))
    with pytest.raises(RuntimeError, match="no space left"):
        provenance.write(tmp_path / "x", write_abc, MADE_BY)
    assert names(tmp_path) == ["x"]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"size": 3}', "\udcff"])
def test_a_damaged_receipt_is_one_line_with_the_remedy(tmp_path, text):
    receipt = tmp_path / "x.json"
    receipt.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(StudyError, match=r"\A\S+x.json: not a receipt \(\w+\); delete it and run again\Z"):
        provenance.read_receipt(receipt)


def test_a_missing_receipt_is_one_line_with_the_remedy(tmp_path):
    with pytest.raises(StudyError, match=r"x.json: not a receipt \(FileNotFoundError\); delete it and run again"):
        provenance.read_receipt(tmp_path / "x.json")


def test_a_job_records_the_sums_of_its_inputs(tmp_path):
    provenance.write(tmp_path / "made", write_abc, MADE_BY)
    (tmp_path / "made").write_text("xyz")  # a receipt is believed: gigabytes are not read again
    (tmp_path / "own.json").write_text("abc")
    paths = [str(tmp_path / name) for name in ("own.json", "made", "made.json", "absent")]
    params = SimpleNamespace(cfg={"k": 1}, code="c0de")
    made_by = provenance.of("small", "rule", params, [*paths, *paths])
    assert (made_by.study, made_by.rule, made_by.cfg, made_by.code) == ("small", "rule", {"k": 1}, "c0de")
    assert made_by.inputs == {paths[1]: ABC, paths[0]: ABC}
    assert list(made_by.inputs) == sorted(made_by.inputs)


def test_versions_are_those_that_run():
    versions = provenance.installed_versions()
    assert versions["numpy"] == numpy.__version__
    assert versions["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert set(versions) == set(provenance.PACKAGES)
    assert "absent" not in versions.values()
