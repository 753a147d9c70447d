"""Kills or holds up a job of a workflow while it gives its files their names. Python runs this first where the folder is on its path.

SABOTAGE is `<what> <moment> <folder>`: before the file of the results that has the number `moment` gets its name, `kill-job` kills that
process alone, `kill-run` Snakemake and all its jobs, `starve` lets it use up the memory of the group of processes that the folder's file `group`
names, `hold` waits until the folder has a file `go`. It befalls each script once, which a file of its name in the folder notes."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

STAGE = Path(sys.orig_argv[1]).name.split(".")[-2] if ".snakemake/scripts/" in " ".join(sys.orig_argv[1:2]) else ""
rename = os.replace
seen = 0


def starve(group: Path) -> None:
    """Move into a group of processes with little memory, and use it up: the system's out-of-memory killer ends this process."""
    (group / "cgroup.procs").write_text(str(os.getpid()))
    held = []
    while True:
        held.append(os.urandom(1 << 20))


def sabotaged(old: str, new: str, **options: int) -> None:
    """Rename a file, unless this is the moment."""
    global seen
    if str(new).startswith(("results/", "resources/")) and ".writing/" not in str(new):
        what, moment, folder = os.environ["SABOTAGE"].split()
        if seen == int(moment) and not (note := Path(folder, STAGE)).exists():
            note.touch()
            if what == "kill-job":
                os.kill(os.getpid(), signal.SIGKILL)
            elif what == "kill-run":
                os.killpg(0, signal.SIGKILL)
            elif what == "starve":
                starve(Path(Path(folder, "group").read_text()))
            while not Path(folder, "go").exists():
                time.sleep(0.05)
        seen += 1
    rename(old, new, **options)


if STAGE and "SABOTAGE" in os.environ:
    os.replace = sabotaged
