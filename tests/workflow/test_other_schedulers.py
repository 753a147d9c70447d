"""Schedulers other than Slurm: a command that submits and one that asks how a job is, here without a scheduler and without root."""

from __future__ import annotations

from pathlib import Path

from tiny import TinyStudy

# A scheduler in three lines: it runs the script in the background, and kills what asked for less memory than it takes.
SUBMIT = """#!/bin/bash
n=$(ls $0.jobs | wc -l); mkdir $0.jobs/$n; echo "$*" > $0.jobs/$n/asked
if (($1 < 8000)); then echo 137 > $0.jobs/$n/code; else (bash "${@: -1}" > $0.jobs/$n/log 2>&1; echo $? > $0.jobs/$n/code) & fi
echo $n
"""
STATUS = """#!/bin/bash
case $(cat $(dirname $0)/submit.jobs/$1/code 2> /dev/null) in "") echo running ;; 0) echo success ;; *) echo failed ;; esac
"""


def fake_scheduler(folder: Path) -> list[str]:
    """Write the two commands, and return how Snakemake is told of them."""
    (folder / "submit.jobs").mkdir()
    for name, text in (("submit", SUBMIT), ("status", STATUS)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return [
        *("--profile", "profiles/cluster-generic", "--latency-wait", "5", "--seconds-between-status-checks", "1"),
        *("--cluster-generic-submit-cmd", f"{folder}/submit {{resources.mem_mb}} {{resources.runtime}} {{threads}}"),
        *("--cluster-generic-status-cmd", f"{folder}/status"),
    ]


def test_jobs_are_submitted_watched_and_tried_again_with_more_memory(tmp_path):
    (tmp_path / "study").mkdir()
    study = TinyStudy(tmp_path / "study", "llama", small=True)
    run = study.snakemake(*fake_scheduler(tmp_path), "results/tiny/tokens/prompts/train-000.parquet")
    assert run.code == 0, run.text
    assert (study.results / "tokens/prompts/test-000.parquet.json").exists()
    asked = [path.read_text().split()[:3] for path in sorted(tmp_path.glob("submit.jobs/*/asked"))]
    # The model and its tokens are one group, one after the other: the memory of the larger, the time of both.
    assert asked == [["3000", "120", "1"], ["6000", "240", "1"], ["9000", "360", "1"]]
