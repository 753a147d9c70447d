"""The tiny study on a real Slurm: a job that dies, a run that is interrupted and resumes, memory and GPUs as asked for."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import slurm
import yaml
from tiny import Run, TinyStudy, config, smaller

pytestmark = pytest.mark.cluster

# Waits that suit a scheduler which answers at once.
QUICK = ["--slurm-init-seconds-before-status-checks", "1", "--latency-wait", "5"]
IMPATIENT = str(Path(__file__).with_name("impatient.py"))


@dataclass(frozen=True)
class Story:
    """A study that went through Slurm: one of its jobs was killed, then the run was interrupted, then the same command was given again."""

    study: TinyStudy
    interrupted: Run
    run_id: str
    left_in_queue: str
    done_before: dict[str, int]
    completed: Counter[str]
    resumed: Run


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with slurm.running(tmp_path_factory.mktemp("slurm")):
        yield


def small_study(folder: Path) -> TinyStudy:
    """Make the smaller tiny study, one member of each kind: starting is what short jobs take. Its shards can be captured in parallel."""
    study = TinyStudy(folder, "gpt2", small=True)
    settings = smaller(config("gpt2"))
    settings["tokens"]["contexts"]["shards"] = 2
    del settings["statements"], settings["captures"]["statements"], settings["probes"]
    del (
        settings["perturbations"]["sensitive_directions"],
        settings["tokens"]["prompts"],
        settings["captures"]["prompts"],
    )
    settings["perturbations"]["plateaus"] |= {"capture": "contexts", "sites": ["blocks.0.hook_resid_post"]}
    dictionary = settings["dictionaries"]["residual"]
    del dictionary["given"]
    dictionary |= {"nulls": [], "splice_sequences": 0}
    study.write(settings)
    return study


def command(*arguments: str) -> list[str]:
    return [sys.executable, IMPATIENT, "--nocolor", "--profile", "profiles/slurm-noacct", *QUICK, *arguments]


def finished_shards(study: TinyStudy) -> dict[str, int]:
    """Return when each receipt of a shard of activations was written."""
    receipts = (study.results / "activations").rglob("*.parquet.json")
    return {str(path.relative_to(study.results)): path.stat().st_mtime_ns for path in receipts}


def completed_jobs() -> Counter[str]:
    """Count the jobs that Slurm calls completed, by what they ran."""
    return Counter(job["Comment"] for job in slurm.jobs() if job["JobState"] == "COMPLETED")


def listening() -> None:
    """Let a process be interrupted: those in the background inherit that it is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture(scope="session")
def story(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Story:
    study = small_study(tmp_path_factory.mktemp("on_slurm"))
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    run = subprocess.Popen(command(), cwd=study.folder, preexec_fn=listening, **output)
    try:
        slurm.wait_for(lambda: slurm.jobs_of("activations_contexts", "RUNNING"), 600, "a shard to be captured")
        victim = slurm.jobs_of("activations_contexts", "RUNNING")[0]["JobId"]
        slurm.asked("scancel", "--signal=KILL", "--full", victim)
        slurm.wait_for(lambda: slurm.jobs_of("sae", "RUNNING"), 600, "an SAE to be trained")
        run.send_signal(signal.SIGINT)
        text, _ = run.communicate(timeout=300)
    finally:
        run.kill()
    # What docs/how-to/slurm.md tells to do: Snakemake forgets the jobs about which it is just asking.
    run_id = re.search(r"SLURM run ID: (\S+)", text)[1]
    slurm.asked("scancel", f"--name={run_id}")
    left, done, completed = slurm.asked("squeue", "-h", "-t", "PD,R"), finished_shards(study), completed_jobs()
    again = subprocess.run(command(), cwd=study.folder, capture_output=True, text=True)
    return Story(
        study,
        Run(run.returncode, text),
        run_id,
        left,
        done,
        completed,
        Run(again.returncode, again.stdout + again.stderr),
    )


def memory(job: dict[str, str]) -> int:
    """Return the MB that a job asked for, however Slurm prints them."""
    amount = job["MinMemoryNode"]
    return round(float(amount[:-1]) * {"M": 1, "G": 1024}[amount[-1]])


def minutes(job: dict[str, str]) -> int:
    hours, mins, _ = job["TimeLimit"].split(":")
    return 60 * int(hours) + int(mins)


def test_a_killed_job_is_tried_again_with_twice_the_memory_and_time(story: Story):
    killed = next(job for job in slurm.jobs_of("activations_contexts") if job["JobState"] in ("FAILED", "CANCELLED"))
    second = next(
        job for job in slurm.jobs() if job["Comment"] == killed["Comment"] and int(job["JobId"]) > int(killed["JobId"])
    )
    assert (memory(killed), memory(second)) == (8000, 16000)
    assert (minutes(killed), minutes(second)) == (240, 480)


def test_the_jobs_of_an_interrupted_run_are_cancelled_by_its_id(story: Story):
    assert story.interrupted.code != 0
    assert story.left_in_queue == ""
    (sae,) = slurm.jobs_of("sae", "CANCELLED")
    assert sae["JobName"] == story.run_id


def test_the_same_command_finishes_the_study_and_redoes_no_finished_job(story: Story):
    assert story.resumed.code == 0, story.resumed.text[-5000:]
    assert story.done_before.items() <= finished_shards(story.study).items()
    assert story.completed.items() <= completed_jobs().items()
    assert story.study.plan() == {}


def test_shards_are_captured_side_by_side(story: Story):
    jobs = slurm.jobs_of("activations_contexts")
    assert any(
        a["StartTime"] < b["EndTime"] and b["StartTime"] < a["EndTime"] for a in jobs for b in jobs if a is not b
    )


def test_short_jobs_are_submitted_together(story: Story):
    assert story.completed["rule_inputs_model_tokens_contexts"] == 1
    assert [int(job["NumCPUs"]) for job in slurm.jobs_of("figures")] == [4]


def test_its_tables_are_those_of_a_local_run(story: Story, tmp_path):
    local, tables = small_study(tmp_path), [*(story.study.results / "tables").glob("*.parquet")]
    run = local.snakemake(*(str(path.relative_to(story.study.folder)) for path in tables))
    assert run.code == 0, run.text[-5000:]

    def sums(study: TinyStudy) -> dict[str, str]:
        receipts = [study.results / "tables" / f"{path.name}.json" for path in tables]
        return {receipt.name: json.loads(receipt.read_text())["sha256"] for receipt in receipts}

    assert "claims.parquet.json" in sums(local)
    assert sums(story.study) == sums(local)


def test_a_job_of_a_study_on_cuda_is_given_a_gpu_and_others_are_not(story: Story):
    study = story.study
    (study.folder / "cuda.yaml").write_text(yaml.safe_dump({"compute": {"device": "cuda"}}))
    both = ["--configfile", "config/config.yaml", "cuda.yaml", "--retries", "0"]
    # The job fails here, where no GPU is: what it was given is seen nevertheless.
    subprocess.run(
        command(*both, "--forcerun", "selfcheck", "--until", "selfcheck"),
        cwd=study.folder,
        capture_output=True,
    )
    *before, with_gpu = slurm.jobs_of("selfcheck")
    assert with_gpu["TresPerJob"] == "gres:gpu:1"
    assert not any("TresPerJob" in job for job in before)
