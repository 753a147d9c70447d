from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from actspace import leftovers, manifest, provenance, upgrades
from actspace.errors import StudyError

ROOT = Path(__file__).parents[2]
NOW = provenance.installed_versions()


def made(folder: Path, name: str, rule: str, **versions: str) -> Path:
    made_by = provenance.MadeBy("s", rule, {}, "0" * 16, {}, {**NOW, **versions})
    provenance.write(folder / name, lambda path: path.write_text(name), made_by)
    return folder / name


@pytest.fixture
def results(tmp_path) -> Path:
    """A study with three files, of which one was made with an older numpy and an older torch; and one that it no longer has."""
    folder = tmp_path / "s"
    files = [
        made(folder, "a.parquet", "tokens_a"),
        made(folder, "fits/b.safetensors", "kmeans", numpy="1.0", torch="1.0"),
        made(folder, "c.parquet", "claims", numpy="1.0"),
    ]
    made(folder, "fits/gone/old.safetensors", "pca", numpy="0.1")
    manifest.write(folder / "manifest.json", [str(provenance.receipt_of(path)) for path in files])
    return folder


def run(module, monkeypatch, *arguments) -> int:
    monkeypatch.setattr("sys.argv", ["program", *map(str, arguments)])
    return module.main()


def test_upgrades_name_the_rules_that_were_made_with_other_versions(results):
    assert upgrades.affected(results) == {
        f"numpy 1.0 -> {NOW['numpy']}": ["claims", "kmeans"],
        f"torch 1.0 -> {NOW['torch']}": ["kmeans"],
    }
    assert "may affect 2 stages, none was rerun" in str(upgrades.remark(results))


def test_nothing_is_said_where_nothing_was_upgraded(results):
    for name in ("fits/b.safetensors", "c.parquet"):
        made(results, name, "kmeans")
    assert upgrades.affected(results) == {}
    assert upgrades.remark(results) is None


def test_the_command_prints_rules_alone_so_that_snakemake_can_take_them(results, monkeypatch, capsys):
    assert run(upgrades, monkeypatch, results) == 0
    printed = capsys.readouterr()
    assert printed.out.split() == ["claims", "kmeans"]
    assert f"numpy 1.0 -> {NOW['numpy']}: claims, kmeans" in printed.err
    assert run(upgrades, monkeypatch, results / "fits") == 1
    assert "no readable manifest.json" in capsys.readouterr().err


def test_the_commands_that_are_named_run_as_they_are_copied(results):
    here = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for remark in (upgrades.remark(results), leftovers.remark(results)):
        (line,) = re.findall(r"[`(](PYTHONPATH=[^`)]+)", str(remark))
        run = subprocess.run(["bash", "-c", line], cwd=ROOT, env=here, capture_output=True, text=True)
        assert (run.returncode, bool(run.stdout)) == (0, True), run.stderr


def test_leftovers_are_listed_and_only_deleted_when_asked(results, monkeypatch, capsys):
    (results / "mine.txt").write_text("notes")
    (results / "mine.txt.json").write_text("{}")
    old = results / "fits" / "gone" / "old.safetensors"
    assert leftovers.find(results) == [old]
    assert "1 files of members that were removed" in str(leftovers.remark(results))
    assert run(leftovers, monkeypatch, results) == 0
    assert old.is_file()
    assert run(leftovers, monkeypatch, results, "--delete") == 0
    assert f"{old}\n{results}: 1 deleted\n" in capsys.readouterr().out
    assert not old.parent.exists()
    assert (results / "mine.txt").is_file()
    assert (results / "fits" / "b.safetensors").is_file()
    assert leftovers.remark(results) is None


def test_a_leftover_that_somebody_changed_stays(results):
    old = results / "fits" / "gone" / "old.safetensors"
    old.write_text("F" + old.read_text()[1:])
    os.utime(old, (0, 0))
    assert leftovers.delete(results, leftovers.find(results)) == [old]
    assert old.is_file()


def test_files_of_another_study_and_links_stay(results, tmp_path):
    receipt = results / "fits" / "gone" / "old.safetensors.json"
    receipt.write_text(json.dumps({**json.loads(receipt.read_text()), "study": "another"}))
    assert leftovers.find(results) == []


def test_leftovers_need_a_manifest(tmp_path):
    with pytest.raises(StudyError, match=r"no readable manifest\.json"):
        leftovers.find(tmp_path)


def test_what_is_newer_than_the_manifest_is_no_leftover(results):
    written = (results / "manifest.json").stat().st_mtime_ns
    new = made(results, "fits/new.safetensors", "kmeans")
    os.utime(new, ns=(written + 10**9, written + 10**9))
    assert new not in leftovers.find(results)
