"""What survives when a run is killed or the disk is full: finished shards stay, and nothing looks finished that is not."""

from __future__ import annotations

import hashlib
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tiny import TinyStudy, config

KILLS = 10
SHARDS = 8
TARGETS = [
    f"results/tiny/activations/contexts/blocks.{layer}.hook_resid_post/{split}-{shard:03d}.parquet"
    for layer in (0, 1)
    for split in ("train", "test")
    for shard in range(SHARDS)
]


def captures_only() -> dict[str, Any]:
    """Return a study of one capture in several shards, two hooks each."""
    settings = {key: value for key, value in config("llama").items() if key in ("study", "model", "compute", "corpus")}
    tokens = {"contexts": {"length": 16, "train": 100, "test": 40, "shards": SHARDS}}
    capture = {"tokens": "contexts", "hooks": ["blocks.{0..1}.hook_resid_post"]}
    return {
        **settings,
        "compute": {"threads": 1, "batch_tokens": 32},
        "tokens": tokens,
        "captures": {"contexts": capture},
    }


def study_in(folder: Path) -> TinyStudy:
    study = TinyStudy(folder, "llama")
    study.write(captures_only())
    return study


def sums(study: TinyStudy) -> dict[str, str]:
    """Return the sha256 of every activation file and receipt."""
    files = sorted((study.results / "activations").rglob("*.parquet*"))
    return {str(f.relative_to(study.folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def finished_shards(study: TinyStudy) -> dict[str, int]:
    """Return when the receipts of shards were written that are complete at both hooks."""
    found = {}
    for path in TARGETS:
        receipts = [study.folder / f"{path.replace('blocks.0', f'blocks.{layer}')}.json" for layer in (0, 1)]
        if all(receipt.exists() for receipt in receipts):
            found[Path(path).stem] = max(receipt.stat().st_mtime_ns for receipt in receipts)
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], float]:
    """Files of a run that nobody disturbed, and how long the captures took."""
    study = study_in(tmp_path_factory.mktemp("undisturbed"))
    assert (
        study.snakemake(
            "results/tiny/selfcheck.parquet",
            *[f"results/tiny/tokens/contexts/{p}-000.parquet" for p in ("train", "test")],
        ).code
        == 0
    )
    started = time.monotonic()
    run = study.snakemake(*TARGETS)
    assert run.code == 0, run.text
    return sums(study), time.monotonic() - started


@pytest.mark.slow
def test_a_run_killed_ten_times_redoes_only_shards_in_flight_and_ends_in_the_same_bytes(tmp_path, undisturbed):
    expected, seconds = undisturbed
    study, moments = study_in(tmp_path), random.Random(0)
    assert study.snakemake("results/tiny/selfcheck.parquet").code == 0
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--quiet", "all", *TARGETS]
    for _ in range(KILLS):
        before = finished_shards(study)
        assert len(before) < 2 * SHARDS, "nothing was left to kill"
        run = subprocess.Popen(
            command, cwd=study.folder, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(moments.uniform(0.08, 0.25) * seconds)
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        assert study.snakemake("--unlock").code == 0
        after = finished_shards(study)
        assert before.items() <= after.items(), "a finished shard was made again"
        assert all(expected[f] == s for f, s in sums(study).items() if not f.endswith(".json")), (
            "half a file looks whole"
        )
    left = study.plan(*TARGETS)
    assert sum(n for name, n in left.items() if name.startswith("activations")) <= 2 * SHARDS - len(after)
    run = study.snakemake(*TARGETS)
    assert run.code == 0, run.text
    assert after.items() <= finished_shards(study).items()
    assert sums(study) == expected
    assert not [*study.results.rglob("*.partial")]


@pytest.fixture
def little_disk(tmp_path: Path) -> Path:
    """Return a folder with a disk of its own that holds 300 KB."""
    folder = tmp_path / "results" / "tiny" / "activations"
    folder.mkdir(parents=True)
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "none", str(folder)], capture_output=True, check=False
    ).returncode:
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_stops_the_run_with_one_line_and_leaves_nothing_that_looks_finished(tmp_path, little_disk):
    study = study_in(tmp_path)
    settings = captures_only()
    settings["tokens"]["contexts"] |= {"train": 140, "shards": 1}
    study.write(settings)
    run = study.snakemake(TARGETS[0])
    assert run.code != 0
    assert "Traceback" not in run.text
    (line,) = {line for line in run.text.splitlines() if line.startswith("actspace: ")}
    assert re.search(
        r"activations/contexts/blocks\.\d\.hook_resid_post/train-000\.parquet: the disk is full \(0 MB free\); free some",
        line,
    )
    assert not [path for path in little_disk.rglob("*") if path.is_file()]


@pytest.mark.slow  # the lines themselves are held by tests of the store
@pytest.mark.parametrize(
    ("size", "remedy"),
    [
        (1e6, "a value overflows float16; set `storage: bfloat16` or `float32`"),
        (float("nan"), "NaN or infinity came out of the model; check `model.dtype`"),
    ],
)
def test_a_number_that_cannot_be_stored_stops_the_run_and_names_hook_shard_and_remedy(tmp_path, size, remedy):
    from safetensors.torch import load_file, save_file

    study = study_in(tmp_path)
    assert study.snakemake("results/tiny/selfcheck.parquet").code == 0
    weights = study.folder / "model" / "model.safetensors"
    tensors = load_file(weights)
    name = next(name for name in tensors if "embed" in name)
    tensors[name][:] = size
    save_file(tensors, weights, metadata={"format": "pt"})
    run = study.snakemake(TARGETS[0])
    assert run.code != 0
    assert f"actspace: captures: blocks.0.hook_resid_post: train-000: row 0: {remedy}" in run.text
    assert "Traceback" not in run.text
    assert not [*study.results.rglob("activations/**/*.parquet*")]
