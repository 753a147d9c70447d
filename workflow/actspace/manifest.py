"""The manifest of a study: every current file with its sha256, and the sha256 of its receipt; on the command line, its check.

A removed member leaves its files behind; what is not in the manifest is not part of the study."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from actspace import commands, provenance, shards, verify
from actspace.errors import StudyError

Receipts = dict[str, dict[str, Any]]
Files = dict[str, dict[str, Any]]
"""What a manifest says of files, by name."""


def read_receipts(paths: Iterable[str]) -> Receipts:
    """Read receipts, and those of the files that lists among them name, by the path of what they belong to."""
    found = {str(path).removesuffix(".json"): provenance.read_receipt(path) for path in paths}
    listed = {file for path, record in found.items() if shards.is_list(path) for file in record["inputs"]}
    found |= {file: provenance.read_receipt(provenance.receipt_of(file)) for file in listed}
    return dict(sorted(found.items()))


def write(path: Path, receipts: Iterable[str]) -> None:
    """Write the manifest of the artifacts whose receipts are given; paths in it are relative to the manifest's folder.

    An artifact that is not there, as activations in an unpacked archive, is listed with `kept: false`.
    """
    files = {}
    for artifact, record in read_receipts(receipts).items():
        entry = {key: record[key] for key in ("sha256", "size", "rule")}
        entry["receipt"] = provenance.sha256_of(provenance.receipt_of(artifact))
        kept = {} if Path(artifact).is_file() else {"kept": False}
        files[Path(artifact).relative_to(path.parent).as_posix()] = entry | kept
    provenance.write_text(path, as_text(files))


def as_text(files: Mapping[str, Any]) -> str:
    """Return the text of a manifest: JSON that is sorted by key."""
    return json.dumps({"files": files}, indent=1, sort_keys=True) + "\n"


def files_of(folder: Path) -> Files:
    """Return what the manifest of a finished study lists; the files themselves are not looked at.

    Raises
    ------
    StudyError
        If the folder has no readable manifest.
    """
    try:
        return verify.parsed((folder / verify.MANIFEST).read_bytes())
    except (OSError, ValueError):
        raise StudyError(
            f"{folder}: no readable {verify.MANIFEST}; give the results folder of a finished study"
        ) from None


def token_passes(receipts: Iterable[Mapping[str, Any]]) -> float:
    """Sum the full-depth token passes of jobs; of several artifacts of one job, the one that took most counts."""
    jobs: dict[str, float] = defaultdict(float)
    for r in receipts:
        job = json.dumps([r["rule"], r["cfg"], r["inputs"]], sort_keys=True)
        jobs[job] = max(jobs[job], r["extra"].get("token_passes", 0.0))
    return sum(jobs.values())


def read_from_outside(receipts: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """List the files that jobs read and their study did not make, with their sha256, sorted."""
    read = {(r["study"], path, sha256) for r in receipts for path, sha256 in r["inputs"].items()}
    return sorted({(path, sha256) for study, path, sha256 in read if not path.startswith(f"results/{study}/")})


def versions(receipts: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Collect the versions of each package; several where jobs differ."""
    return gathered(item for record in receipts for item in record["versions"].items())


def gathered(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Collect the values of each name; names and values are sorted, and each is there once."""
    found: dict[str, set[str]] = defaultdict(set)
    for name, value in pairs:
        found[name].add(value)
    return {name: sorted(found[name]) for name in sorted(found)}


def closing_line(folder: Path, seconds: float) -> str:
    """Say what a finished run took and where its report lies."""
    if not (folder / verify.MANIFEST).is_file():
        return f"actspace: done in {seconds:.0f} s; `snakemake` without targets makes the report"
    passes = token_passes(provenance.read_receipt(provenance.receipt_of(folder / name)) for name in files_of(folder))
    cost = f"{seconds:.0f} s in this run; the study took {passes:,.0f} full-depth token passes"
    return f"actspace: {folder.name} is done: {cost}; report: {folder / 'report.html'}"


def main() -> int:
    """Check the folders and archives that are named on the command line; the exit code says whether all are whole."""
    try:
        if not sys.argv[1:]:
            example = commands.line("manifest", "results/embedded")
            raise StudyError(f"name the results folders or archives to check, for example: {example}")
        found = [verify.check(Path(place)) for place in sys.argv[1:]]
    except StudyError as error:
        print(error)
        return 1
    problems = [line for findings in found for line in findings.problems]
    remarks = [line for findings in found for line in findings.remarks]
    print("\n".join([*problems, *remarks, *([] if problems else ["every file is as the manifest says"])]))
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
