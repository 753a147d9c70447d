"""The manifest of a study: every current file with its sha256, and the sha256 of its receipt; on the command line, its check.

A removed member leaves its files behind; what is not in the manifest is not part of the study."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from actspace import provenance, verify
from actspace.errors import StudyError

Receipts = dict[str, dict[str, Any]]


def read_receipts(paths: Iterable[str]) -> Receipts:
    """Read receipts, by the path of what they belong to."""
    return {str(path).removesuffix(".json"): provenance.read_receipt(path) for path in sorted(map(str, paths))}


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


def token_passes(receipts: Iterable[Mapping[str, Any]]) -> float:
    """Sum the full-depth token passes of jobs; several artifacts of one job count once."""
    jobs = {
        json.dumps([r["rule"], r["cfg"], r["inputs"]], sort_keys=True): r["extra"].get("token_passes", 0.0)
        for r in receipts
    }
    return float(sum(jobs.values()))


def closing_line(folder: Path, seconds: float) -> str:
    """Say what a finished run took and where its report lies."""
    if not (folder / "manifest.json").is_file():
        return f"actspace: done in {seconds:.0f} s; `snakemake` without targets makes the report"
    files = json.loads((folder / "manifest.json").read_text())["files"]
    passes = token_passes(provenance.read_receipt(provenance.receipt_of(folder / name)) for name in files)
    cost = f"{seconds:.0f} s in this run; the study took {passes:,.0f} full-depth token passes"
    return f"actspace: {folder.name} is done: {cost}; report: {folder / 'report.html'}"


def main() -> int:
    """Check the folders and archives that are named on the command line; the exit code says whether all are whole."""
    try:
        if not sys.argv[1:]:
            raise StudyError(
                "name the results folders or archives to check, for example: python -m actspace.manifest results/embedded"
            )
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
