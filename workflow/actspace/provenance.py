"""Receipts: beside every artifact `x` a small `x.json` that says what it is and what it was made from.

Consumers take the artifact as `ancient()` and the receipt as the input that counts; Snakemake compares small files by content, so copying
or touching gigabytes reruns nothing. A receipt therefore holds nothing that differs between two equal runs: no time, no path of the machine (the
report's alone has the day that the page shows)."""

from __future__ import annotations

import errno
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from actspace.errors import StudyError

DAMAGED = "a crash damaged it, or somebody changed it: delete it with its receipt (.json) and run again"
PACKAGES = ("torch", "transformers", "transformer_lens", "numpy", "pandas", "scikit-learn", "pyarrow")


@cache
def installed_versions() -> dict[str, str]:
    """Return the versions of the packages that numbers depend on."""
    installed = {d.metadata["Name"].lower().replace("_", "-"): d.version for d in importlib.metadata.distributions()}
    return {name: installed.get(name.replace("_", "-"), "absent") for name in PACKAGES}


@dataclass(frozen=True)
class MadeBy:
    """What made an artifact: rule, resolved settings, code fingerprint, inputs by sha256, software."""

    study: str
    rule: str
    cfg: Mapping[str, Any]
    code: str
    inputs: Mapping[str, str]
    versions: Mapping[str, str] = field(default_factory=installed_versions)
    extra: Mapping[str, Any] = field(default_factory=dict)

    def adding(self, **extra: Any) -> MadeBy:
        """Return a copy that also records what was learned while running: device, counts, token passes."""
        return MadeBy(self.study, self.rule, self.cfg, self.code, self.inputs, self.versions, {**self.extra, **extra})

    def as_json(self) -> str:
        """Return the record as one line of key-sorted JSON, as it stands in Parquet and safetensors metadata."""
        return json.dumps(asdict(self), sort_keys=True, default=str)


def of(study: str, rule: str, params: Any, inputs: Iterable[str]) -> MadeBy:
    """Record what a job is about to make: its two params, and the sha256 that the receipts among its inputs state.

    Inputs without a receipt (a user's own files) are hashed. Raises StudyError if a receipt is damaged, or states another size than its file has.
    """
    paths = sorted({str(path) for path in inputs})
    receipts = {path for path in paths if path.endswith(".json") and path.removesuffix(".json") in paths}
    for path in receipts:
        check_size(path.removesuffix(".json"))
    sums = {path.removesuffix(".json"): read_receipt(path)["sha256"] for path in receipts}
    sums |= {
        path: sha256_of(Path(path))
        for path in paths
        if path not in receipts and path not in sums and Path(path).is_file()
    }
    return MadeBy(study, rule, dict(params.cfg), str(params.code), dict(sorted(sums.items())))


class Draft:
    """An artifact while it is written: a binary file of a temporary name beside its place, hashed as it grows.

    `finish` gives the file its own name and then its receipt; `discard` leaves nothing. The receipt of an older file of that name goes first, so
    that there is never one which belongs to another file. Hashing has a thread of its own, as it takes as long as writing.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._temporary = _partial(self.path)
        with _disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._temporary.open("wb", buffering=0)
        self._hash, self._hashing = hashlib.sha256(), ThreadPoolExecutor(1)
        self._hashed: Future[None] | None = None

    def write(self, data: Any) -> int:
        """Append bytes (any buffer, which must not change before the next write)."""
        before, self._hashed = self._hashed, self._hashing.submit(self._hash.update, data)
        rest = memoryview(data).cast("B")
        size = len(rest)
        with _disk_errors(self.path):
            while len(rest):  # the system may take a part only
                rest = rest[self._file.write(rest) :]
        if before:
            before.result()  # so that no more than two pieces wait in memory
        return size

    def tell(self) -> int:
        """Return how many bytes have been written."""
        return self._file.tell()

    def flush(self) -> None:
        """Do nothing: no bytes wait here."""

    @property
    def closed(self) -> bool:
        """Whether nothing can be written any more."""
        return self._file.closed

    def finish(self, made_by: MadeBy) -> None:
        """Give the file its name, and then its receipt."""
        self._hashing.shutdown()
        size = self.tell()
        with _disk_errors(self.path):
            os.fsync(self._file)
            self._file.close()
            receipt_of(self.path).unlink(missing_ok=True)
            os.replace(self._temporary, self.path)
        _write_receipt(self.path, self._hash.hexdigest(), size, made_by)

    def discard(self) -> None:
        """Remove what has been written; do nothing to a finished file."""
        self._hashing.shutdown()
        self._file.close()
        self._temporary.unlink(missing_ok=True)


def write(path: str | Path, writer: Callable[[Path], None], made_by: MadeBy) -> None:
    """Write an artifact and its receipt so that neither ever looks finished when it is not.

    The file gets its place when it is complete, its receipt after it; `writer` as in `write_whole`.
    """
    path = Path(path)

    def complete(temporary: Path) -> None:
        writer(temporary)
        receipt_of(path).unlink(missing_ok=True)

    write_whole(path, complete)
    stamp(path, made_by)


def stamp(path: str | Path, made_by: MadeBy) -> None:
    """Write the receipt of a file that lies complete in its place."""
    path = Path(path)
    _write_receipt(path, sha256_of(path), path.stat().st_size, made_by)


def _write_receipt(path: Path, sha256: str, size: int, made_by: MadeBy) -> None:
    record = {"sha256": sha256, "size": size, **asdict(made_by)}
    text = json.dumps(record, sort_keys=True, indent=1, default=str) + "\n"
    write_text(receipt_of(path), text)


def receipt_of(path: str | Path) -> Path:
    """Return the path of an artifact's receipt."""
    return Path(f"{path}.json")


