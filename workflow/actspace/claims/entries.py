"""All claims in the order of the report, and the table of their verdicts."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from actspace.claims import causal, clusters, concepts, dictionaries, latents, optima, perturbations, probes, regions
from actspace.claims.entry import Claim, NotTestedError, Tables
from actspace.claims.intervals import judge

CLAIMS: tuple[Claim, ...] = (
    *probes.CLAIMS,
    *causal.CLAIMS,
    *concepts.CLAIMS,
    *dictionaries.CLAIMS,
    *clusters.CLAIMS,
    *perturbations.CLAIMS,
    *latents.CLAIMS,
    *optima.CLAIMS,
    *regions.CLAIMS,
)
COLUMNS = (
    *("id", "title", "source", "sentence", "statistic", "value", "low", "high"),
    *("criterion", "verdict", "figure", "note"),
)
UNTESTED_COLUMNS = ("id", "title", "source", "sentence", "reason")


def evaluate(tables: Tables, claims: Sequence[Claim] = CLAIMS) -> pd.DataFrame:
    """Judge every claim that the tables of a study can test.

    Parameters
    ----------
    tables : mapping from table name to DataFrame
        Any of `dictionary_metrics`, `dictionary_structure`, `dictionary_matches`, `toy_truth`,
        `probe_summary`, `causal_effects`, `concept_unions`, `concept_intensity`, `perturbation_statistics`,
        `perturbation_comparisons`, `optima_statistics`, `plane_statistics`, `region_statistics` and `spike_statistics`;
        others are not read.

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


def untested(tables: Tables, claims: Sequence[Claim] = CLAIMS) -> pd.DataFrame:
    """List the claims that `evaluate` leaves out, with what was missing for each."""
    records = []
    for claim in claims:
        try:
            claim.compute(tables)
        except NotTestedError as missing:
            records.append((claim.id, claim.title, claim.source, claim.sentence, str(missing)))
    return pd.DataFrame(records, columns=list(UNTESTED_COLUMNS))


def _record(claim: Claim, tables: Tables) -> dict[str, str | float]:
    estimate = claim.compute(tables)
    return {
        "id": claim.id,
        "title": claim.title,
        "source": claim.source,
        "sentence": claim.sentence,
        "statistic": claim.statistic + (f" [{estimate.detail}]" if estimate.detail else ""),
        "value": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "criterion": claim.criterion.text,
        "verdict": judge(estimate, claim.criterion),
        "figure": claim.figure,
        "note": " ".join(text for text in (claim.note, _sentence(estimate.reservation)) if text),
    }


def _sentence(reservation: str) -> str:
    return f"Not said to hold here: {reservation}." if reservation else ""
