"""The stages that read a split hold no more of it when it grows: their scripts on a corpus and on four times as much, each in a process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
from test_memory import WRITE, peak

from actspace import shards, stages
from actspace.provenance import MadeBy
from actspace.reading import read_study

HOOK, MADE_BY = "blocks.0.hook_resid_post", MadeBy("s", "r", {}, "", {})
SCRIPTS = Path(tiny.ROOT) / "workflow" / "scripts"
CONTEXTS = 1024  # of 64 tokens: 64 MB in float32
SLACK = 40_000
"""Kilobytes; what a stage holds of four times as much would be 200,000 more."""

STORE = f"""{WRITE}
import sys

for split in ("train", "test"):
    write(f"{{split}}-000.parquet", int(sys.argv[1]), d_model=256)
"""

JOB = """
import json, runpy, sys
from types import SimpleNamespace
from actspace.activations import store
from actspace.dictionaries import kmeans

store.HELD_BYTES = store.BLOCK_BYTES = store.BUFFER_BYTES = kmeans.MEMORY_BYTES = 8 << 20
store.NUMBERED_ROWS = 1 << 14

class Files(list):
    def __init__(self, **named):
        super().__init__(file for files in named.values() for file in ([files] if isinstance(files, str) else files))
        self.__dict__ |= named
    __getitem__ = lambda self, name: getattr(self, name) if isinstance(name, str) else list.__getitem__(self, name)

job = json.load(open("job.json"))
snakemake = SimpleNamespace(**{
    **job, "input": Files(**job["input"]), "output": Files(**job["output"]), "log": ["log"], "threads": 1,
    "params": SimpleNamespace(**job["params"]), "wildcards": SimpleNamespace(**job["wildcards"]),
    "resources": SimpleNamespace(device="cpu", get=lambda name, default: "cpu"),
})
runpy.run_path(job["script"], init_globals={"snakemake": snakemake})
"""

ROWS = {"activations": ["train.files.csv"], "moments": "moments.safetensors"}
TEST = {"activations": ["test.files.csv"], "moments": "moments.safetensors"}
FIT = {"fit": "made.safetensors"}
SAE = {"fit": "made/sae_weights.safetensors", "cfg": "made/cfg.json"}
METRICS = {name: f"made.{name}.parquet" for name in ("metrics", "density", "preactivations", "draws")}
STAGES = {
    "moments": ("moments", {"activations": ROWS["activations"]}, {"moments": "moments.safetensors"}),
    "surrogate of the Gaussian": ("surrogate", ROWS, {"activations": "made.parquet"}),
    "surrogate of shuffled dimensions": ("surrogate", ROWS, {"activations": "made.parquet"}),
    "pca": ("pca", ROWS, FIT),
    "kmeans": ("kmeans", ROWS, FIT),
    "random points": ("null_dictionary", ROWS, FIT),
    "random directions": ("random_directions", ROWS, SAE),
    "sae": ("sae", ROWS, {**SAE, "curve": "made.curve.parquet"}),
    "dictionary metrics": (
        "dictionary_metrics",
        {**TEST, "training": ["train.files.csv"], "fit": ["fit.safetensors"]},
        METRICS,
    ),
    "spikes": ("spikes", {**TEST, "fits": ["fit.safetensors"]}, {"table": "made.parquet"}),
}


FITS = {
    "random_points": {"sizes": [4]},
    "random_directions": {"latents": [48], "k": [4]},
    "nulls": ["gaussian", "shuffled"],
}


def settings(stage: str) -> dict[str, object]:
    """Return what the config says for a stage of the tiny study."""
    config = tiny.config("gpt2")
    config["dictionaries"]["residual"] |= FITS
    study = read_study(config)
    fit = {"dictionaries": "residual", "hook": HOOK, "data": "real"}
    found = {
        "moments": lambda: stages.moments(study, "contexts", HOOK),
        "surrogate of the Gaussian": lambda: stages.surrogate(study, "gaussian", "contexts", HOOK, "train"),
        "surrogate of shuffled dimensions": lambda: stages.surrogate(study, "shuffled", "contexts", HOOK, "train"),
        "dictionary metrics": lambda: stages.dictionary_metrics(study, **fit, fit="pca-r2"),
        "spikes": lambda: stages.spikes(study, "activations"),
    }
    fits = {"pca": "pca-", "kmeans": "kmeans-", "sae": "topk-", "random points": "random_points-"}
    fits["random directions"] = "random_directions-"
    if stage in fits:
        named = next(
            name for name in stages.fits_to(study.dictionaries["residual"], "real") if name.startswith(fits[stage])
        )
        return stages.canonical(stages.fit(study, **fit, fit=named))
    return stages.canonical(found[stage]())


def run(folder: Path, stage: str) -> int:
    """Run the job of a stage; return its peak memory in kilobytes."""
    script, inputs, outputs = STAGES[stage]
    job = {
        **{"script": str(SCRIPTS / f"{script}.py"), "rule": script, "config": {"study": "s"}},
        **{"input": inputs, "output": outputs, "params": {"cfg": settings(stage), "code": ""}},
        "wildcards": {"data": "real", "hook": HOOK, "fit": "f", "dictionaries": "residual"},
    }
    (folder / "job.json").write_text(json.dumps(job))
    return peak(folder, JOB)


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return folders with a corpus and with four times as much, their moments and a fit."""
    folders = []
    for contexts in (CONTEXTS, 4 * CONTEXTS):
        folders.append(folder := tmp_path_factory.mktemp("corpus"))
        peak(folder, STORE, contexts * 64)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            for split in stages.SPLITS:
                shards.write(f"{split}{shards.SUFFIX}", shards.sums([f"{split}-000.parquet"]), MADE_BY)
        run(folder, "moments")
        run(folder, "pca")
        (folder / "made.safetensors").rename(folder / "fit.safetensors")
    return folders


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_four_times_the_contexts_need_no_more_memory(corpora, stage):
    small, large = (run(folder, stage) for folder in corpora)
    assert large < small + SLACK