def read_receipt(receipt: str | Path) -> dict[str, Any]:
    """Read a receipt; a damaged one is a StudyError that names the remedy."""
    try:
        record: dict[str, Any] = json.loads(Path(receipt).read_text())
        record["sha256"]
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise StudyError(f"{receipt}: not a receipt ({type(error).__name__}); delete it and run again") from None
    return record


def check_size(path: str | Path) -> None:
    """Raise StudyError if a file has another size than the receipt beside it states, as after a crash; one that is not there passes."""
    path = Path(path)
    if path.is_file() and path.stat().st_size != (stated := read_receipt(receipt_of(path)).get("size")):
        raise StudyError(f"{path}: has {path.stat().st_size} bytes, its receipt says {stated}; {DAMAGED}")


def check(path: str | Path) -> None:
    """Raise StudyError if a file is not, byte for byte, what the receipt beside it says; one without a receipt passes.

    For formats without checksums of their own: a damaged number in safetensors is a number like any other.
    """
    path = Path(path)
    if receipt_of(path).is_file() and sha256_of(path) != read_receipt(receipt_of(path))["sha256"]:
        raise StudyError(f"{path}: is not what its receipt says; {DAMAGED}")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_whole(path: Path, writer: Callable[[Path], None]) -> None:
    """Write a file that is complete or as it was before, also after a power cut.

    `writer` gets a place in a folder of its own: libraries put temporary files beside what they write, which go with the folder
    even if the job is killed and another one makes the file.
    """
    scratch = path.with_name(f".{path.name}.writing")
    temporary = scratch / path.name
    try:
        with _disk_errors(path):
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir(parents=True)
            writer(temporary)
            os.chmod(temporary, 0o666 & ~_umask())
            sync(temporary)
            os.replace(temporary, path)
        sync_folder(path.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a text as `write_whole` does."""
    write_whole(path, lambda temporary: _write_text(temporary, text))


def sync(path: Path) -> None:
    """Wait until a file's content is on the disk: a file system may keep a new name through a power cut, and lose what it stands for."""
    with path.open("rb") as file:
        os.fsync(file)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, where the file system can tell."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """Say in one line which file did not fit on the disk, or may not be written."""
    try:
        yield
    except Exception as error:
        number = _number_of(error)
        if number in (errno.ENOSPC, errno.EDQUOT):
            free = shutil.disk_usage(path.parent).free / 1e6
            raise StudyError(
                f"{path}: the disk is full ({free:.0f} MB free); free some space and run again: finished files stay"
            ) from None
        if number in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise StudyError(
                f"{path}: cannot be written ({os.strerror(number)}); make the file and its folder writable and run again: finished files stay"
            ) from None
        raise


def _number_of(error: Exception) -> int | None:
    """Return the system's number of an error; libraries in Rust, as safetensors, only write it into their message."""
    told = re.search(r"\(os error (\d+)\)", str(error))
    return int(told[1]) if told else getattr(error, "errno", None)


def _partial(path: Path) -> Path:
    """Return the temporary name of a file; one that a killed job left behind is written over."""
    return path.with_name(f".{path.name}.partial")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
