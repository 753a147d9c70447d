"""What a claim is, and how its statistic finds its rows in the tables of a study."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pandas as pd

from actspace.claims.intervals import Criterion, Estimate, everywhere

Tables = Mapping[str, pd.DataFrame]

SIGN_ALONE = "None: the sign alone is claimed."
CHANCE_ALONE = "None: 0.5 is chance, and the order alone is claimed."


class NotTestedError(Exception):
    """The study has no rows for a claim; the text says which are missing."""


@dataclass(frozen=True)
class Claim:
    """One published claim.

    Parameters
    ----------
    id, title, sentence, source, note : str
        The claim in one sentence of our own; where it was published, by whom and when; what a reader must know beside
        the verdict, above all where its authors corrected it.
    table : str
        The table that the statistic reads.
    statistic : str
        What is computed, in words.
    unit : str
        What value, interval and criterion are in.
    compute : callable
        Tables to `Estimate`; raises `NotTestedError` where the study lacks the rows.
    criterion : Above or Within
        What the whole interval must meet for the claim to hold, and miss for it to fail.
    tolerance : str
        What margin the criterion leaves around what was published, and where its limits come from.
    figure : str
        Id of the figure that shows it.
    """

    id: str
    title: str
    source: str
    sentence: str
    table: str
    statistic: str
    unit: str
    compute: Callable[[Tables], Estimate]
    criterion: Criterion
    tolerance: str
    figure: str
    note: str = ""


def claims_of(**shared: object) -> Callable[..., Claim]:
    """Return a function that makes claims with some fields in common; those it is given stand above the shared ones."""

    def claim(**own: object) -> Claim:
        return Claim(**(shared | own))  # type: ignore[arg-type]

    return claim


@dataclass(frozen=True)
class Beyond:
    """A published claim that no study of this pipeline can test, and why; the other fields as in `Claim`."""

    id: str
    title: str
    source: str
    sentence: str
    reason: str


def rows_of(tables: Tables, name: str, **wanted: object) -> pd.DataFrame:
    """Return the rows of a table whose columns equal the wanted values.

    Raises
    ------
    NotTestedError
        If the study has no such table, or the table has no such row.
    """
    table = tables.get(name)
    if table is None or table.empty:
        raise NotTestedError(f"no table {name}")
    for column, value in wanted.items():
        table = table[table[column] == value]
    if table.empty:
        raise NotTestedError(f"no rows in {name} with " + ", ".join(f"{c} = {v}" for c, v in wanted.items()))
    return table


def estimate_of(row: pd.Series, prefix: str = "") -> Estimate:
    """Read value, low and high of one row; with a prefix, of the columns prefix, prefix_low and prefix_high."""
    names = (prefix, f"{prefix}_low", f"{prefix}_high") if prefix else ("value", "low", "high")
    value, low, high = (float(row[name]) for name in names)
    return Estimate(value, low, high)


def where_tested(parts: Mapping[str, pd.DataFrame], statistic: Callable[[pd.DataFrame], Estimate]) -> Estimate:
    """Compute a statistic at every place that has its rows, and join the estimates as `everywhere` does.

    Raises
    ------
    NotTestedError
        If no place has them.
    """
    places, missing = {}, None
    for place, rows in parts.items():
        try:
            places[place] = statistic(rows)
        except NotTestedError as error:
            missing = error
    if not places:
        raise missing or NotTestedError("no rows at all")
    return everywhere(places)
