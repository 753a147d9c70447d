"""Faults of single files: none leaves a wrong file that looks finished, and each is told in one line."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from actspace import manifest, provenance, runs, shards, tables, tokens
from actspace.activations import moments, store
from actspace.dictionaries import base, saelens
from actspace.dictionaries.sae.checkpoint import Checkpoint
from actspace.errors import StudyError
from actspace.probes import linear
from actspace.provenance import MadeBy
from faults import PowerCut, change_inside, cut_short, little_disk, names_in, unchangeable

MADE_BY = MadeBy("small", "rule", {"k": 1}, "c0de", {})
ROWS, D_MODEL = 3000, 16


def gaussian(rows: int = ROWS) -> torch.Tensor:
    return torch.randn(rows, D_MODEL, generator=torch.Generator().manual_seed(0))


# --- writers of every kind of file -----------------------------------------------------------------------------------------------------------


def write_activations(path: Path) -> None:
    number = np.arange(ROWS)
    keys = dict.fromkeys(("sequence_id", "position", "token_id"), number) | {"document_id": number.astype(str)}
    store.write(path, gaussian(), keys, "float32", MADE_BY)


def write_tokens(path: Path) -> None:
    rows = pa.table({"token_ids": gaussian().tolist()})  # fewer than a row group: they wait until the end
    with tokens.Shards([str(path)], MADE_BY) as written:
        written.add("test", 0, rows)
        written.finish()


def write_table(path: Path) -> None:
    tables.write(path, pd.DataFrame({"value": gaussian().flatten().numpy()}), MADE_BY)


def write_csv(path: Path) -> None:
    table = pd.DataFrame({"value": gaussian().flatten().numpy()})
    provenance.write(path, lambda temporary: table.to_csv(temporary, index=False), MADE_BY)


def write_moments(path: Path) -> None:
    x, numbers = gaussian().double(), dict.fromkeys(("mean_norm", "median_distance", "median_angle_deg"), 1.0)
    found = moments.Moments(ROWS, x.mean(0), x.T.cov(), **numbers, max_norm=9.0, excluded=0)
    provenance.write(path, lambda temporary: moments.save(temporary, found), MADE_BY)


def write_kmeans(path: Path) -> None:
    fit = base.KMeans({"centroids": gaussian(200)})
    provenance.write(path, lambda temporary: base.save(fit, temporary, {}), MADE_BY)


def write_sae(path: Path) -> None:
    weights = {"W_enc": gaussian(300).T, "b_enc": torch.zeros(300), "W_dec": gaussian(300), "b_dec": torch.zeros(16)}
    saelens.write_artifacts(base.TopK(weights, k=2), str(path), str(path.with_name("cfg.json")), {}, MADE_BY)


def write_probes(path: Path) -> None:
    probes = {f"p{i}": linear.LinearProbe(x.double().numpy(), 0.0, f"p{i}") for i, x in enumerate(gaussian(100))}
    provenance.write(path, lambda temporary: linear.save(temporary, probes), MADE_BY)


def write_checkpoint(path: Path) -> None:
    Checkpoint(path, "a run").save({"x": gaussian()}, {"done": 3})


def write_manifest(path: Path) -> None:
    manifest.write(path, [str(path.with_name("x.json"))])


WRITERS: dict[str, Callable[[Path], None]] = {
    "train-000.parquet": write_activations,
    "test-000.parquet": write_tokens,
    "table.parquet": write_table,
    "table.csv": write_csv,
    "moments.safetensors": write_moments,
    "kmeans.safetensors": write_kmeans,
    "sae_weights.safetensors": write_sae,
    "directions.safetensors": write_probes,
    "sae.checkpoint": write_checkpoint,
    "manifest.json": write_manifest,
}


@pytest.fixture(params=WRITERS)
def name(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Name a file of each kind; a receipt lies there for the manifest to list."""
    for folder in (tmp_path / "here", tmp_path / "undisturbed"):
        folder.mkdir()
        (folder / "x.json").write_text(json.dumps({"sha256": "0" * 64, "size": 3, "rule": "rule"}))
    WRITERS[request.param](tmp_path / "undisturbed" / request.param)
    return request.param


def assert_whole(folder: Path, name: str) -> None:
    """Check that a folder holds what it holds undisturbed; checkpoints, written in no order, by their sizes alone."""
    undisturbed = folder.parent / "undisturbed"
    assert names_in(folder) == names_in(undisturbed)
    for file in names_in(folder):
        found, expected = (folder / file).read_bytes(), (undisturbed / file).read_bytes()
        same = len(found) == len(expected) if name == "sae.checkpoint" else found == expected
        assert same, f"half a file looks whole: {file}"


