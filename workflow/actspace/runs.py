"""What a run looks at before its first job, and what it says of jobs that were killed.

Only the process that plans the run imports this; no script does."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from actspace import jobs, provenance
from actspace.errors import StudyError

CLOCKS_DIFFER_S = 10.0
"""Seconds by which the clock of a file server may be ahead."""
KILLED = re.compile(r"died with <Signals\.SIGKILL: 9>|returned non-zero exit status 137|OUT_OF_MEMORY")
FAILED_RULE = re.compile(r"Error in rule (\w+):")


def check_inputs(paths: Iterable[str | Path]) -> None:
    """Refuse to start a run that would read files which a crash cut short, or whose dates lie ahead of the clock.

    Snakemake calls a job failed whose outputs are older than its inputs: after it has run, each time.

    Parameters
    ----------
    paths : inputs of the jobs that are to run, receipts among them; those that are still to be made do not count

    Raises
    ------
    StudyError
        One line with the files and the command that mends it.
    """
    there = sorted({path for path in map(Path, paths) if path.is_file()})
    artifacts = [path.with_suffix("") for path in there if path.suffix == ".json"]
    if damaged := [str(path) for path in artifacts if _is_damaged(path)]:
        files = " ".join(f"{path} {path}.json" for path in damaged)
        raise StudyError(
            f"{', '.join(damaged)}: not as the receipt says; a crash cut it short, or somebody changed it: `rm -f {files}`, and run again"
        )
    if ahead := [str(path) for path in there if path.stat().st_mtime > time.time() + CLOCKS_DIFFER_S]:
        raise StudyError(
            f"{', '.join(ahead[:3])}{f' and {len(ahead) - 3} more' if len(ahead) > 3 else ''}: dated {_date(Path(ahead[0]).stat().st_mtime)}, "
            f"but the clock says {_date(time.time())}; set the clock right, or date what is ahead of it to now: "
            "`find . -newermt now -exec touch {} +`, and run again"
        )


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


def _is_damaged(artifact: Path) -> bool:
    """Say whether a file has another size than its receipt says, or the receipt cannot be read."""
    try:
        provenance.check_size(artifact)
    except StudyError:
        return True
    return False


def _date(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M:%S}"


def killed(log: str) -> str | None:
    """Say in one line which rules' jobs were killed, by Snakemake's own log; nothing if none was.

    A process that is killed says nothing itself, and the system notes only in its own log that memory was short.
    """
    rules = {match[1] for found in KILLED.finditer(log) if (match := FAILED_RULE.search(log, found.end()))}
    if not rules and not KILLED.search(log):
        return None
    return f"actspace: {', '.join(sorted(rules)) or 'a job'}: killed from outside (signal 9), most often because memory ran out; {jobs.MORE_MEMORY}"
