"""GPUs are shared out by locks; made-up ones stand in for them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from actspace import gpus

HOLD = (
    "from actspace import gpus; held = gpus.take(); print(gpus.os.environ['CUDA_VISIBLE_DEVICES'], flush=True); input()"
)


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch) -> Path:
    """A machine with two GPUs."""
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nprintf 'GPU-a\\nGPU-b\\n'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(gpus, "SECONDS_BETWEEN_TRIES", 0.05)
    return tmp_path


def other_job() -> tuple[subprocess.Popen[str], str]:
    """Start a process that takes a GPU and keeps it; return it and the GPU."""
    job = subprocess.Popen(
        [sys.executable, "-c", HOLD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(gpus.__file__).parents[1])},
    )
    assert job.stdout is not None
    return job, job.stdout.readline().strip()


def test_all_gpus_of_the_machine_are_usable_unless_some_are_named(monkeypatch):
    assert gpus.usable() == ["GPU-a", "GPU-b"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 1")
    assert gpus.usable() == ["3", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpus.usable() == []
    assert gpus.take() is None


def test_a_machine_without_gpus_has_none(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert gpus.usable() == []
    assert gpus.take() is None


def test_every_job_gets_a_gpu_of_its_own_and_one_too_many_waits(monkeypatch):
    (first, one), (second, other) = other_job(), other_job()
    assert {one, other} == {"GPU-a", "GPU-b"}
    taken: list[str] = []

    def third() -> None:
        held = gpus.take()
        assert held is not None
        taken.append(gpus.os.environ["CUDA_VISIBLE_DEVICES"])
        held.release()

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")  # restored afterwards
    waiting = threading.Thread(target=third)
    waiting.start()
    time.sleep(0.5)
    assert taken == []
    second.kill()  # even a killed job gives its GPU back
    second.wait()
    waiting.join(10)
    assert taken == [other]
    first.kill()
    first.wait()


def test_only_named_gpus_are_taken(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-b")
    job, taken = other_job()
    assert taken == "GPU-b"
    job.kill()
    job.wait()
