"""What would run, before it runs; and a disk that is too small stops a run before its first job."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from tiny import TinyStudy, config

MORE_THAN_ANY_DISK = 10**16


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> TinyStudy:
    return TinyStudy(tmp_path_factory.mktemp("plan"), "llama")


@pytest.fixture
def large(study: TinyStudy) -> Iterator[TinyStudy]:
    """The study with more training sequences than any disk has room for."""
    settings = config("llama")
    settings["tokens"]["contexts"]["train"] = MORE_THAN_ANY_DISK
    study.write(settings)
    yield study
    study.write(config("llama"))


def refused(study: TinyStudy, *arguments: str) -> None:
    run = study.snakemake(*arguments)
    assert run.code != 0, run.text
    assert "Traceback" not in run.text, run.text
    (line,) = [line for line in run.text.splitlines() if line.startswith("actspace: ")]
    sentence = r"actspace: study 'tiny': the activations still to be written need [\d,.]+ GB, but the disk of results/tiny has [\d,.]+ GB free; "
    assert re.match(sentence + "free some space, or ask for fewer sequences", line)
    assert not (study.results / "tokens").exists()


def test_the_plan_is_a_table_and_runs_nothing_else(study: TinyStudy):
    run = study.snakemake("plan")
    assert run.code == 0, run.text
    assert re.search(
        r"^captures\.contexts +4 +140 +2,240 +2,240 +[\d.]+ kB +\S+ +[\d,]+ +\d+ s$", run.text, re.MULTILINE
    )
    assert re.search(r"^disk: [\d.]+ [kM]B needed with a margin of 3%, [\d.,]+ [GT]B free$", run.text, re.MULTILINE)
    assert {path.name for path in study.results.iterdir()} == {"logs"}


def test_a_study_that_does_not_fit_is_planned_but_stops_at_its_model(large: TinyStudy):
    run = large.snakemake("plan")
    assert run.code == 0, run.text
    assert "the activations still to be written need" in run.text
    assert large.plan()["activations_contexts"] == 4
    refused(large)
    assert not (large.results / "model.json").exists()


def test_once_the_model_is_known_it_stops_before_the_first_job(study: TinyStudy, large: TinyStudy):
    study.write(config("llama"))
    assert study.snakemake("results/tiny/model.json").code == 0
    settings = study.config()
    settings["tokens"]["contexts"]["train"] = MORE_THAN_ANY_DISK
    large.write(settings)
    assert large.plan()["activations_contexts"] == 4
    refused(large)
    assert not (large.results / "selfcheck.parquet").exists()
    run = large.snakemake("results/tiny/tables/toy_truth.parquet")  # what makes no activations needs no room
    assert run.code == 0, run.text


def test_a_finished_study_has_nothing_left_to_capture(finished: TinyStudy):
    text = finished.snakemake("plan").text
    for name in ("captures.contexts", "captures.statements", "surrogates.gaussian.contexts", "perturbations.plateaus"):
        assert re.search(rf"^{re.escape(name)} +done$", text, re.MULTILINE), text
