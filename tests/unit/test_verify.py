from __future__ import annotations

import json
import re
import stat
import warnings
import zipfile
from pathlib import Path

import pytest

from actspace import manifest, provenance, verify
from actspace.errors import StudyError
from actspace.provenance import MadeBy

NAMES = ("a/x.txt", "a/y.txt", "activations/z.parquet")


@pytest.fixture
def study(tmp_path) -> Path:
    """A finished study of three files."""
    folder = tmp_path / "results" / "small"
    for name in NAMES:
        provenance.write(folder / name, lambda path, name=name: path.write_text(f"content of {name}"), made_by(name))
    manifest.write(folder / "manifest.json", [str(folder / f"{name}.json") for name in NAMES])
    return folder


def made_by(name: str) -> MadeBy:
    return MadeBy("small", "rule", {"name": name}, "c0de", {})


def packed(study: Path, **others: bytes) -> Path:
    """The study as a zip archive, with other members added or put in the place of its own."""
    members = {p.relative_to(study).as_posix(): p.read_bytes() for p in study.rglob("*") if p.is_file()}
    files = {name: {"sha256": provenance.sha256_of(study / name), "size": len(text)} for name, text in members.items()}
    del files["manifest.json"]
    members["manifest.json"] = manifest.as_text(files).encode()
    path = study.parent / "small.zip"
    with zipfile.ZipFile(path, "w") as file:
        for name, text in (members | others).items():
            file.writestr(name, text)
    return path


def problems(path: Path) -> list[str]:
    return [line.removeprefix(f"{path}/") for line in verify.check(path).problems]


def test_a_whole_study_has_no_problems(study):
    assert verify.check(study) == verify.Findings()


def test_a_study_may_be_moved(study, tmp_path):
    assert problems(study.rename(tmp_path / "elsewhere")) == []


def test_files_that_are_missing_or_changed_are_named(study):
    (study / "a/x.txt").unlink()
    (study / "a/y.txt").write_text("Content of a/y.txt")  # as long as before
    assert problems(study) == ["a/x.txt: missing", "a/y.txt: changed"]


def test_a_receipt_that_was_edited_or_lost_is_named(study):
    receipt = study / "a/x.txt.json"
    receipt.write_text(receipt.read_text().replace("c0de", "c0d3"))
    (study / "a/y.txt.json").unlink()
    assert problems(study) == ["a/x.txt.json: changed", "a/y.txt.json: missing"]


def test_leftovers_are_remarks_and_logs_and_hidden_files_are_nothing(study):
    for name in ("a/removed.txt", "logs/a.log", "benchmarks/a.tsv", "a/.y.txt.partial"):
        (study / name).parent.mkdir(exist_ok=True)
        (study / name).write_text("x")
    found = verify.check(study)
    assert found.problems == []
    assert [line.removeprefix(f"{study}/").split(";")[0] for line in found.remarks] == [
        "a/removed.txt: extra: not in the manifest"
    ]


def test_files_that_are_not_kept_are_one_remark_and_checked_once_they_are_back(study):
    (study / NAMES[2]).rename(study / "aside")
    manifest.write(study / "manifest.json", [str(study / f"{name}.json") for name in NAMES])
    (study / "aside").rename(study.parent / "aside")
    found = verify.check(study)
    assert found.problems == []
    assert len(found.remarks) == 1
    assert re.search(r"1 files \(0\.0 MB\) are not kept here \(activations\)", found.remarks[0])
    (study / NAMES[2]).write_text("something else")
    assert problems(study) == [f"{NAMES[2]}: changed"]


@pytest.mark.parametrize("text", [None, "", "[]", "{}", "{", '{"files": {"a": 1}}', "[" * 100_000])
def test_a_folder_without_a_manifest_is_one_line(study, text):
    (study / "manifest.json").unlink() if text is None else (study / "manifest.json").write_text(text)
    with pytest.raises(StudyError, match=r"small: no readable manifest.json; give [^\n]*\Z"):
        verify.check(study)


def test_a_manifest_cannot_make_it_read_outside_of_the_folder(study):
    secret = study.parent / "secret.txt"
    secret.write_text("secret")
    record = {"sha256": provenance.sha256_of(secret), "size": 6}
    (study / "manifest.json").write_text(manifest.as_text({"../secret.txt": record, str(secret): record}))
    assert problems(study) == ["../secret.txt: missing", f"{secret}: missing"]


def test_a_whole_archive_has_no_problems(study):
    assert verify.check(packed(study)) == verify.Findings()


def test_a_changed_an_extra_and_a_missing_member_are_problems_of_an_archive(study):
    path = packed(study, **{"a/x.txt": b"Content of a/x.txt", "extra.txt": b""})
    assert problems(path) == ["a/x.txt: changed", "extra.txt: extra: not in the manifest"]
    (study / "manifest.json").write_text(manifest.as_text({"gone": {"sha256": "0", "size": 0}}))
    assert "gone: missing" in problems(packed(study, **{"manifest.json": (study / "manifest.json").read_bytes()}))


def test_a_flipped_byte_of_an_archive_is_named_by_its_member(study):
    path = packed(study)
    data = path.read_bytes()
    place = data.index(b"content of a/y.txt")
    path.write_bytes(data[:place] + b"C" + data[place + 1 :])
    assert problems(path) == ["a/y.txt: changed"]


@pytest.mark.parametrize("name", ["../out.txt", "/etc/out.txt", "..\\out.txt", "C:out.txt", "a/../../out.txt"])
def test_members_that_would_be_unpacked_elsewhere_are_named(study, name):
    assert f"{name}: unsafe name; do not unpack this archive" in [
        line.replace("\\\\", "\\") for line in problems(packed(study, **{name: b""}))
    ]


def test_links_and_names_that_are_there_twice_are_named(study):
    path = packed(study)
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "a") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file.writestr(link, "/etc/passwd")
        file.writestr("a/x.txt", "content of a/x.txt")
    assert {"link: a link; do not unpack this archive", "a/x.txt: there 2 times"} <= set(problems(path))


def test_of_a_bomb_no_more_is_unpacked_than_the_manifest_promises(study, monkeypatch):
    path = packed(study)
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, text in members.items():
            file.writestr(name, bytes(50 * verify.CHUNK) if name == "a/x.txt" else text)
    read: list[int] = []
    original = zipfile.ZipExtFile.read
    monkeypatch.setattr(
        zipfile.ZipExtFile, "read", lambda self, n=-1: read.append(len(data := original(self, n))) or data
    )
    assert problems(path) == ["a/x.txt: changed"]
    assert sum(read) < 2 * verify.CHUNK


def test_names_cannot_write_to_the_terminal(study):
    line = next(line for line in verify.check(packed(study, **{"\x1b[2Jx": b""})).problems if "extra" in line)
    assert line.isprintable()


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04" + bytes(100)])
def test_what_is_no_archive_is_one_line(tmp_path, content):
    path = tmp_path / "x.zip"
    path.write_bytes(content)
    with pytest.raises(StudyError, match=r"x\.zip: not a readable zip archive; [^\n]*\Z"):
        verify.check(path)


def test_an_archive_without_a_manifest_is_one_line(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        file.writestr("a", json.dumps({}))
    with pytest.raises(StudyError, match=r"x\.zip: no readable manifest.json"):
        verify.check(tmp_path / "x.zip")
