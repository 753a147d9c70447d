"""All claims in the order of the report, and the table of their verdicts."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from actspace.claims import (
    causal,
    clusters,
    concepts,
    definitions,
    dictionaries,
    directions,
    latents,
    monitoring,
    optima,
    plateaus,
    probes,
    regions,
    structure,
    switching,
    toy,
)
from actspace.claims.beyond import BEYOND
from actspace.claims.entry import Beyond, Claim, NotTestedError, Tables
from actspace.claims.intervals import judge

CLAIMS: tuple[Claim, ...] = (
    *toy.CLAIMS,
    *probes.CLAIMS,
    *monitoring.CLAIMS,
    *causal.CLAIMS,
    *concepts.CLAIMS,
    *dictionaries.CLAIMS,
    *definitions.CLAIMS,
    *clusters.CLAIMS,
    *structure.CLAIMS,
    *switching.CLAIMS,
    *plateaus.CLAIMS,
    *directions.CLAIMS,
    *latents.CLAIMS,
    *optima.CLAIMS,
    *regions.CLAIMS,
)
COLUMNS = (
    *("id", "title", "source", "sentence", "table", "statistic", "unit", "value", "low", "high"),
    *("criterion", "lowest", "highest", "tolerance", "verdict", "figure", "note"),
)
UNTESTED_COLUMNS = ("id", "title", "source", "sentence", "reason", "kind")
OTHER_SETTINGS, BEYOND_PIPELINE = "needs other settings", "beyond this pipeline"
"""Kinds of untested claims: those that another study could test, and those that none can."""


def evaluate(tables: Tables, claims: Sequence[Claim] = CLAIMS) -> pd.DataFrame:
    """Judge every claim that the tables of a study can test.

    Parameters
    ----------
    tables : mapping from table name to DataFrame
        The tables of a study; those that no claim names are not read.

    Returns
    -------
    DataFrame with the columns `COLUMNS`, one row per claim that could be tested
    """
    records = []
    for claim in claims:
        try:
            records.append(_record(claim, tables))
        except NotTestedError:
            continue
    return pd.DataFrame(records, columns=list(COLUMNS))


def untested(tables: Tables, claims: Sequence[Claim] = CLAIMS, never: Sequence[Beyond] = BEYOND) -> pd.DataFrame:
    """List the claims that `evaluate` leaves out with what was missing for each, and then those that no study can test.

    Returns
    -------
    DataFrame with the columns `UNTESTED_COLUMNS`; `kind` is `OTHER_SETTINGS` or `BEYOND_PIPELINE`
    """
    records = []
    for claim in claims:
        try:
            claim.compute(tables)
        except NotTestedError as missing:
            records.append((claim.id, claim.title, claim.source, claim.sentence, str(missing), OTHER_SETTINGS))
    records += [(c.id, c.title, c.source, c.sentence, c.reason, BEYOND_PIPELINE) for c in never]
    return pd.DataFrame(records, columns=list(UNTESTED_COLUMNS))


def _record(claim: Claim, tables: Tables) -> dict[str, str | float]:
    estimate = claim.compute(tables)
    return {
        "id": claim.id,
        "title": claim.title,
        "source": claim.source,
        "sentence": claim.sentence,
        "table": claim.table,
        "statistic": claim.statistic + (f" [{estimate.detail}]" if estimate.detail else ""),
        "unit": claim.unit,
        "value": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "criterion": claim.criterion.text,
        **dict(zip(("lowest", "highest"), claim.criterion.ends, strict=True)),
        "tolerance": claim.tolerance,
        "verdict": judge(estimate, claim.criterion),
        "figure": claim.figure,
        "note": " ".join(text for text in (claim.note, _sentence(estimate.reservation)) if text),
    }


def _sentence(reservation: str) -> str:
    return f"Not said to hold here: {reservation}." if reservation else ""