# --- crashes ---------------------------------------------------------------------------------------------------------------------------------


def test_a_file_that_has_its_name_outlives_a_power_cut(tmp_path, name, monkeypatch):
    power = PowerCut(monkeypatch)
    (tmp_path / "here" / "x.json").unlink()
    provenance.write_text(tmp_path / "here" / "x.json", (tmp_path / "undisturbed" / "x.json").read_text())
    WRITERS[name](tmp_path / "here" / name)
    power.strike(tmp_path / "here")
    assert_whole(tmp_path / "here", name)


def test_a_file_whose_writer_is_killed_has_no_name_and_the_next_one_is_whole(tmp_path, name):
    child = os.fork()
    if not child:  # the kernel kills a process whose file grows beyond the limit, in the middle of a write
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
        WRITERS[name](tmp_path / "here" / name)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGXFSZ
    left = [file for file in names_in(tmp_path / "here") if not file.startswith(".")]
    assert left == ["x.json"], "half a file looks whole"
    WRITERS[name](tmp_path / "here" / name)
    assert_whole(tmp_path / "here", name)


# --- disks -----------------------------------------------------------------------------------------------------------------------------------


def refused(write: Callable[[], object], reason: str) -> None:
    """Check that writing ends with one line that says why."""
    with pytest.raises(StudyError, match=reason) as caught:
        write()
    assert "\n" not in str(caught.value)


def test_a_full_disk_is_one_line_and_leaves_nothing_whatever_is_written(tmp_path, name):
    with little_disk(tmp_path / "disk", kilobytes=64) as folder:
        (folder / "x.json").write_bytes((tmp_path / "here" / "x.json").read_bytes())
        with suppress(OSError), (folder / "others").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        refused(lambda: WRITERS[name](folder / name), r"the disk is full \(0 MB free\); free some space")
        assert names_in(folder) == ["others", "x.json"]
        (folder / "others").unlink()


@pytest.mark.parametrize("what", ["the file", "its folder"])
def test_what_may_not_be_written_is_one_line_and_stays_as_it_is(tmp_path, name, what):
    WRITERS[name](path := tmp_path / "here" / name)
    path.write_bytes(b"older")
    before = names_in(path.parent)
    with unchangeable(path if what == "the file" else path.parent):
        refused(
            lambda: WRITERS[name](path), r"cannot be written \(Operation not permitted\); make the file and its folder"
        )
        assert path.read_bytes() == b"older"
        assert set(names_in(path.parent)) <= set(before)


def test_a_run_names_the_folders_that_it_may_not_write_in(tmp_path):
    outputs = [tmp_path / "tables" / "new" / "a.csv", tmp_path / "logs" / "a.log"]
    for folder in ("tables", "logs"):
        (tmp_path / folder).mkdir()
    runs.check_outputs(outputs)
    with unchangeable(tmp_path / "tables"):
        refused(lambda: runs.check_outputs(outputs), rf"^{tmp_path}/tables: cannot be written to; make it writable")


# --- damage ----------------------------------------------------------------------------------------------------------------------------------


def test_a_job_refuses_an_input_that_was_cut_short(tmp_path):
    write_table(tmp_path / "table.parquet")
    cut_short(tmp_path / "table.parquet")
    job = SimpleNamespace(cfg={}, code="c0de"), [f"{tmp_path}/table.parquet", f"{tmp_path}/table.parquet.json"]
    refused(
        lambda: provenance.of("small", "rule", *job), r"table.parquet: has \d+ bytes, its receipt says \d+; .* delete"
    )


READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "a table": ("table.parquet", tables.read),
    "a table in pieces": ("table.parquet", lambda path: [*tables.stream(path)]),
    "activations": ("train-000.parquet", lambda path: store.read([path])),
    "shuffled activations": ("train-000.parquet", lambda path: [*store.Activations([path]).batches(64, seed=0)]),
    "moments": ("moments.safetensors", moments.load),
    "k-means": ("kmeans.safetensors", base.load),
    "an SAE": ("sae_weights.safetensors", base.load),
    "probes": ("directions.safetensors", linear.load),
}


