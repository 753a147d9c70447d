"""What every script does first: log to its file, keep to its threads, take a GPU, and let a user see one clear line when something is wrong."""

from __future__ import annotations

import logging
import os
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from threadpoolctl import threadpool_limits
from tqdm import tqdm

from actspace import gpus
from actspace.errors import StudyError

MORE_MEMORY = (
    "run again with fewer jobs at a time (`--cores 1`, or `--resources mem_mb=16000` for 16 GB) or with a smaller `compute.batch_tokens`: "
    "finished files stay"
)


def begin(job: Any) -> None:
    """Log to the job's file, keep to the threads that Snakemake gave it, and take a GPU if the job may use one.

    Scripts call it before they import anything else of the package: a GPU must be chosen before torch is imported. Libraries take every core of
    the machine unless told not to, and jobs side by side then wait for one another.

    Parameters
    ----------
    job : the `snakemake` object of a script
    """
    log_to(job.log[0])
    os.environ |= dict.fromkeys(
        ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"), str(job.threads)
    )
    threadpool_limits(job.threads)  # for libraries that Snakemake has loaded already
    if job.resources.get("device", "cpu") != "cpu":
        job.gpu = gpus.take()  # held as long as the job lives


def log_to(path: str | Path) -> None:
    """Log to a file; an uncaught StudyError ends the job with its one line on the terminal too, anything else with its traceback."""
    logging.basicConfig(
        filename=path, filemode="w", level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", force=True
    )
    logging.captureWarnings(True)
    sys.excepthook = _report


def warn_on_terminal(name: str) -> None:
    """Show a logger's warnings on the terminal too: those that a user must see before trusting a number."""
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    handler.setFormatter(logging.Formatter("actspace: %(message)s"))
    logging.getLogger(name).addHandler(handler)


class Progress:
    """Says how far long work is: a bar on a terminal, a plain line in the log every half minute. Used as a context.

    Parameters
    ----------
    total : amount of work
    unit : what is counted
    """

    SECONDS_BETWEEN_LINES = 30

    def __init__(self, total: int, unit: str) -> None:
        self.done, self._total, self._unit = 0, total, f" {unit}"
        self._started = self._last_line = time.monotonic()

    def __enter__(self) -> Progress:
        self._bar = tqdm(
            total=self._total, unit=self._unit, unit_scale=True, leave=False, disable=not sys.stderr.isatty()
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        self._log()

    def add(self, n: int) -> None:
        """Count work that is done."""
        self.done += n
        self._bar.update(n)
        if time.monotonic() - self._last_line >= self.SECONDS_BETWEEN_LINES:
            self._log()

    def _log(self) -> None:
        self._last_line = time.monotonic()
        seconds = self._last_line - self._started
        line = tqdm.format_meter(self.done, self._total, seconds, ncols=0, unit=self._unit, unit_scale=True)
        logging.info("%s", line.strip())


def _report(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if _is_out_of_memory(error):
        logging.error("memory ran out", exc_info=(kind, error, traceback))
        error = StudyError(f"memory ran out ({str(error).strip() or 'MemoryError'}); {MORE_MEMORY}")
    if isinstance(error, StudyError):
        logging.error("%s", error)
        print(f"actspace: {error}", file=sys.stderr)
        return
    logging.error("unexpected error", exc_info=(kind, error, traceback))
    sys.__excepthook__(kind, error, traceback)


def _is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error is one of memory; torch raises its own on the CPU as a RuntimeError of these words."""
    return isinstance(error, MemoryError) or "can't allocate memory" in str(error)


def device(wanted: str) -> str:
    """Return the device to run on: `auto` takes a GPU if there is one.

    Raises
    ------
    StudyError
        If a GPU is asked for and there is none.
    """
    import torch  # jobs without a model need not pay for it

    if wanted == "cuda" and not torch.cuda.is_available():
        raise StudyError("compute.device: 'cuda', but torch sees no GPU; set it to 'auto' or 'cpu'")
    return ("cuda" if torch.cuda.is_available() else "cpu") if wanted == "auto" else wanted
