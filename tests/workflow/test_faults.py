"""Faults of whole runs: no finished-looking wrong file, a clear line, and the documented recovery ends in the tables of an undisturbed run."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny import ROOT, Run, TinyStudy, config

from faults import cut_short

SABOTAGE = Path(__file__).parent / "sabotage"
WITHOUT_SUMS = re.compile(
    r"(logs|benchmarks)/.*|manifest\.json|report\.html(\.json)?|.*/sae\.checkpoint|(.*/)?\..*|.*\.checkpoint"
)
"""Files that tell the time of a run or the day, and those that are there while something is made."""
ELSEWHERE = {"convert_model", "package", "statement_file", "archive", "plan"}
ELSEWHERE |= {"kmeans_read_out", "null_dictionary", "random_directions"}
"""Scripts that the tiny study does not run: its model and texts are local, and its dictionaries few."""


def copy_of(finished: TinyStudy, folder: Path) -> TinyStudy:
    """Copy a finished study, with what Snakemake knows of it."""
    study = object.__new__(TinyStudy)
    study.folder, study.architecture = folder, finished.architecture
    shutil.copytree(finished.folder, folder, symlinks=True)
    return study


def sums(study: TinyStudy) -> dict[str, str]:
    """Return the sha256 of everything that is equal in two runs: tables, fits, activations, figures, and their receipts."""
    files = {path.relative_to(study.results).as_posix(): path for path in study.results.rglob("*") if path.is_file()}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in files.items()
        if not WITHOUT_SUMS.fullmatch(name)
    }


def own_line(run: Run) -> str:
    """Return the one line that is ours of a run that failed."""
    assert run.code != 0, run.text
    assert "Traceback" not in run.text, run.text
    (line,) = {line for line in run.text.splitlines() if line.startswith("actspace: ")}
    return line


def sabotage(what: str, moment: int, folder: Path) -> dict[str, str]:
    """Return the environment of a run that something befalls, as `sabotage/sitecustomize.py` says."""
    folder.mkdir(exist_ok=True)
    path = os.pathsep.join([str(SABOTAGE), *filter(None, [os.getenv("PYTHONPATH")])])
    return {"SABOTAGE": f"{what} {moment} {folder}", "PYTHONPATH": path}


class Example:
    """A study of a few stages whose one table was made once, undisturbed; `undo` takes it away."""

    def __init__(self, folder: Path, table: str, **sections: Any) -> None:
        self.study, self.table = TinyStudy(folder, "llama"), f"results/tiny/tables/{table}.csv"
        self.settings = {name: config("llama")[name] for name in ("study", "model", "compute", "corpus")} | sections
        self.study.write(self.settings)
        run = self.run()
        assert run.code == 0, run.text[-3000:]
        self.sums = sums(self.study)

    def run(self, **environment: str) -> Run:
        """Make the table."""
        return self.study.snakemake(self.table, **environment)

    def undo(self) -> None:
        """Remove what the last stage made."""
        for path in self.made():
            path.unlink()

    def made(self) -> list[Path]:
        """List what the last stage made."""
        return [*self.study.results.glob(f"tables/{Path(self.table).stem}.*")]

    def assert_recovers(self) -> None:
        """Run the same command again: it must end in the same tables."""
        assert self.run().code == 0
        assert sums(self.study) == self.sums


@pytest.fixture(scope="module")
def of_a_toy(tmp_path_factory: pytest.TempPathFactory) -> Example:
    return Example(tmp_path_factory.mktemp("toy"), "toy_truth", toy=config("llama")["toy"])


@pytest.fixture
def toy(of_a_toy: Example) -> Example:
    """One stage, undone."""
    of_a_toy.undo()
    return of_a_toy


@pytest.fixture(scope="module")
def of_a_capture(tmp_path_factory: pytest.TempPathFactory) -> Example:
    parts = {"tokens": "prompts", "captures": "prompts", "perturbations": "sensitive_directions"}
    own = {section: {name: config("llama")[section][name]} for section, name in parts.items()}
    own["captures"]["prompts"]["hooks"] = ["blocks.0.hook_resid_post", "blocks.1.hook_resid_pre"]
    return Example(tmp_path_factory.mktemp("capture"), "activations", **own)


@pytest.fixture
def capture(of_a_capture: Example) -> Example:
    """A model, its tokens and activations, their moments, and the table of these, undone."""
    of_a_capture.undo()
    return of_a_capture


# --- one stage -------------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def little_memory(tmp_path: Path) -> Iterator[None]:
    """Make a group of processes that share little memory, for a job to move into."""
    cgroups = Path("/sys/fs/cgroup")
    folder, limit = (
        (cgroups, "memory.max")
        if (cgroups / "cgroup.procs").exists()
        else (cgroups / "memory", "memory.limit_in_bytes")
    )
    group = folder / f"actspace-{os.getpid()}"
    try:
        group.mkdir()
        (group / limit).write_text(str(64 << 20))
    except OSError:
        pytest.skip("needs the right to limit the memory of processes")
    (tmp_path / "group").write_text(str(group))
    yield
    group.rmdir()


@pytest.mark.parametrize("what", ["kill-job", pytest.param("starve", marks=pytest.mark.slow)])
def test_a_job_that_is_killed_leaves_nothing_and_the_run_says_whose_it_was_and_that_memory_may_be_short(
    toy: Example, tmp_path: Path, what, request: pytest.FixtureRequest
):
    if what == "starve":
        request.getfixturevalue("little_memory")
    line = own_line(toy.run(**sabotage(what, 0, tmp_path)))
    assert line.startswith(
        "actspace: toy: killed from outside (signal 9), most often because memory ran out; run again"
    )
    assert "`--cores 1`" in line
    assert not toy.made()
    toy.assert_recovers()


def test_a_second_run_in_the_same_folder_is_refused_and_the_first_is_not_disturbed(toy: Example, tmp_path: Path):
    command = [sys.executable, "-m", "snakemake", "--cores", "1", toy.table]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    environment = {**os.environ, **sabotage("hold", 0, tmp_path)}
    first = subprocess.Popen(command, cwd=toy.study.folder, env=environment, **quiet)
    while not (tmp_path / "toy").exists():
        assert first.poll() is None
        time.sleep(0.1)
    second = toy.run()
    (tmp_path / "go").touch()
    code = first.wait()
    assert second.code != 0, "two runs wrote the same files"
    assert code == 0
    assert "Error: Directory cannot be locked." in second.text
    assert "--unlock" in second.text
    assert "Traceback" not in second.text
    assert sums(toy.study) == toy.sums


@pytest.mark.slow
def test_a_clock_that_was_set_back_stops_a_run_before_its_first_job(capture: Example):
    ahead = time.time() + 3600
    for path in capture.study.results.rglob("moments/**/*.json"):
        os.utime(path, (ahead, ahead))
    line = own_line(capture.run())
    assert re.search(r"safetensors.json: dated .*, but the clock says .*; set the clock right, or", line)
    assert not capture.made()
    do(capture.study, "find", line)
    capture.assert_recovers()


@pytest.mark.slow
def test_an_input_that_was_cut_short_stops_a_run_before_its_first_job_which_names_it(capture: Example):
    (damaged,) = capture.study.results.rglob("moments/**/*.safetensors")
    cut_short(damaged)
    line = own_line(capture.run())
    assert line.startswith(f"actspace: {damaged.relative_to(capture.study.folder)}: not as the receipt says")
    assert not capture.made()
    do(capture.study, "rm", line)
    assert capture.run().rules.keys() == {"activation_table"}
    capture.assert_recovers()


@pytest.mark.slow
@pytest.mark.parametrize("damage", [Path.unlink, cut_short])
def test_a_shard_behind_a_list_that_is_missing_or_cut_short_is_named_and_made_again_alone(capture: Example, damage):
    for path in capture.study.results.glob("moments/**/*.*"):
        path.unlink()
    shard = capture.study.results / "activations" / "prompts" / "blocks.1.hook_resid_pre" / "train-000.parquet"
    damage(shard)
    line = own_line(capture.run())
    what = "missing" if damage is Path.unlink else "not as the receipt says"
    assert line.startswith(f"actspace: {shard.relative_to(capture.study.folder)}: {what}")
    do(capture.study, "rm", line)
    assert capture.study.plan(capture.table) == {"moments": 1, "activation_table": 1}
    capture.assert_recovers()


@pytest.mark.slow
def test_activations_that_an_archive_left_out_are_captured_again_where_a_stage_needs_them(capture: Example):
    for path in [*capture.study.results.glob("moments/**/*.*"), *capture.study.results.rglob("*.files.csv")]:
        path.unlink()
    for path in capture.study.results.glob("activations/**/*.parquet"):
        path.unlink()
    capture.assert_recovers()


def do(study: TinyStudy, command: str, line: str) -> None:
    """Do what a line says, in the study's folder."""
    here = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-c", re.search(f"`({command} .*)`", line)[1]], cwd=study.folder, check=True, env=here)


