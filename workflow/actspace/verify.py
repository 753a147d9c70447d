"""Whether a study, or an archive of one, is as its manifest says: what is missing, changed or extra.

Reads only. An archive may come from anyone: its names are never used as paths, and no more of a member is unpacked than the manifest promises."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any, Protocol

from actspace.errors import StudyError

MANIFEST = "manifest.json"
LARGEST_MANIFEST = 10**8
"""Bytes; a larger one is none of ours."""
NO_RESULTS = ("logs", "benchmarks", "resources", "__pycache__")
"""Folders whose files nobody lists; nor are hidden ones listed, as Snakemake's own."""
CHUNK = 1 << 20
DAMAGED = (OSError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, ValueError)
"""What reading a damaged, encrypted or unknown member raises."""


@dataclass
class Findings:
    """What was found, one line each: `problems` make the check fail, `remarks` do not."""

    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


class Place(Protocol):
    """Files under one root, in a folder or in an archive, by their names in the manifest's form."""

    def names(self) -> set[str]:
        """List the files that a manifest should know."""

    def open(self, name: str) -> IO[bytes] | None:
        """Open a file; None if there is none."""

    def odd(self) -> list[str]:
        """Name entries that no archive of ours has, with what is odd about them."""

    def close(self) -> None:
        """Let go of it."""


class Folder:
    """Files in a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> set[str]:
        """List all files but logs, timings, downloads and hidden ones."""
        found = set()
        for folder, inside, files in os.walk(self.root):
            inside[:] = [name for name in inside if name not in NO_RESULTS and not name.startswith(".")]
            found |= {(Path(folder) / name).relative_to(self.root).as_posix() for name in files if name[0] != "."}
        return found

    def open(self, name: str) -> IO[bytes] | None:
        """Open a file below the folder; None if there is none."""
        path = self.root / name
        return path.open("rb") if _is_safe(name) and path.is_file() else None

    def odd(self) -> list[str]:
        """Nothing: whatever lies in a folder of one's own may do so."""
        return []

    def close(self) -> None:
        """Do nothing."""


class Archive:
    """Members of a zip archive."""

    def __init__(self, path: Path) -> None:
        try:
            self._zip = zipfile.ZipFile(path)
        except DAMAGED:
            raise StudyError(
                f"{path}: not a readable zip archive; give the results folder of a study, or its archive"
            ) from None
        self._infos = self._zip.infolist()
        self._by_name = {info.filename: info for info in self._infos if not info.is_dir()}

    def names(self) -> set[str]:
        """List all members."""
        return set(self._by_name)

    def open(self, name: str) -> IO[bytes] | None:
        """Open a member; None if there is none."""
        return self._zip.open(self._by_name[name]) if name in self._by_name else None

    def odd(self) -> list[str]:
        """Name members that unpacking would write elsewhere, links, and names that are there twice."""
        counts = Counter(info.filename for info in self._infos)
        unsafe = [f"{name}: unsafe name; do not unpack this archive" for name in counts if not _is_safe(name)]
        links = [
            f"{info.filename}: a link; do not unpack this archive"
            for info in self._infos
            if stat.S_ISLNK(info.external_attr >> 16)
        ]
        return unsafe + links + [f"{name}: there {n} times" for name, n in counts.items() if n > 1]

    def close(self) -> None:
        """Close the file."""
        self._zip.close()


