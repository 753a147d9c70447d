"""Claims about two probes in a row: what a first and what a second stage are worth."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from actspace.claims.entry import SIGN_ALONE, NotTestedError, Tables, claims_of, estimate_of, rows_of, where_tested
from actspace.claims.intervals import Above, Estimate, difference, mean
from actspace.claims.sources import MONITORING
from actspace.probes.cascades import BOTH, CHANCE, FIRST_ALONE
from actspace.report.summaries import groups

SECOND = ("probes", "second_probe", "second_hook", "allowed_rate")
FIRST = ("first_probe", "first_hook")


def every_cascade(tables: Tables, worth: Callable[[pd.DataFrame, pd.DataFrame], Estimate]) -> Estimate:
    """Compute what a stage is worth in every cascade, given its recalls and those with a first stage at chance."""
    recalls = rows_of(tables, "probe_cascades", metric="recall")
    parts = {}
    for (_, second, hook, rate), rows in groups(recalls, *SECOND):
        by_chance = rows[(rows["first_probe"] == CHANCE) & (rows["stages"] == BOTH)]
        for (first, first_hook), own in groups(rows[rows["first_probe"] != CHANCE], *FIRST):
            place = f"{first} at {first_hook}, then {second} at {hook}, {rate:.0%} false positives"
            parts[place] = own.assign(by_chance=False), by_chance.assign(by_chance=True)
    return where_tested({place: pd.concat(pair) for place, pair in parts.items()}, lambda rows: worth(*_apart(rows)))


def _apart(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    return rows[~rows["by_chance"]], rows[rows["by_chance"]]


def over_chance(own: pd.DataFrame, by_chance: pd.DataFrame) -> Estimate:
    """Recall of a cascade minus that with a first stage at chance, mean over the shares that are passed on."""
    cascade = own[own["stages"] == BOTH].set_index("share")
    chance = by_chance.set_index("share")
    shares = [share for share in cascade.index if share in chance.index]
    if not shares:
        raise NotTestedError("no cascade beside one with a first stage at chance")
    return mean([difference(estimate_of(cascade.loc[share]), estimate_of(chance.loc[share])) for share in shares])


def over_first_alone(own: pd.DataFrame, by_chance: pd.DataFrame) -> Estimate:
    """Recall of a cascade minus that of its first stage alone, mean over the shares that are passed on."""
    alone = estimate_of(own[own["stages"] == FIRST_ALONE].iloc[0])
    cascade = own[own["stages"] == BOTH]
    if cascade.empty:
        raise NotTestedError("no cascade beside its first stage alone")
    return mean([difference(estimate_of(row), alone) for _, row in cascade.iterrows()])


_claim = claims_of(table="probe_cascades", figure="cascades", unit="recall", criterion=Above(0.0), tolerance=SIGN_ALONE)
CLAIMS = (
    _claim(
        id="probes_filter_better_than_chance",
        title="An early probe is a useful first filter",
        source=f"{MONITORING}: as is usually thought; this statistic is ours",
        sentence="A cheap probe in an early layer passes on what a later stage needs to see: at one share passed on, more is "
        "caught than if inputs were passed on at random.",
        statistic="recall of two probes in a row minus that with a first stage at random, mean over the shares passed on",
        compute=lambda tables: every_cascade(tables, over_chance),
        note="Must hold for every pair of probes and every allowed rate of false positives. What is caught are false "
        "statements, a stand-in for misuse.",
    ),
    _claim(
        id="probes_help_as_second_stage",
        title="A probe is worth its place as the second stage",
        source=f"{MONITORING}; this statistic is ours",
        sentence="Probes are no mere first filter: a second, later probe on what the first one passes on catches more than the "
        "first one by itself.",
        statistic="recall of two probes in a row minus that of the first alone, mean over the shares passed on",
        compute=lambda tables: every_cascade(tables, over_first_alone),
        note="Must hold for every pair of probes and every allowed rate of false positives.",
    ),
)
