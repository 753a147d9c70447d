"""Many dry runs of Snakemake, each in a process forked from one that has imported Snakemake and knows the code's fingerprints.

Both take longer than the plan itself; see `multiprocessing` on fork servers."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
from collections.abc import Sequence
from multiprocessing.context import ForkServerContext
from pathlib import Path

from snakemake.cli import main

from actspace import fingerprint

for script in (Path(__file__).parents[2] / "workflow" / "scripts").glob("*.py"):
    fingerprint.of_script(script)


def server() -> ForkServerContext:
    """Return the way to start processes from one that has imported this module."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def dry_run(arguments: Sequence[str], folder: Path) -> tuple[int | None, str]:
    """Plan a run in a folder; return exit code and what was printed."""
    log = folder / "dry-run.log"
    process = server().Process(target=_plan, args=([*arguments, "-n", "--nocolor"], folder, log))
    process.start()
    process.join()
    return process.exitcode, log.read_text()


def _plan(arguments: list[str], folder: Path, log: Path) -> None:
    os.chdir(folder)
    sys.argv = ["snakemake", *arguments]
    with log.open("w", buffering=1) as out, contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        main()
