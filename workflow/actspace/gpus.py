"""One GPU for each job. Snakemake counts GPUs but hands none out, so every job takes one itself: by a lock, which ends with the process."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from filelock import FileLock, Timeout

SECONDS_BETWEEN_TRIES = 1.0


def usable() -> list[str]:
    """List the GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` names them: what that variable holds, else all of the machine."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is None:
        if shutil.which("nvidia-smi") is None:
            return []
        asked = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
        given = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.replace("\n", ",")
    return [name for name in map(str.strip, given.split(",")) if name]


def take() -> FileLock | None:
    """Take a GPU that no other job of this machine has, waiting for one if need be, and let this process see that one alone.

    To be called before torch is imported, because torch looks for GPUs once. The lock is held until the process ends or, in tests, until it
    is released. Returns None where there is no GPU.
    """
    names = usable()
    told = False
    while names:
        for name in names:
            lock = FileLock(Path(tempfile.gettempdir(), f"actspace-gpu-{name}.lock"), mode=0o666)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            os.environ["CUDA_VISIBLE_DEVICES"] = name
            logging.info("took GPU %s", name)
            return lock
        if not told:
            logging.info("all GPUs are taken (%s): waiting for one", ", ".join(names))
            told = True
        time.sleep(SECONDS_BETWEEN_TRIES)
    return None
