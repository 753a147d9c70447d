"""What a comparison reads of a study: its manifest, the receipts of its files, and its tables of claims."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from actspace import manifest, provenance, tables
from actspace.errors import StudyError

SETTINGS_OF = "report.html"
"""The file whose receipt holds the whole config of a study."""


@dataclass(frozen=True)
class Finished:
    """A finished study, as its folder tells of it.

    Parameters
    ----------
    name : what tells it from the others of a comparison
    files : sha256, size and rule of each file, by its path in the folder, as the manifest has them
    receipts : those receipts that are in the folder; an archive may leave large files out
    claims, untested : the tables `claims` and `untested_claims`
    """

    name: str
    folder: Path
    files: manifest.Files
    receipts: manifest.Receipts
    claims: pd.DataFrame
    untested: pd.DataFrame

    @property
    def settings(self) -> Mapping[str, Any]:
        """The resolved config."""
        found: Mapping[str, Any] = self.receipts[SETTINGS_OF]["cfg"]
        return found


def read_all(folders: Sequence[Path]) -> list[Finished]:
    """Read the folders of two studies or more.

    Raises
    ------
    StudyError
        If there are fewer than two different folders, or one is no folder of a finished study.
    """
    places = [folder.resolve() for folder in folders]
    if len(set(places)) < 2 or len(set(places)) < len(places):
        raise StudyError("compare: give the results folders of two different studies or more, each once")
    return [read(folder, name) for folder, name in zip(folders, names(places), strict=True)]


def names(places: Sequence[Path]) -> list[str]:
    """Name folders by as few of their last parts as tell them apart."""
    for n in range(1, max(len(place.parts) for place in places)):
        found = ["/".join(place.parts[-n:]) for place in places]
        if max(Counter(found).values()) == 1:
            return found
    return [str(place) for place in places]


def read(folder: Path, name: str) -> Finished:
    """Read the folder of a finished study; its files are taken as they are, and not checked against the manifest."""
    files = manifest.files_of(folder)
    there = {path: provenance.receipt_of(folder / path) for path in files}
    receipts = {path: provenance.read_receipt(receipt) for path, receipt in there.items() if receipt.is_file()}
    if SETTINGS_OF not in receipts:
        raise StudyError(
            f"{folder}: no receipt of {SETTINGS_OF}, which has the settings; give the folder of a whole study"
        )
    claims, untested = (_table(folder, table) for table in ("claims", "untested_claims"))
    if not {"lowest", "highest"} <= set(claims):
        raise StudyError(
            f"{folder}: its table of claims is of an older version; run the study again, which makes it anew"
        )
    return Finished(name, folder, files, receipts, claims, untested)


def _table(folder: Path, name: str) -> pd.DataFrame:
    path = folder / "tables" / f"{name}.parquet"
    if not path.is_file():
        raise StudyError(f"{path}: missing; give the results folder of a finished study")
    return tables.read(path)
