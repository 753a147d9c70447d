"""Stages that were made with other versions of the numeric libraries than are installed now.

An upgrade reruns nothing by itself: whether it changes a number is for its user to judge. On the command line, the rules that it may affect are
printed one a line, for `snakemake --forcerun`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from actspace import commands, manifest, provenance
from actspace.errors import StudyError


def affected(folder: Path) -> dict[str, list[str]]:
    """List the rules whose receipts name other versions than are installed, by change: `numpy 2.1.0 -> 2.2.0`.

    Raises
    ------
    StudyError
        If the folder has no manifest, or a receipt is damaged.
    """
    receipts = (provenance.read_receipt(provenance.receipt_of(folder / name)) for name in manifest.files_of(folder))
    return manifest.gathered((change, record["rule"]) for record in receipts for change in _changes(record))


def _changes(record: dict[str, Any]) -> list[str]:
    now, made_with = provenance.installed_versions(), record.get("versions", {})
    return [f"{name} {old} -> {now[name]}" for name, old in made_with.items() if now.get(name, old) != old]


def remark(folder: Path) -> str | None:
    """Say in one line which upgrades may affect how many stages, and how to rerun these; nothing if there are none."""
    found = affected(folder)
    if not found:
        return None
    rules = {rule for rules in found.values() for rule in rules}
    again = f"`snakemake --cores all --forcerun $({commands.line('upgrades', folder)})` makes them again"
    return f"actspace: {'; '.join(found)}: may affect {len(rules)} stages, none was rerun for it; {again}"


def main() -> int:
    """Print the rules that upgrades may affect, and to standard error which upgrades these are."""
    try:
        if len(sys.argv) != 2:
            raise StudyError(f"name one results folder, for example: {commands.line('upgrades', 'results/embedded')}")
        found = affected(Path(sys.argv[1]))
    except StudyError as error:
        print(error, file=sys.stderr)
        return 1
    for change, rules in found.items():
        print(f"{change}: {', '.join(rules)}", file=sys.stderr)
    print("\n".join(sorted({rule for rules in found.values() for rule in rules})))
    return 0


if __name__ == "__main__":
    sys.exit(main())
