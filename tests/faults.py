"""What can befall files: power cuts, full and read-only disks, damage; and what of it a test can bring about."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MADE_UP = b"\x5a\xa5\x5a\xa5"


class PowerCut:
    """Notes which content is on the disk, so that `strike` can take from files what was not when the power failed.

    A file system keeps names in the order in which they were given, but the content behind a name only if somebody waited for it.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._safe: dict[int, int] = {}
        self._fsync = os.fsync
        monkeypatch.setattr(os, "fsync", self._noted)

    def _noted(self, file: int | object) -> None:
        self._fsync(file)
        number = file if isinstance(file, int) else file.fileno()  # type: ignore[attr-defined]
        found = os.fstat(number)
        self._safe[found.st_ino] = found.st_size

    def strike(self, folder: Path) -> None:
        """Cut every file of a folder to what was safe."""
        for path in folder.rglob("*"):
            if path.is_file():
                os.truncate(path, min(path.stat().st_size, self._safe.get(path.stat().st_ino, 0)))


def change_inside(path: Path, share: float = 0.9, content: bytes = MADE_UP) -> None:
    """Change bytes of a file behind its header, whose size stays."""
    data = bytearray(path.read_bytes())
    start = int(len(data) * share)
    assert data[start : start + len(content)] != content
    data[start : start + len(content)] = content
    path.write_bytes(data)


def cut_short(path: Path, share: float = 0.5) -> None:
    """Cut off the end of a file."""
    os.truncate(path, int(path.stat().st_size * share))


@contextmanager
def little_disk(folder: Path, kilobytes: int) -> Iterator[Path]:
    """Make a folder with a disk of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    size = f"size={kilobytes}k"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", size, "none", str(folder)], capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def unchangeable(path: Path) -> Iterator[None]:
    """Let nobody write to a file or folder, root included, to whom permissions say nothing."""
    if subprocess.run(["chattr", "+i", str(path)], capture_output=True).returncode:
        pytest.skip("needs root, and a file system with attributes")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", str(path)], check=True)


def names_in(folder: Path) -> list[str]:
    """List the files of a folder, hidden ones too."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
