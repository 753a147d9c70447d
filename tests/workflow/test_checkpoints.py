"""Training checkpoints as an axis: captures and sweeps of other revisions of a hub model, from a hub on the loopback interface."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny import TinyStudy

import checkpoints
from actspace import tables
from actspace.activations import store
from hub_server import HubServer

SITE = "blocks.1.hook_resid_pre"
REPO = "somebody/tiny"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TinyStudy, dict[str, str]]]:
    """A study of a hub model with one capture of its own revision and one of an earlier checkpoint."""
    study = TinyStudy(tmp_path_factory.mktemp("checkpoints"), "gpt_neox", small=True)
    root = tmp_path_factory.mktemp("hub")
    for seed, revision in enumerate(("main", "step1000")):
        checkpoints.make(
            "gpt_neox", root / "models" / REPO / revision, (study.folder / "text.txt").read_text(), seed=seed
        )
    settings = study.config()
    settings["model"]["source"] = {"kind": "hub", "repo": REPO, "revision": "main"}
    prompts = settings["captures"]["prompts"]
    settings["captures"] = {
        "prompts": prompts,
        "early": {**prompts, "revision": "step1000"},
        "drawn": {**prompts, "weights": "random"},
    }
    sweep = settings["perturbations"]["sensitive_directions"] | {"directions": ["covariance_mixture"]}
    settings["perturbations"] = {
        "now": sweep,
        "then": sweep | {"capture": "early"},
        "never": sweep | {"capture": "drawn"},
    }
    kept = ("study", "model", "compute", "corpus", "tokens", "captures", "perturbations")
    study.write({section: settings[section] for section in kept})
    with HubServer(root) as server:
        yield study, {"HF_ENDPOINT": server.url, "HF_HOME": str(root / "home"), "HF_HUB_OFFLINE": "0"}


def test_a_checkpoint_is_captured_and_perturbed_beside_the_finished_model(trained):
    study, hub = trained
    run = study.snakemake(**hub)
    assert run.code == 0, run.text[-3000:]
    shards = {name: [study.results / "activations" / name / SITE / "test-000.parquet"] for name in ("prompts", "early")}
    now, then = (store.read(files) for files in shards.values())
    assert (now.column("sequence_id") == then.column("sequence_id")).all()
    assert (now.x - then.x).abs().max() > 0.1
    described = [json.loads((study.results / name).read_text()) for name in ("model.json", "checkpoints/step1000.json")]
    assert described[0]["weights"] != described[1]["weights"]
    assert [d["source"]["revision"] for d in described] == ["main", "step1000"]
    receipt = json.loads(Path(f"{shards['early'][0]}.json").read_text())
    assert any(name.endswith("checkpoints/step1000.json") for name in receipt["inputs"])


def test_the_states_of_the_model_stand_beside_each_other_in_one_figure(trained):
    study, _ = trained
    picture = (study.results / "figures" / "training.svg").read_text()
    assert "in 3 states of the model" in picture
    statistics = tables.read(study.results / "tables" / "perturbation_statistics.parquet")
    assert set(statistics["weights"]) == {"trained", "step1000", "random"}


def test_adding_a_checkpoint_runs_what_it_needs_alone(trained):
    study, hub = trained
    settings = study.config()
    settings["captures"]["earlier"] = settings["captures"]["early"] | {"revision": "step0"}
    path = study.folder / "more.yaml"
    path.write_text(json.dumps({"captures": {"earlier": settings["captures"]["earlier"]}}))
    run = study.snakemake("-n", "--configfile", "config/config.yaml", str(path), **hub)
    assert run.code == 0, run.text[-3000:]
    assert set(run.rules) == {"checkpoint", "activations_earlier", "shards", "report", "manifest"}
