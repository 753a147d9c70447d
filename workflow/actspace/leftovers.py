"""Files that a removed member of a study left behind: a receipt says that the study made them, and its manifest does not list them.

On the command line they are listed, and with `--delete` removed. What has no receipt, or is not as its receipt says, is none of ours and stays."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from actspace import commands, manifest, provenance, verify
from actspace.errors import StudyError


def find(folder: Path) -> list[Path]:
    """List the files with a receipt of this study that are older than its manifest, which does not list them.

    Newer ones may be of a member that was added: a run of some targets alone makes no manifest.

    Raises
    ------
    StudyError
        If the folder has no readable manifest.
    """
    listed = manifest.files_of(folder)
    there = verify.Folder(folder).names()
    unlisted = (name for name in sorted(there - listed.keys()) if f"{name}.json" in there)
    written = (folder / verify.MANIFEST).stat().st_mtime_ns
    older = (folder / name for name in unlisted if (folder / name).stat().st_mtime_ns <= written)
    return [path for path in older if _made_by(folder.resolve().name, path)]


def _made_by(study: str, path: Path) -> bool:
    try:
        record = provenance.read_receipt(provenance.receipt_of(path))
    except StudyError:
        return False
    return record.get("study") == study and record.get("size") == path.stat().st_size


def delete(folder: Path, files: list[Path]) -> list[Path]:
    """Delete files and their receipts, and folders that are then empty; return those files that stay, because somebody changed them."""
    stay = []
    for path in files:
        receipt = provenance.receipt_of(path)
        if path.is_symlink() or provenance.sha256_of(path) != provenance.read_receipt(receipt)["sha256"]:
            stay.append(path)
            continue
        path.unlink()
        receipt.unlink()
        _remove_empty(path.parent, folder)
    return stay


def _remove_empty(inner: Path, folder: Path) -> None:
    while inner != folder and not any(inner.iterdir()):
        inner.rmdir()
        inner = inner.parent


def remark(folder: Path) -> str | None:
    """Say in one line how many files are left behind, and how they go; nothing if there are none."""
    n = len(find(folder))
    if not n:
        return None
    how = f"`{commands.line('leftovers', folder)}` lists them, and with `--delete` removes them"
    return f"actspace: {n} files of members that were removed are left behind; {how}"


def main() -> int:
    """List what is left behind in a folder, or delete it."""
    parser = argparse.ArgumentParser(prog=commands.line("leftovers"), description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="results folder of a finished study: results/embedded")
    parser.add_argument("--delete", action="store_true", help="delete the files that are listed")
    given = parser.parse_args()
    try:
        files = find(given.folder)
        stay = delete(given.folder, files) if given.delete else []
    except StudyError as error:
        print(error, file=sys.stderr)
        return 1
    for path in files:
        print(f"{path}: changed since it was made; it stays" if path in stay else path)
    gone = f"{len(files) - len(stay)} deleted" if given.delete else f"{len(files)} left behind; --delete removes them"
    print(f"{given.folder}: {gone}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
