"""Planning a large study: CPU seconds of `snakemake -n` for GPT-2's twelve hook points and thousands of files of tokens.

Nothing is downloaded or computed. CPU time and not the clock, which other work on the machine would stretch. The last line is one JSON object."""

from __future__ import annotations

import argparse
import json
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
COPIED = ("Snakefile", "workflow", "profiles", "envs")
HOOKS = ["blocks.{0..11}.hook_resid_post"]
CAPTURES = re.compile(r"^activations_contexts +(\d+)$", re.MULTILINE)


def config(shards: int) -> dict[str, Any]:
    """Return a study of GPT-2 small with so many files of tokens in both splits together, all captured and used at twelve hook points."""
    source = {"kind": "hub", "repo": "openai-community/gpt2", "revision": "607a30d783dfa663caf39e06633721c8d4cfcd7e"}
    n = shards // 2
    return {
        "study": "large",
        "model": {"source": source},
        "corpus": {"sources": [{"kind": "hub", "repo": "lab/text", "revision": "0" * 40}]},
        "tokens": {"contexts": {"length": 128, "train": 1000 * n, "test": 1000 * n, "shards": n}},
        "captures": {"contexts": {"tokens": "contexts", "hooks": HOOKS}},
        "dictionaries": {"residual": {"capture": "contexts", "hooks": HOOKS, "pca": {"ranks": [8]}}},
    }


def planned(folder: Path, shards: int) -> tuple[float, int]:
    """Plan a study in a fresh copy of the workflow; return the CPU seconds and the number of captures in the table of jobs."""
    for name in COPIED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, folder / name)
    (folder / "config").mkdir()
    (folder / "config" / "config.yaml").write_text(yaml.safe_dump(config(shards)))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "snakemake", "-n", "--nocolor"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    found = CAPTURES.search(done.stdout + done.stderr)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, int(found[1]) if found else 0


def main() -> None:
    """Plan a tenth of the study and the study."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", help="has no effect: planning runs on the CPU")
    parser.add_argument("--quick", action="store_true", help="200 shards in place of 2,000")
    arguments = parser.parse_args()
    shards = 200 if arguments.quick else 2000
    seconds, jobs = {}, {}
    for n in (shards // 10, shards):
        with tempfile.TemporaryDirectory() as folder:
            seconds[n], jobs[n] = planned(Path(folder), n)
    print(
        json.dumps(
            {
                "benchmark": "plan",
                "device": "cpu",
                "ratios": {"of_a_tenth": seconds[shards] / seconds[shards // 10]},
                "rates": {"seconds": seconds[shards], "shards": shards, "hooks": 12},
                "exactness": {"missing_jobs": shards - jobs[shards]},
            }
        )
    )


if __name__ == "__main__":
    main()