# --- whole studies ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_newest_files_cut_short_by_a_power_cut_are_made_again(finished: TinyStudy, tmp_path: Path):
    study = copy_of(finished, tmp_path / "study")
    end = [*study.results.glob("tables/*claims*"), *study.results.glob("report*.*"), study.results / "manifest.json"]
    for path in end:
        path.unlink()
    files = [*study.results.rglob("*"), *(study.folder / ".snakemake" / "metadata").rglob("*")]
    for number, path in enumerate(sorted(filter(Path.is_file, files), key=lambda path: path.stat().st_mtime)[-40:]):
        cut_short(path, (0, 0.5)[number % 2])
    run = study.snakemake()
    for _ in range(5):
        if run.code:
            do(study, "rm", own_line(run))
            run = study.snakemake()
    assert run.code == 0, run.text[-3000:]
    assert sums(study) == sums(finished)


@pytest.mark.slow
@pytest.mark.parametrize("moment", [0, 1], ids=["before a file has its name", "between a file and its receipt"])
def test_a_study_whose_every_stage_is_killed_once_ends_in_the_same_tables(finished: TinyStudy, tmp_path: Path, moment):
    study = TinyStudy(tmp_path, finished.architecture)
    killed = survive(study, sums(finished), sabotage("kill-job", moment, tmp_path / "killed"), "--keep-going")
    stages = {path.stem for path in (ROOT / "workflow" / "scripts").glob("*.py")} - ELSEWHERE
    assert killed == stages - ({"manifest"} if moment else set())  # it has no receipt