@pytest.mark.parametrize("kind", READERS)
def test_a_number_that_was_changed_inside_a_file_is_never_read(tmp_path, kind):
    name, read = READERS[kind]
    WRITERS[name](tmp_path / name)
    read(tmp_path / name)
    # Among the numbers: behind the header of safetensors, and far before the footer of Parquet and the indices into its dictionary.
    change_inside(tmp_path / name, share=0.5 if name.endswith(".parquet") else 0.9)
    refused(
        lambda: read(tmp_path / name), rf"{name}: .*(CRC checksum|its receipt says|not what was written).* run again"
    )


def test_a_run_names_all_inputs_that_were_cut_short_and_the_command_that_mends_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = [Path("whole.parquet"), Path("short.parquet"), Path("unsaid.parquet")]
    for path in paths:
        write_table(path)
    cut_short(paths[1])
    cut_short(Path("unsaid.parquet.json"))
    inputs = [*paths, *map(provenance.receipt_of, paths), "absent.parquet.json"]
    command = "rm -f short.parquet short.parquet.json unsaid.parquet unsaid.parquet.json"
    refused(
        lambda: runs.check_inputs(inputs),
        rf"^short.parquet, unsaid.parquet: not as the receipt says; .*`{command} && snakemake --cores all short.parquet unsaid.parquet`",
    )
    subprocess.run(command.split(), check=True)
    runs.check_inputs(inputs)


@pytest.mark.parametrize(
    ("damage", "said", "removed"),
    [
        (Path.unlink, "missing", "rm -f a.files.csv a.files.csv.json"),
        (cut_short, "not as the receipt says; .*", "rm -f a-1.parquet a-1.parquet.json a.files.csv a.files.csv.json"),
    ],
    ids=["missing", "cut short"],
)
def test_a_run_names_shards_behind_lists_that_are_not_as_they_were(tmp_path, monkeypatch, damage, said, removed):
    monkeypatch.chdir(tmp_path)
    paths = [Path(f"a-{number}.parquet") for number in range(3)]
    for path in paths:
        write_table(path)
    shards.write("a.files.csv", shards.sums(paths), MADE_BY)
    inputs = ["a.files.csv", "a.files.csv.json"]
    runs.check_inputs(inputs)
    damage(paths[1])
    refused(
        lambda: runs.check_inputs(inputs),
        rf"^a-1.parquet: {said}: `{removed} && snakemake --cores all a.files.csv`, and",
    )
    subprocess.run(removed.split(), check=True)
    runs.check_inputs(inputs)


def test_what_was_killed_is_told_by_rule_unless_it_was_tried_again():
    error = "Error in rule {}:\n    message: {}\n    jobid: {}\n    input: x\n"
    signal = "CalledProcessError: Command 'python' died with <Signals.SIGKILL: 9>.\n"
    memory = "SLURM-job '7' failed, SLURM status is: 'OUT_OF_MEMORY'. Reason: Unknown."
    again = "Trying to restart job 3.\n"
    assert runs.killed(error.format("sae", "None", 3)) == []
    assert runs.killed(signal + error.format("sae", "None", 3) + again + error.format("toy", "None", 4)) == []
    assert runs.killed(error.format("sae", memory, 3) + again + error.format("toy", "None", 4)) == []
    (line,) = runs.killed(error.format("toy", "None", 4) + signal + error.format("activations_a-b", "None", 3))
    assert line.startswith("actspace: activations_a-b: killed from outside")
    (line,) = runs.killed(
        error.format("sae", memory, 3) + again + error.format("sae", memory, 3) + error.format("toy", "None", 4)
    )
    assert line.startswith("actspace: sae: more memory is needed than the cluster gave; ")
    assert "--set-resources sae:mem_mb=64000" in line


def test_a_run_names_inputs_from_the_future(tmp_path):
    (tmp_path / "text.txt").touch()
    runs.check_inputs([tmp_path / "text.txt"])
    os.utime(tmp_path / "text.txt", (time.time() + 3600,) * 2)
    refused(
        lambda: runs.check_inputs([tmp_path / "text.txt"]), r"text.txt: dated .*, but the clock says .*; set the clock"
    )


# --- memory ----------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["import numpy; numpy.ones(10**15)", "import torch; torch.ones(10**14)"])
def test_memory_that_runs_out_is_one_line_and_the_log_has_the_place(tmp_path, what):
    code = f"from actspace import jobs; jobs.log_to('log'); {what}"
    workflow = str(Path(provenance.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": workflow}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert re.match(r"actspace: memory ran out \(.*\); run again with fewer jobs at a time \(`--cores 1`", line)
    assert "Traceback" in (tmp_path / "log").read_text()
