"""What a run looks at before its first job, and what it says of jobs that were killed.

Only the process that plans the run imports this; no script does."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

from actspace import jobs, provenance, shards
from actspace.errors import StudyError

CLOCKS_DIFFER_S = 10.0
"""Seconds by which the clock of a file server may be ahead."""
CUT = "not as the receipt says; a crash cut it short, or somebody changed it"
EVENT = re.compile(
    r"(?P<killed>died with <Signals\.SIGKILL: 9>|returned non-zero exit status 137)"
    r"|Error in rule (?P<rule>[\w-]+):(?:\n +message: (?P<message>.*))?\n +jobid: (?P<job>\d+)"
    r"|Trying to restart job (?P<again>\d+)"
)
"""What Snakemake writes of jobs that fail: a signal, which stands before the rule, or a scheduler's reason, which stands after it."""


def check_inputs(paths: Iterable[str | Path]) -> None:
    """Refuse to start a run that would read files which a crash cut short, that a list names and nobody finds, or whose dates lie ahead of the clock.

    Snakemake calls a job failed whose outputs are older than its inputs: after it has run, each time. It does not know what a list names.

    Parameters
    ----------
    paths : inputs of the jobs that are to run, receipts among them, without those that are still to be made

    Raises
    ------
    StudyError
        One line with the files and the command that mends it.
    """
    there = sorted({path for path in map(Path, paths) if path.is_file()})
    artifacts = [str(path.with_suffix("")) for path in there if path.suffix == ".json"]
    if damaged := [path for path in artifacts if _is_damaged(path)]:
        raise StudyError(f"{_some(damaged)}: {CUT}: {_remedy(damaged, damaged)}")
    list_of = {file: str(path) for path in there if shards.is_list(path) for file in shards.read(path)}
    missing = [file for file in list_of if not Path(file).is_file()]
    damaged = [file for file in list_of if _is_damaged(file)]
    if found := damaged or missing:
        # Whoever asks for the list gets the shards that it lacks, and nothing that is made from it.
        lists = sorted({list_of[file] for file in damaged + missing})
        raise StudyError(f"{_some(found)}: {CUT if damaged else 'missing'}: {_remedy([*damaged, *lists], lists)}")
    if ahead := [str(path) for path in there if path.stat().st_mtime > time.time() + CLOCKS_DIFFER_S]:
        raise StudyError(
            f"{_some(ahead)}: dated {_date(Path(ahead[0]).stat().st_mtime)}, "
            f"but the clock says {_date(time.time())}; set the clock right, or date what is ahead of it to now: "
            "`find . -newermt now -exec touch {} +`, and run again"
        )


def _remedy(damaged: Iterable[str], wanted: Iterable[str]) -> str:
    """Write the command that removes files with their receipts and has some made, alone: what is made from them stays if they are as before."""
    files = " ".join(f"{path} {path}.json" for path in damaged)
    return f"`rm -f {files} && snakemake --cores all {' '.join(wanted)}`, and run again"


def _some(files: Sequence[str]) -> str:
    """Name a few of many files."""
    return ", ".join(files[:3]) + (f" and {len(files) - 3} more" if len(files) > 3 else "")


def check_outputs(paths: Iterable[str | Path]) -> None:
    """Refuse to start a run that may not write in the folders of its files; Snakemake itself looks at outputs that are there.

    Raises
    ------
    StudyError
        One line with the places.
    """
    folders = {next(folder for folder in Path(path).absolute().parents if folder.is_dir()) for path in paths}
    if closed := sorted(str(folder) for folder in folders if not os.access(folder, os.W_OK)):
        raise StudyError(
            f"{', '.join(closed)}: cannot be written to; make it writable and run again: finished files stay"
        )


def _is_damaged(artifact: str) -> bool:
    """Say whether a file has another size than its receipt says, or the receipt cannot be read."""
    try:
        provenance.check_size(artifact)
    except StudyError:
        return True
    return False


def _date(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M:%S}"


def killed(log: str) -> list[str]:
    """Say which rules' jobs were killed and not tried again, by Snakemake's own log.

    A process that is killed says nothing itself, and the system notes only in its own log that memory was short.
    """
    by_signal: dict[str, str] = {}
    by_cluster: dict[str, str] = {}
    signal = False
    for event in EVENT.finditer(log):
        if event["killed"]:
            signal = True
        elif again := event["again"]:
            by_signal.pop(again, None)
            by_cluster.pop(again, None)
        elif "OUT_OF_MEMORY" in (event["message"] or ""):
            by_cluster[event["job"]] = event["rule"]
        elif signal:
            by_signal[event["job"]], signal = event["rule"], False
    lines = []
    if signal or by_signal:
        named = ", ".join(sorted({*by_signal.values()})) or "a job"
        reason = f"killed from outside (signal 9), most often because memory ran out; {jobs.MORE_MEMORY}"
        lines.append(f"actspace: {named}: {reason}")
    if rules := sorted({*by_cluster.values()}):
        more = " ".join(f"{rule}:mem_mb=64000" for rule in rules)
        reason = f"more memory is needed than the cluster gave; run again with more, for 64 GB `--set-resources {more}`: finished files stay"
        lines.append(f"actspace: {', '.join(rules)}: {reason}")
    return lines