@pytest.mark.slow
@pytest.mark.parametrize(("what", "moment"), [("kill-job", 0), ("kill-run", 1)])
def test_stages_that_are_killed_alone_or_with_snakemake_end_in_the_same_tables(
    of_a_capture: Example, tmp_path: Path, what, moment
):
    study = TinyStudy(tmp_path, "llama")
    study.write(of_a_capture.settings)
    environment = sabotage(what, moment, tmp_path / "killed")
    killed = survive(study, of_a_capture.sums, environment, of_a_capture.table)
    assert killed == {"model", "selfcheck", "tokens", "activations", "shards", "moments", "activation_table"}


def survive(study: TinyStudy, expected: dict[str, str], environment: dict[str, str], *arguments: str) -> set[str]:
    """Run a study again and again until it ends; after each run, whatever has its name must be whole. Return the stages that were killed."""
    folder = Path(environment["SABOTAGE"].split()[-1])
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--nocolor", *arguments]
    code, before, text = 1, -1, ""
    while code:
        assert len([*folder.iterdir()]) > before, f"the same command did not go on:\n{text[-3000:]}"
        before = len([*folder.iterdir()])
        run = subprocess.Popen(
            command,
            cwd=study.folder,
            env={**os.environ, **environment},
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        text, code = run.communicate()[0], run.returncode
        found = sums(study)
        assert found.items() <= expected.items(), f"half a file looks whole: {dict(found.items() - expected.items())}"
        if code < 0:
            assert study.snakemake("--unlock").code == 0
    assert found == expected
    return {path.name for path in folder.iterdir()}
