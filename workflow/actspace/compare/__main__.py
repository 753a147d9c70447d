"""Compare finished studies: `PYTHONPATH=workflow python -m actspace.compare results/a results/b --output comparison`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from actspace import commands, fingerprint, provenance, tables
from actspace.compare import differences, figure, folders, page
from actspace.compare.folders import Finished
from actspace.errors import StudyError
from actspace.provenance import MadeBy
from actspace.report import export, style

DIFFERENCES = {
    "settings": differences.settings,
    "inputs": differences.inputs,
    "versions": differences.versions,
    "code": differences.code,
}


def compare(places: Sequence[Path], output: Path) -> str:
    """Write the page of a comparison and its tables; return a line about what differs."""
    studies = folders.read_all(places)
    made_by = _made_by(studies)
    found = {name: table(studies) for name, table in DIFFERENCES.items()}
    verdicts = differences.verdicts(studies)
    for name, table in {**found, "verdicts": verdicts}.items():
        tables.write_both(output / f"{name}.parquet", table, made_by)
    html = page.render(studies, found, verdicts, _svg(verdicts, [study.name for study in studies]), figure.CAPTION)
    path = output / "comparison.html"
    provenance.write(path, partial(_write_text, text=html), made_by)
    unlike = verdicts[verdicts["agreement"] != "same"]["id"].nunique()
    counts = ", ".join(f"{name} {len(table)}" for name, table in found.items())
    return f"{path}: {len(studies)} studies, their files not checked; what differs: {counts}, verdicts {unlike}"


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _svg(verdicts: pd.DataFrame, names: Sequence[str]) -> str:
    if verdicts.empty:
        return ""
    with style.theme():
        return export.to_svg(figure.draw(verdicts, names), "effects", figure.TITLE, figure.CAPTION).decode()


def _made_by(studies: Sequence[Finished]) -> MadeBy:
    manifests = [study.folder / "manifest.json" for study in studies]
    inputs = {str(path): provenance.sha256_of(path) for path in manifests}
    cfg = {"studies": [study.name for study in studies]}
    return MadeBy("comparison", "compare", cfg, fingerprint.of_script(Path(__file__)), inputs)


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare the folders that are named on the command line."""
    parser = argparse.ArgumentParser(prog=commands.line("compare"), description="Set finished studies side by side.")
    parser.add_argument("folders", nargs="+", type=Path, help="results folders, for example results/a results/b")
    parser.add_argument("--output", type=Path, default=Path("comparison"), help="folder to write to (comparison)")
    given = parser.parse_args(arguments)
    try:
        print(compare(given.folders, given.output))
    except StudyError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
