"""Answers to two questions of ours about concepts: whether unions are sums, and whether intensity is length."""

from __future__ import annotations

import pandas as pd

from actspace.claims.entry import Claim, NotTestedError, Tables, estimate_of, rows_of, where_tested
from actspace.claims.intervals import Above, Estimate, Within
from actspace.claims.sources import IDEAS
from actspace.probes.unions import SUM, strongest_part

QUESTION = f"{IDEAS} (short: testing the linear representation hypothesis); a question, this test is ours"
TOLERANCE = 0.05


def trained(tables: Tables, name: str) -> pd.DataFrame:
    """Return the rows after a block of the trained model; in the embedding a last token knows of no other."""
    rows = rows_of(tables, name, weights="trained")
    rows = rows[rows["layer"] > 0]
    if rows.empty:
        raise NotTestedError(f"no rows in {name} after layer 0")
    return rows


def of_every_hook(rows: pd.DataFrame) -> Estimate:
    """Join the estimates of all captures and hooks: the mean, with an interval that spans all of them."""
    places = {f"{capture}, {hook}": part for (capture, hook), part in rows.groupby(["capture", "hook"], sort=False)}
    return where_tested(places, lambda part: estimate_of(part.iloc[0]))


def sums_of_parts(tables: Tables) -> Estimate:
    """What the sum of parts explains of what the strongest part alone leaves."""
    parts = [
        rows[(rows["model"] == SUM) & (rows["reference"] == strongest_part(rows))]
        for _, rows in trained(tables, "concept_unions").groupby("capture", sort=False)
    ]
    return of_every_hook(pd.concat(parts))


def gap_of_grades(tables: Tables) -> Estimate:
    """How much nearer an effect is to the mean effect of its own grade than to those of others."""
    rows = trained(tables, "concept_intensity")
    return of_every_hook(rows_of({"rows": rows}, "rows", metric="cosine_gap", grades="in order"))


CLAIMS = (
    Claim(
        id="unions_are_sums",
        title="Unions of concepts are sums",
        source=QUESTION,
        sentence="The activation of a combination of concepts is mostly the sum of its parts' effects.",
        table="concept_unions",
        statistic="of what the part that explains most leaves of held-out combinations, the share that the sum of parts explains",
        unit="share of variance",
        compute=sums_of_parts,
        criterion=Above(0.5),
        tolerance="The limit of one half is ours: the post gives no number.",
        figure="concept_unions",
        note="The post asks this and expects a yes. The strongest part "
        "stands aside, for at the last token that is the noun itself. The interval spans all layers after the embedding.",
    ),
    Claim(
        id="intensity_is_length",
        title="Intensity is length",
        source=QUESTION,
        sentence="Grades of a concept go different lengths in one direction, and not in directions of their own.",
        table="concept_intensity",
        statistic="cosine of a grade's effect on a held-out adjective with the mean effect of that grade, minus with those of the others",
        unit="cosine",
        compute=gap_of_grades,
        criterion=Within(-TOLERANCE, TOLERANCE),
        tolerance=f"{TOLERANCE:g} either side of 0, ours: the post gives no number.",
        figure="concept_intensity",
        note="The post asks this and expects a yes. The word for a grade is itself "
        "something the model reads, so a gap may tell words apart and not intensities. The interval spans all layers.",
    ),
)
