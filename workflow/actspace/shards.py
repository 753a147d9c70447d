"""Lists of shards: one small file that stands for the many that a stage reads.

Snakemake plans a job by looking at each of its inputs, so thousands of shards at a dozen hooks would make planning slow. A row is a file and its
sha256. A list's receipt has the files themselves as its inputs, so what something was made from can be followed to the shard by receipts alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from actspace import provenance
from actspace.errors import StudyError
from actspace.provenance import MadeBy

SUFFIX = ".files.csv"
HEADER = "file,sha256"


def is_list(path: str | Path) -> bool:
    """Say whether a file is a list of others, by its name."""
    return str(path).endswith(SUFFIX)


def sums(files: Iterable[str | Path]) -> dict[str, str]:
    """Read the sha256 of files from their receipts, in the order given."""
    return {str(file): provenance.read_receipt(provenance.receipt_of(file))["sha256"] for file in files}


def write(path: str | Path, files: Mapping[str, str], made_by: MadeBy) -> None:
    """Write a list: the sha256 of files, by path, in the order in which they are to be read; token passes are left to the files, to count once."""
    text = "\n".join([HEADER, *map(",".join, files.items()), ""])

    def writer(temporary: Path) -> None:
        temporary.write_text(text)

    extra = {name: value for name, value in made_by.extra.items() if name != "token_passes"}
    provenance.write(path, writer, replace(made_by, inputs=dict(files), extra=extra))


def read(path: str | Path) -> dict[str, str]:
    """Read a list: the sha256 of files, by path.

    Raises
    ------
    StudyError
        If it is none.
    """
    try:
        head, *lines = Path(path).read_text().splitlines()
        found = dict(line.split(",") for line in lines)
    except (OSError, ValueError) as error:
        raise StudyError(f"{path}: not a list of files ({type(error).__name__}); delete it and run again") from None
    if head != HEADER or not found:
        raise StudyError(f"{path}: not a list of files; delete it and run again")
    return found


def expand(paths: Iterable[str | Path]) -> list[str]:
    """Put the files that a list names in its place; other paths stay."""
    return [file for path in paths for file in (read(path) if is_list(path) else [str(path)])]


def named(path: str | Path, name: str) -> str:
    """Find the file of a list that has a name (without suffix).

    Raises
    ------
    StudyError
        If there is none.
    """
    found = next((file for file in read(path) if Path(file).stem == name), None)
    if found is None:
        raise StudyError(f"{path}: lists no file {name}; ask for one of those that it lists")
    return found


def settings(paths: Iterable[str | Path]) -> dict[str, Any]:
    """Read from its receipt with which settings the first file was made; all shards have the same."""
    return dict(provenance.read_receipt(provenance.receipt_of(expand(paths)[0]))["cfg"])
