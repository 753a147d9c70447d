"""Mistakes of users: one clear line that names key or file and remedy, and an exit code that is not 0."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny import ROOT, TinyStudy, config


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> TinyStudy:
    return TinyStudy(tmp_path_factory.mktemp("errors"), "llama")


def lines_of(study: TinyStudy, settings: dict[str, Any], *arguments: str, **environment: str) -> list[str]:
    """Run the study until it fails and return the lines that are ours."""
    study.write(settings)
    run = study.snakemake(*arguments, **environment)
    assert run.code != 0, run.text
    assert "Traceback" not in run.text, run.text
    return [line for line in run.text.splitlines() if line.startswith(("actspace: ", "config/"))]


def test_a_misspelt_key(study: TinyStudy):
    settings = config("llama")
    settings["dictionaries"]["residual"]["kmens"] = {}
    (line,) = lines_of(study, settings, "-n")
    assert line.startswith("config/config.yaml: dictionaries.residual.kmens: unknown key")
    assert line.endswith("did you mean 'kmeans'?")


def test_a_wrong_type(study: TinyStudy):
    settings = config("llama")
    settings["tokens"]["contexts"]["train"] = "many"
    (line,) = lines_of(study, settings, "-n")
    assert line == "config/config.yaml: tokens.contexts.train: found 'many'; input should be a valid integer"


def test_a_hook_that_the_model_lacks_stops_the_first_job(study: TinyStudy):
    settings = config("llama")
    settings["captures"]["prompts"]["hooks"].append("blocks.7.hook_resid_post")
    (line,) = lines_of(study, settings)
    expected = (
        "captures.prompts.hooks[1]: this model has no 'blocks.7.hook_resid_post' (it has blocks 0 to 1); did you mean"
    )
    assert line.startswith(f"actspace: {expected}")
    assert not (study.results / "selfcheck.parquet").exists()


def test_a_gauge_that_the_model_does_not_have(study: TinyStudy):
    settings = config("llama")
    settings["model"]["gauge"] = "centred"
    (line,) = lines_of(study, settings)
    assert line == "actspace: model.gauge: 'centred' changes the output of a model with RMSNorm; set it to 'raw'"


def test_a_statement_file_without_the_column(study: TinyStudy):
    (study.folder / "mine.csv").write_text("sentence,label\nParis is in France.,1\nParis is in Peru.,0\n")
    settings = config("llama")
    settings["statements"]["truth"] = {"files": {"mine": "mine.csv"}}
    settings["causal"]["directions"]["sets"] = ["mine"]
    (line,) = lines_of(study, settings, "results/tiny/statements/truth.parquet")
    assert line.startswith("actspace: mine.csv: no column 'statement'")
    assert "sentence" in line


def test_a_hub_that_cannot_be_reached(study: TinyStudy, tmp_path: Path):
    settings = config("llama")
    settings["model"]["source"] = {"kind": "hub", "repo": "someone/model", "revision": "main"}
    (line,) = lines_of(study, settings, HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=str(tmp_path))
    assert "someone/model" in line
    assert "reach" in line


def test_a_corpus_that_is_too_short(study: TinyStudy):
    settings = config("llama")
    settings["tokens"]["contexts"]["train"] = 100_000
    (line,) = lines_of(study, settings, "results/tiny/tokens/contexts/train-000.parquet")
    assert "of 100000 train" in line


@pytest.mark.parametrize("file", sorted((ROOT / "config" / "studies").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_published_studies_plan_without_a_network(study: TinyStudy, file: Path):
    run = study.snakemake("-n", "--configfile", f"config/studies/{file.name}", HF_ENDPOINT="http://127.0.0.1:9")
    assert run.code == 0, run.text
    assert run.rules["report"] == 1


def test_an_override_is_layered_over_a_study(study: TinyStudy):
    study.write(config("llama"))
    (study.folder / "more.yaml").write_text(
        yaml.safe_dump({"perturbations": {"plateaus": {"read": "blocks.1.hook_bad"}}})
    )
    run = study.snakemake("-n", "--configfile", "config/config.yaml", "more.yaml")
    assert run.code != 0
    assert "config.yaml + " in run.text
    assert "perturbations.plateaus.read" in run.text