def check(path: Path) -> Findings:
    """Compare a folder, or a zip archive, with the manifest at its root.

    Missing and changed files, and whatever is odd about an archive, are problems. Files that nobody lists are problems in an archive, which is
    closed, and remarks in a folder, where a member that was taken out of the config leaves its files behind. Files that the manifest says are
    not kept here are one remark.

    Raises
    ------
    StudyError
        If there is no readable manifest.
    """
    with closing(Archive(path) if path.is_file() else Folder(path)) as place:
        listed, there = _manifest(place, path), place.names()
        odd = [_printable(f"{path}/{line}") for line in place.odd()]
        gone = {name for name, record in listed.items() if record.get("kept") is False and name not in there}
        states = {name: _state(place, name, record) for name, record in _expected(listed, gone)}
    found = Findings(odd + [_printable(f"{path}/{name}: {state}") for name, state in sorted(states.items()) if state])
    known = {MANIFEST, *listed, *(f"{name}.json" for name in listed)}
    extra = [_printable(f"{path}/{name}: extra: not in the manifest") for name in sorted(there - known)]
    if path.is_file():
        found.problems += extra
    else:
        found.remarks += [f"{line}; left behind by a member that was removed, it can be deleted" for line in extra]
    if gone:
        found.remarks.append(_left_out(path, list(gone), sum(listed[name]["size"] for name in gone)))
    return found


def _manifest(place: Place, path: Path) -> dict[str, dict[str, Any]]:
    problem = StudyError(f"{path}: no readable {MANIFEST}; give the results folder of a finished study, or its archive")
    try:
        file = place.open(MANIFEST)
        if file is None:
            raise problem
        with file:
            return parsed(file.read(LARGEST_MANIFEST + 1))
    except DAMAGED:
        raise problem from None


def parsed(text: bytes) -> dict[str, dict[str, Any]]:
    """Return what the text of a manifest says of files, by name.

    Raises
    ------
    ValueError
        If it is the text of no manifest.
    """
    try:
        files = json.loads(text)["files"] if len(text) <= LARGEST_MANIFEST else None
    except (KeyError, TypeError, RecursionError):
        files = None
    if not isinstance(files, dict) or not all(map(_is_record, files.values())):
        raise ValueError("not a manifest")
    return files


def _is_record(record: Any) -> bool:
    return isinstance(record, dict) and isinstance(record.get("sha256"), str) and isinstance(record.get("size"), int)


def _expected(listed: Mapping[str, Mapping[str, Any]], gone: set[str]) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """Yield every file that should be there, receipts included, with its sha256 and, if that is known, its size."""
    for name, record in listed.items():
        if name not in gone:
            yield name, record
        if "receipt" in record:
            yield f"{name}.json", {"sha256": record["receipt"]}


def _state(place: Place, name: str, record: Mapping[str, Any]) -> str | None:
    """Say `missing` or `changed`, or nothing of a file that is as it should be."""
    try:
        file = place.open(name)
        if file is None:
            return "missing"
        with file:
            return None if _sha256(file, record.get("size")) == record["sha256"] else "changed"
    except DAMAGED:
        return "changed"


def _sha256(file: IO[bytes], size: int | None) -> str | None:
    """Return the sum of a file, None as soon as it is longer than it should be."""
    digest, read = hashlib.sha256(), 0
    while chunk := file.read(CHUNK):
        read += len(chunk)
        if size is not None and read > size:
            return None
        digest.update(chunk)
    return digest.hexdigest()


def _is_safe(name: str) -> bool:
    """Say whether a name stays below the folder that it is taken relative to, on every system."""
    parts = PurePosixPath(name).parts
    return bool(parts) and not name.startswith("/") and ".." not in parts and not set(name) & set("\\:\0")


def _printable(line: str) -> str:
    """Escape what a hostile name could do to a terminal."""
    return line if line.isprintable() else ascii(line)[1:-1]


def _left_out(path: Path, names: list[str], size: int) -> str:
    kinds = ", ".join(sorted({_kind(name) for name in names}))
    return f"{path}: {len(names)} files ({size / 1e6:,.1f} MB) are not kept here ({kinds}); a run that needs them makes them again"


def _kind(name: str) -> str:
    """Name the folder of a study that a file is of, whether it is listed from there or from the root of an archive."""
    parts = name.split("/")
    return _printable(parts[2] if parts[0] == "results" and len(parts) > 2 else parts[0])
