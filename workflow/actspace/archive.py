"""The archive of a study: a zip file that unpacks to a folder in which Snakemake has nothing to do.

It holds the results and their receipts, the config, the code, the versions of the software, and Snakemake's records of what made each file:
without these, a later change of the config would rerun nothing. Time stamps, permissions, names and their order depend on the content
alone, so the same results make the same bytes. `manifest.json` at the root lists every other member with its sha256."""

from __future__ import annotations

import hashlib
import zipfile
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path, PurePosixPath
from platform import python_version
from typing import Any

import yaml

from actspace import checkout, manifest, provenance, verify
from actspace.config.study import Study
from actspace.errors import StudyError
from actspace.manifest import Files

METADATA = "ro-crate-metadata.json"
CONFIG = "config/config.yaml"
GIVEN = "config/given"
SOFTWARE = "software-versions.txt"
LARGE = ("activations", "surrogates")
"""Folders of a study that are left out unless they are asked for."""
PACKED = (".parquet", ".png", ".safetensors")
"""Kinds of files that compression makes no smaller, or hardly."""
LONGEST_NAME = 254
"""Characters of one folder in the names of Snakemake's records."""
CHUNK = 1 << 20


@dataclass(frozen=True)
class Member:
    """A file to be: its content, or where that lies, and the sha256 that it must have, if it is known."""

    source: Path | bytes
    sha256: str | None = None

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.source) if isinstance(self.source, bytes) else self.source.stat().st_size

    @property
    def mode(self) -> int:
        """Permissions, of which only that to execute depends on the file."""
        runs = isinstance(self.source, Path) and self.source.stat().st_mode & 0o100
        return 0o755 if runs else 0o644


# --- what goes in ----------------------------------------------------------------------------------------------------------------------------


def is_kept(study: Study, name: str) -> bool:
    """Say whether a result goes into the archive, by its name below the study's folder."""
    return study.archive.activations or name.split("/")[0] not in LARGE


def members(
    study: Study, results: Path, given: Iterable[str], root: Path = checkout.ROOT
) -> tuple[dict[str, Member], Files]:
    """Collect what an archive holds, but its manifest and metadata.

    Parameters
    ----------
    study : the study
    results : its folder, below the working directory
    given : config files that the study was read from
    root : folder of the code

    Returns
    -------
    members by name, and what the manifest says of results that are left out, by name
    """
    listed = manifest.files_of(results)
    chosen = {name: record | _kept(study, results, name, record) for name, record in listed.items()}
    left_out = {f"{results.as_posix()}/{name}": record for name, record in chosen.items() if "kept" in record}
    found = {name: Member(root / name) for name in checkout.files(root) if not name.startswith(f"{GIVEN}/")}
    found |= {CONFIG: Member(_resolved(study).encode()), SOFTWARE: Member(installed().encode())}
    found |= {f"{GIVEN}/{i}-{Path(path).name}": Member(Path(path)) for i, path in enumerate(given, 1)}
    found |= _results(results, chosen)
    outputs = [f"{results.as_posix()}/{verify.MANIFEST}"]
    outputs += [f"{results.as_posix()}/{name}{suffix}" for name in listed for suffix in ("", ".json")]
    return found | _snakemake_records(outputs), left_out


def date_of(report: Path) -> str:
    """Return the day of a report, as its receipt has it.

    Raises
    ------
    StudyError
        If it has none: the report of an earlier version, which only noted the day on the page.
    """
    date = provenance.read_receipt(provenance.receipt_of(report))["extra"].get("date")
    if date is None:
        raise StudyError(f"{report}: its receipt has no date; delete it, run `snakemake` and archive again")
    return str(date)


def _kept(study: Study, results: Path, name: str, record: Mapping[str, Any]) -> dict[str, bool]:
    """Mark a result that stays behind; one that should go along must be there."""
    wanted = is_kept(study, name)
    if wanted and not (results / name).is_file():
        raise StudyError(
            f"{results / name}: missing, but listed in {verify.MANIFEST}; `snakemake --cores all {results / name}` makes it again"
        )
    return {} if wanted else {"kept": False}


