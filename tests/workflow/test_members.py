"""Members of a study come and go: a new one is computed alone, and one that is taken out leaves nothing in what is shown or packed."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from tiny import TinyStudy, config, smaller

from actspace import verify

HOOKS = ["blocks.0.hook_resid_post", "blocks.1.hook_resid_post"]
FITS = "dictionaries/residual"


def with_members(settings: dict[str, Any]) -> dict[str, Any]:
    """Add a layer, a seed, a K, an SAE size and a set of statements."""
    dictionary = settings["dictionaries"]["residual"]
    settings["captures"]["contexts"]["hooks"] = HOOKS
    dictionary["hooks"] = HOOKS
    dictionary["kmeans"] |= {"sizes": [4, 8], "seeds": [0, 1]}
    dictionary["topk"]["latents"] = [48, 64]
    settings["statements"]["more"] = {"generated": ["comparisons"], "per_set": 40}
    settings["captures"]["more"] = {**settings["captures"]["statements"], "tokens": "more"}
    settings["probes"]["more"] = {"capture": "more", "splits": 3}
    return settings


def few() -> dict[str, Any]:
    settings = smaller(config("llama"))
    settings["dictionaries"]["residual"]["nulls"] = []
    del settings["dictionaries"]["residual"]["given"]
    return settings


def results(study: TinyStudy) -> dict[str, int]:
    """Return when every result and receipt was written, by name below the study's folder."""
    files = (path for path in study.results.rglob("*") if path.is_file())
    named = {str(path.relative_to(study.results)): path.stat().st_mtime_ns for path in files}
    return {name: time for name, time in named.items() if name.split("/")[0] not in ("logs", "benchmarks")}


def times(study: TinyStudy) -> dict[str, int]:
    """As `results`, of one member each. Tables, figures and the page show all, and three files compare all fits of a place."""
    compared = ("contexts.parquet", "matches.parquet", "splice.parquet")
    of_all = ("tables", "figures")
    of_one = {name: time for name, time in results(study).items() if "/" in name and name.split("/")[0] not in of_all}
    return {name: of_one[name] for name in of_one if not Path(name.removesuffix(".json")).name.endswith(compared)}


def run(study: TinyStudy, *arguments: str) -> str:
    done = study.snakemake(*arguments)
    assert done.code == 0, done.text[-5000:]
    return done.text


def tables(study: TinyStudy) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (study.results / "tables").glob("*.parquet")}


@pytest.mark.slow
def test_added_members_are_computed_alone_and_removed_ones_are_left_out_of_everything(tmp_path: Path):
    study = TinyStudy(tmp_path, "llama")
    study.write(few())
    run(study)
    before, names_before, tables_before = times(study), results(study).keys(), tables(study)

    study.write(with_members(few()))
    planned = study.plan()
    assert planned["added_activations_contexts"] == 2  # shards, at the new layer
    assert planned["kmeans"] == 2 * 4 - 1
    assert planned["sae"] == 2 * 2 - 1
    assert planned["moments"] == 1
    assert "activations_contexts" not in planned
    assert planned["probes"] == planned["activations_more"] == 1
    run(study)
    assert before.items() <= times(study).items()
    assert study.plan() == {}

    study.write(few())
    assert not {"activations_contexts", "kmeans", "sae", "probes", "moments"} & study.plan().keys()
    text = run(study, "all", "archive")
    gone = results(study).keys() - names_before
    assert f"{sum(f'{name}.json' in gone for name in gone)} files of members that were removed" in text
    listed = verify.check(study.results)
    assert not {f"results/tiny/{name}" for name in gone} & set(
        zipfile.ZipFile(study.folder / "results" / "tiny.zip").namelist()
    )
    report = (study.results / "report.html").read_text()
    assert "topk-n64" not in report
    assert listed.problems == []

    clean = [sys.executable, "-m", "actspace.leftovers", "results/tiny", "--delete"]
    subprocess.run(clean, cwd=study.folder, check=True, env={**os.environ, "PYTHONPATH": "workflow"})
    assert results(study).keys() == names_before
    assert tables(study) == tables_before
    assert study.plan() == {}
