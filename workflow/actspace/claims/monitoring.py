"""Claims about two probes in a row: what a first and what a second stage are worth."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from actspace.claims.entry import SIGN_ALONE, NotTestedError, Tables, claims_of, estimate_of, rows_of
from actspace.claims.intervals import Above, Estimate, difference, mean
from actspace.claims.sources import MONITORING
from actspace.probes.summary import BOTH, CHANCE, FIRST_ALONE
from actspace.report.summaries import groups

SECOND = ("probes", "second_probe", "second_hook", "allowed_rate")
FIRST = ("first_probe", "first_hook")


def over_cascades(tables: Tables, worth: Callable[[pd.DataFrame, pd.DataFrame], Estimate]) -> Estimate:
    """Average what a stage is worth over all cascades, given the recalls of each and those with a first stage at chance."""
    found = []
    for _, rows in groups(rows_of(tables, "probe_cascades", metric="recall"), *SECOND):
        by_chance = rows[(rows["first_probe"] == CHANCE) & (rows["stages"] == BOTH)]
        found += [worth(own, by_chance) for _, own in groups(rows[rows["first_probe"] != CHANCE], *FIRST)]
    values = [estimate.value for estimate in found]
    joint = mean(found)
    return Estimate(joint.value, joint.low, joint.high, f"{len(found)} pairs: {min(values):.3g} to {max(values):.3g}")


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
        statistic="recall of two probes in a row minus that with a first stage at random",
        compute=lambda tables: over_cascades(tables, over_chance),
        note="The mean over all pairs of probes and allowed rates of false positives. What is caught are false "
        "statements, a stand-in for misuse.",
    ),
    _claim(
        id="probes_help_as_second_stage",
        title="A probe is worth its place as the second stage",
        source=f"{MONITORING}; this statistic is ours",
        sentence="Probes are no mere first filter: a second, later probe on what the first one passes on catches more than the "
        "first one by itself.",
        statistic="recall of two probes in a row minus that of the first alone",
        compute=lambda tables: over_cascades(tables, over_first_alone),
        note="The mean over all pairs of probes and allowed rates of false positives.",
    ),
)