def _results(results: Path, chosen: Files) -> dict[str, Member]:
    """Results and receipts, and the study's own manifest, which says what was left out."""
    prefix = results.as_posix()
    found = {f"{prefix}/{verify.MANIFEST}": Member(manifest.as_text(chosen).encode())}
    for name, record in chosen.items():
        found[f"{prefix}/{name}.json"] = Member(provenance.receipt_of(results / name), record["receipt"])
        if "kept" not in record:
            found[f"{prefix}/{name}"] = Member(results / name, record["sha256"])
    return found


def _resolved(study: Study) -> str:
    """Write the config with all its defaults. Device and threads are left to the machine that reads it."""
    settings = study.model_dump(mode="json", exclude={"compute": {"device", "threads"}})
    head = f"# The config of '{study.study}' with every default; `{GIVEN}/` holds the files it was read from.\n"
    return head + yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=120)


def installed() -> str:
    """List what is installed where the archive is made, as pins for pip."""
    pins = {f"{d.metadata['Name'].lower().replace('_', '-')}=={d.version}" for d in distributions()}
    head = (
        f"# Installed where the archive was made, under Python {python_version()}; receipts tell what made each file."
    )
    return "\n".join([head, *sorted(pins), ""])


def _snakemake_records(outputs: Iterable[str]) -> dict[str, Member]:
    """Find what Snakemake noted of outputs when it made them: params, and inputs by checksum."""
    names = {output: f".snakemake/metadata/{_record_name(output)}" for output in outputs}
    return {name: Member(Path(name)) for name in names.values() if Path(name).is_file()}


def _record_name(output: str) -> str:
    """Return the name that Snakemake gives the record of an output: long ones are cut into folders."""
    name = urlsafe_b64encode(output.encode()).decode()
    parts = [name[start : start + LONGEST_NAME] for start in range(0, len(name), LONGEST_NAME)]
    return "/".join([*(f"@{part}" for part in parts[:-1]), parts[-1]])


# --- the file --------------------------------------------------------------------------------------------------------------------------------


def write(
    path: Path, members: Mapping[str, Member], left_out: Files, date: str, describe: Callable[[Files], str]
) -> None:
    """Write a zip archive that depends on the content of its members alone.

    Parameters
    ----------
    path : of the archive
    members : what goes in, by name
    left_out : what the manifest says of files that do not
    date : day that every member is dated to, as 2026-01-31
    describe : makes the metadata from what the manifest says of all members

    Raises
    ------
    StudyError
        If a file is not what its receipt says.
    """
    with zipfile.ZipFile(path, "w") as file:
        for folder in sorted({f"{folder}/" for name in members for folder in list(PurePosixPath(name).parents)[:-1]}):
            file.writestr(_info(folder, 0o40755, date), b"")
        files = {name: _add(file, name, members[name], date) for name in sorted(members)}
        files[METADATA] = _add(file, METADATA, Member(describe(files).encode()), date)
        _add(file, verify.MANIFEST, Member(manifest.as_text(files | left_out).encode()), date)


def _add(file: zipfile.ZipFile, name: str, member: Member, date: str) -> dict[str, Any]:
    """Copy a member in pieces and return its sha256 and size."""
    info = _info(name, 0o100000 | member.mode, date)
    info.file_size = member.size  # so that a large file gets a header for large files
    info.compress_type = zipfile.ZIP_STORED if name.endswith(PACKED) else zipfile.ZIP_DEFLATED
    digest = hashlib.sha256()
    with file.open(info, "w") as copy:
        for piece in _pieces(member.source):
            digest.update(piece)
            copy.write(piece)
    if member.sha256 not in (None, digest.hexdigest()):
        raise StudyError(f"{name}: changed since it was made; delete it, run `snakemake` and archive again")
    return {"sha256": digest.hexdigest(), "size": info.file_size}


def _info(name: str, mode: int, date: str) -> zipfile.ZipInfo:
    """Begin an entry; nothing of it comes from the clock or from the system."""
    year, month, day = map(int, date.split("-"))
    info = zipfile.ZipInfo(name, (year, month, day, 0, 0, 0))
    info.create_system, info.external_attr = 3, mode << 16
    return info


def _pieces(source: Path | bytes) -> Iterable[bytes]:
    if isinstance(source, bytes):
        yield source
        return
    with source.open("rb") as file:
        while piece := file.read(CHUNK):
            yield piece
