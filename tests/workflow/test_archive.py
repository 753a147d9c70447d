"""The archive of a study: made twice it is the same, and unpacked elsewhere there is nothing to do."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_reruns import END, FIT_END, LAST, with_figures
from tiny import COPIED, ROOT, TinyStudy

from actspace import verify


def archived(study: TinyStudy) -> Path:
    run = study.snakemake("archive")
    assert run.code == 0, run.text[-3000:]
    return study.folder / "results" / "tiny.zip"


def unpacked(path: Path, folder: Path) -> TinyStudy:
    """The study in another folder, as an archive has it: without model, text and SAEs."""
    with zipfile.ZipFile(path) as file:
        file.extractall(folder)
    study = object.__new__(TinyStudy)
    study.folder = folder
    return study


def with_inputs(study: TinyStudy, of: TinyStudy) -> TinyStudy:
    """Put what an archive leaves to its user where the config names it."""
    for name in ("text.txt", "model", "saes"):
        (shutil.copytree if (of.folder / name).is_dir() else shutil.copy2)(of.folder / name, study.folder / name)
    return study


@pytest.fixture(scope="module")
def archive(finished: TinyStudy) -> Iterator[Path]:
    path = archived(finished)
    yield path
    for name in (path, Path(f"{path}.json")):
        name.unlink(missing_ok=True)


def test_an_archive_that_was_deleted_is_made_again_to_the_same_bytes(finished: TinyStudy, archive: Path):
    before = archive.read_bytes()
    archive.unlink()
    assert archived(finished).read_bytes() == before


def test_verify_passes_and_then_names_a_file_with_one_byte_changed(archive: Path, tmp_path):
    assert verify.check(archive).problems == []
    study = unpacked(archive, tmp_path)
    for place in (study.folder, study.results):
        assert verify.check(place).problems == []
    table = study.results / "tables" / "claims.parquet"
    data = bytearray(table.read_bytes())
    data[len(data) // 2] ^= 1
    table.write_bytes(data)
    assert verify.check(study.results).problems == [f"{table}: changed"]
    assert verify.check(study.folder).problems == [f"{table}: changed"]


def test_unpacked_elsewhere_nothing_is_to_be_done_and_an_edit_reruns_what_uses_it(archive: Path, tmp_path):
    study = unpacked(archive, tmp_path)
    assert not (study.results / "activations" / "prompts" / "blocks.1.hook_resid_pre" / "test-000.parquet").exists()
    assert study.plan() == {}
    settings = study.config()
    settings["toy"]["points"] = 1000
    study.write(settings)
    assert set(study.plan()) == with_figures({"toy"} | END)
    assert verify.check(study.folder).problems == [f"{study.folder}/config/config.yaml: changed"]


def test_without_activations_a_fit_is_made_anew_from_new_ones(finished: TinyStudy, archive: Path, tmp_path):
    study = with_inputs(unpacked(archive, tmp_path), finished)
    assert not list(study.results.glob("activations/**/*.parquet"))
    (study.results / "tokens" / "prompts" / "train-000.parquet").unlink()
    assert "tokens_prompts" in study.plan("archive")
    settings = study.config()
    settings["dictionaries"]["residual"]["kmeans"]["tolerance"] = 0.01
    study.write(settings)
    assert {"activations_contexts", "shards", "kmeans"} <= set(study.plan())


def test_with_activations_a_fit_is_made_anew_from_them(finished: TinyStudy, tmp_path):
    original = finished.config()
    finished.write(original | {"archive": {"activations": True}})
    study = with_inputs(unpacked(archived(finished), tmp_path), finished)
    finished.write(original)
    assert study.plan() == {}
    settings = study.config()
    settings["dictionaries"]["residual"]["kmeans"]["tolerance"] = 0.01
    study.write(settings | {"title": "Another title"})
    assert set(study.plan()) == with_figures({"kmeans"} | FIT_END)


def test_another_title_reruns_the_report_of_an_unpacked_archive(archive: Path, tmp_path):
    study = unpacked(archive, tmp_path)
    study.write(study.config() | {"title": "Another title"})
    assert set(study.plan()) == LAST


def test_downloads_are_planned_by_themselves(tmp_path):
    for name in COPIED:
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy2)(ROOT / name, tmp_path / name)
    study = object.__new__(TinyStudy)
    study.folder = tmp_path
    assert study.plan("fetch") == {"package": 2, "convert_model": 1, "fetch": 1}
