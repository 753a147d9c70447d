"""The page of a comparison: one HTML file that needs nothing else, no network and no script."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from markupsafe import Markup

from actspace import commands
from actspace.compare.differences import NOT_TESTED
from actspace.compare.folders import Finished
from actspace.report import page
from actspace.report.summaries import groups

HERE = Path(__file__).parent
TITLES = {
    "settings": ("Settings", "settings"),
    "inputs": ("Inputs (sha256)", "inputs"),
    "versions": ("Software", "versions of the software"),
    "code": ("Code of the rules (fingerprints)", "code"),
}
"""Heading of each table of differences, and what to call it when nothing differs."""
HEX = 12
"""Digits shown of a sha256 or a fingerprint; the tables beside the page have all of them."""


class Row(NamedTuple):
    """One claim over all studies: its cells are (verdict, value, low, high) by study."""

    title: str
    unit: str
    criterion: str
    agreement: str
    cells: list[tuple[str, float, float, float]]


def render(
    studies: Sequence[Finished],
    differences: Mapping[str, pd.DataFrame],
    verdicts: pd.DataFrame,
    figure: str,
    caption: str,
) -> str:
    """Render the comparison.

    Parameters
    ----------
    differences : tables by the names of `TITLES`, as `differences` makes them
    verdicts : as `differences.verdicts` makes it
    figure : SVG of the effects; empty where there are none

    Returns
    -------
    str, one self-contained HTML document; every text is escaped
    """
    rows = list(by_claim(verdicts))
    return page.template(HERE, "comparison.html.j2").render(
        css=Markup((page.HERE / "page.css").read_text(encoding="utf-8")),
        badges={**page.BADGES, NOT_TESTED: "·"},
        studies=studies,
        check=commands.line("manifest"),
        tables=[(*TITLES[name], name, list(table.columns), list(_shown(table))) for name, table in differences.items()],
        rows=rows,
        differ=[row for row in rows if row.agreement != "same"],
        same=[row for row in rows if row.agreement == "same"],
        figure=figure,
        caption=caption,
        equal=not any(len(table) for table in differences.values()) and all(row.agreement == "same" for row in rows),
    )


def by_claim(verdicts: pd.DataFrame) -> Iterator[Row]:
    """Yield the claims in the order of the table."""
    for _, rows in groups(verdicts, "id"):
        cells = rows[["verdict", "value", "low", "high"]].itertuples(index=False, name=None)
        first = rows.iloc[0]
        yield Row(first["title"], first["unit"], first["criterion"], first["agreement"], list(cells))


def _shown(table: pd.DataFrame) -> Iterator[list[str]]:
    """Yield the cells of each row, long hexadecimal numbers cut."""
    for row in table.itertuples(index=False, name=None):
        yield [row[0], *(_cut(str(cell)) for cell in row[1:])]


def _cut(cell: str) -> str:
    is_hash = len(cell) > HEX and not set(cell) - set("0123456789abcdef")
    return f"{cell[:HEX]}…" if is_hash else cell
