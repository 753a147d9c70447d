"""How jobs begin, and what they say of their progress."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from actspace import gpus, jobs


def test_a_bar_is_shown_on_a_terminal_only(monkeypatch, capsys):
    for terminal in (False, True):
        monkeypatch.setattr(sys.stderr, "isatty", lambda terminal=terminal: terminal)
        with jobs.Progress(200, "tokens") as progress:
            progress.add(100)
        assert ("/200 [" in capsys.readouterr().err) == terminal


def test_the_log_has_plain_lines_with_what_is_done_the_rate_and_the_time_left(monkeypatch, caplog):
    monkeypatch.setattr(jobs.Progress, "SECONDS_BETWEEN_LINES", 0)
    with caplog.at_level(logging.INFO), jobs.Progress(2000, "tokens") as progress:
        progress.add(500)
    line, last = (record.message for record in caplog.records)
    assert line.startswith("25%")
    assert "500/2.00k [00:00<00:00" in line
    assert "tokens/s" in line
    assert progress.done == 500
    assert "\r" not in line + last


def test_lines_are_far_apart(caplog):
    with caplog.at_level(logging.INFO), jobs.Progress(10, "tokens") as progress:
        for _ in range(10):
            progress.add(1)
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("device", "takes"), [({"device": "auto"}, 1), ({"device": "cuda"}, 1), ({"device": "cpu"}, 0), ({}, 0)]
)
def test_only_jobs_with_a_device_take_a_gpu(tmp_path, monkeypatch, device, takes):
    taken: list[None] = []
    monkeypatch.setattr(gpus, "take", lambda: taken.append(None))
    monkeypatch.setattr(jobs, "log_to", lambda _path: None)
    monkeypatch.setattr(jobs, "threadpool_limits", lambda _n: None)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"):
        monkeypatch.setenv(name, "1")  # restored afterwards
    jobs.begin(SimpleNamespace(log=[tmp_path / "log"], threads=3, resources=device))
    assert len(taken) == takes
    assert os.environ["RAYON_NUM_THREADS"] == "3"


@pytest.mark.parametrize(
    ("error", "said"), [("StudyError('x: no; do y')", "actspace: x: no; do y\n"), ("ValueError('odd')", "Traceback")]
)
def test_an_error_ends_a_job_with_one_line_or_with_its_traceback_if_it_is_ours(tmp_path, error, said):
    code = f"from actspace import jobs; from actspace.errors import StudyError; jobs.log_to('log'); raise {error}"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(jobs.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(said)
    assert error.split("'")[1] in (tmp_path / "log").read_text()


def test_warnings_of_a_part_of_the_package_reach_the_terminal_too(capsys):
    log = logging.getLogger("actspace.somewhere.deep")
    jobs.warn_on_terminal("actspace.somewhere")
    log.info("all is well")
    log.warning("look at %s", "this")
    assert capsys.readouterr().err == "actspace: look at this\n"
