from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from actspace import manifest, provenance
from actspace.provenance import MadeBy

MADE_BY = MadeBy("small", "activations", {"a": 1}, "c0de", {"in": "aa"})


@pytest.fixture
def study(tmp_path):
    """A finished study of three files, two of which one job made."""
    folder = tmp_path / "results" / "small"
    job = MADE_BY.adding(token_passes=1500.0)
    files = {
        "a/x.txt": job.adding(hook="one"),
        "a/y.txt": job.adding(hook="two", token_passes=1000.0),
        "model.json": MadeBy("small", "model", {}, "c0de", {}),
    }
    for name, made_by in files.items():
        provenance.write(folder / name, lambda path, name=name: path.write_text(f"content of {name}"), made_by)
    manifest.write(folder / "manifest.json", [f"{folder / name}.json" for name in files])
    return folder


def run(monkeypatch: pytest.MonkeyPatch, *folders: Path) -> int:
    monkeypatch.setattr(sys, "argv", ["manifest", *map(str, folders)])
    return manifest.main()


def test_the_manifest_lists_every_file_with_its_sum(study):
    files = json.loads((study / "manifest.json").read_text())["files"]
    assert list(files) == ["a/x.txt", "a/y.txt", "model.json"]
    for name, record in files.items():
        receipt = provenance.sha256_of(study / f"{name}.json")
        sha256, size = provenance.sha256_of(study / name), (study / name).stat().st_size
        rule = "model" if name == "model.json" else "activations"
        assert record == {"sha256": sha256, "size": size, "rule": rule, "receipt": receipt}


def test_the_manifest_does_not_depend_on_the_order_of_receipts(study, tmp_path):
    before = (study / "manifest.json").read_bytes()
    manifest.write(
        study / "manifest.json", [str(study / f"{name}.json") for name in ("model.json", "a/y.txt", "a/x.txt")]
    )
    assert (study / "manifest.json").read_bytes() == before


def test_what_is_not_there_is_listed_as_not_kept(study):
    (study / "a/x.txt").unlink()
    manifest.write(study / "manifest.json", [str(study / f"{name}.json") for name in ("a/x.txt", "a/y.txt")])
    files = json.loads((study / "manifest.json").read_text())["files"]
    assert [name for name, record in files.items() if record.get("kept") is False] == ["a/x.txt"]


def test_of_several_files_of_one_job_the_one_that_took_most_counts(study):
    receipts = manifest.read_receipts([f"{study / name}.json" for name in ("a/x.txt", "a/y.txt", "model.json")])
    assert manifest.token_passes(receipts.values()) == 1500


def test_what_was_read_from_outside_is_what_the_study_of_the_job_did_not_make():
    inputs = {"results/a/x": "11", "results/b/x": "22", "text.txt": "33"}
    receipts = [{"study": "a", "inputs": inputs}, {"study": "a", "inputs": {"text.txt": "33", "other.txt": "00"}}]
    expected = [("other.txt", "00"), ("results/b/x", "22"), ("text.txt", "33")]
    assert manifest.read_from_outside(receipts) == expected


def test_jobs_that_differ_in_rule_cfg_or_inputs_count_each():
    record = {
        "rule": "activations",
        "cfg": {"hooks": ["a"]},
        "inputs": {"train-000": "aa"},
        "extra": {"token_passes": 10.0},
    }
    others = [{"rule": "splice"}, {"cfg": {"hooks": ["b"]}}, {"inputs": {"train-001": "bb"}}]
    assert manifest.token_passes([record, *(record | other for other in others)]) == 40


def test_the_order_of_keys_makes_no_other_job():
    record = {"rule": "r", "inputs": {}, "extra": {"token_passes": 10.0}}
    assert manifest.token_passes([record | {"cfg": {"a": 1, "b": 2}}, record | {"cfg": {"b": 2, "a": 1}}]) == 10


def test_the_closing_line_gives_time_cost_and_report(study):
    line = manifest.closing_line(study, 61.4)
    assert line.startswith(
        "actspace: small is done: 61 s in this run; the study took 1,500 full-depth token passes; report: "
    )
    assert line.endswith("small/report.html")


def test_the_closing_line_of_a_part_says_how_to_get_the_report(tmp_path):
    assert "without targets makes the report" in manifest.closing_line(tmp_path, 1.0)


def test_the_command_tells_whole_studies_from_others(study, monkeypatch, capsys):
    assert run(monkeypatch, study) == 0
    assert capsys.readouterr().out == "every file is as the manifest says\n"
    (study / "a/x.txt").write_text("edited")
    assert run(monkeypatch, study) == 1
    assert capsys.readouterr().out == f"{study / 'a/x.txt'}: changed\n"


def test_leftovers_of_a_removed_member_are_named_and_no_failure(study, monkeypatch, capsys):
    (study / "a/removed-member.txt").write_text("left behind")
    assert run(monkeypatch, study) == 0
    line, closing = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{study / 'a/removed-member.txt'}: extra: not in the manifest; left behind by")
    assert closing == "every file is as the manifest says"


def test_the_command_needs_a_folder_with_a_manifest(tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, tmp_path) == 1
    assert "no readable manifest.json" in capsys.readouterr().out
    assert run(monkeypatch) == 1
    assert "name the results folders or archives to check" in capsys.readouterr().out
