"""Claims about the causal effect of probe directions on what the model says of statements."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from actspace.claims.entry import SIGN_ALONE, Claim, NotTestedError, Tables, estimate_of, rows_of, where_tested
from actspace.claims.intervals import Above, Estimate, difference, mean
from actspace.claims.sources import GEOMETRY_OF_TRUTH
from actspace.probes.causal_statistics import ODD, PROBE, UNDEFINED
from actspace.report.summaries import groups

PLACE = ("experiment", "site", "test_set")
NORMALISED = ("nie_false_to_true", "nie_true_to_false")


def at_places(tables: Tables, statistic: Callable[[pd.DataFrame], Estimate]) -> Estimate:
    """Compute a statistic at every place and for every set that directions were added at."""
    parts = {
        " ".join(map(str, key)): rows
        for key, rows in groups(rows_of(tables, "causal_effects", direction=PROBE), *PLACE)
    }
    return where_tested(parts, statistic)


def normalised(rows: pd.DataFrame, probe: str) -> Estimate:
    """Average a probe's normalised indirect effects of both ways."""
    found = [rows_of({"rows": rows}, "rows", probe=probe, statistic=name).iloc[0] for name in NORMALISED]
    if any(row["status"] == UNDEFINED for row in found):
        raise NotTestedError(
            "the normalised indirect effect is undefined: undisturbed, the model does not tell true from false by its answers"
        )
    return mean([estimate_of(row) for row in found])


def mass_mean_minus_lr(tables: Tables) -> Estimate:
    """Normalised indirect effect of the mass-mean direction minus that of LR."""

    def statistic(rows: pd.DataFrame) -> Estimate:
        ours, theirs = (normalised(rows, probe) for probe in ("mass_mean", "logistic_regression"))
        return difference(ours, theirs, f"{ours.value:.3g} and {theirs.value:.3g}")

    return at_places(tables, statistic)


def stronger_than_random(tables: Tables) -> Estimate:
    """Share of random directions that the mass-mean direction surpasses."""

    def statistic(rows: pd.DataFrame) -> Estimate:
        wanted = {"probe": "mass_mean", "sign": ODD}
        effect, share = (
            rows_of({"rows": rows}, "rows", **wanted, statistic=name).iloc[0]
            for name in ("effect", "share_of_random_weaker")
        )
        found = estimate_of(share)
        return Estimate(found.value, found.low, found.high, f"its odd effect {effect['value']:.2g}")

    return at_places(tables, statistic)


CLAIMS = (
    Claim(
        id="mass_mean_is_more_causal",
        title="Mass-mean directions are more causal",
        source=GEOMETRY_OF_TRUTH,
        sentence="Added to or subtracted from the statement, the mass-mean direction turns more of the model's answer than "
        "that of logistic regression.",
        table="causal_effects",
        statistic="normalised indirect effect, mean of false to true and true to false, mass-mean minus logistic regression",
        unit="normalised effect",
        compute=mass_mean_minus_lr,
        criterion=Above(0.0),
        tolerance=SIGN_ALONE,
        figure="causal_effects",
        note="Published with directions added in several layers at once, each as long as the class means lie apart along it; "
        "at equal lengths (`scaling: class_distance`) logistic regression is added further. Must hold at every place "
        "and for every set that were tested.",
    ),
    Claim(
        id="truth_direction_beats_random",
        title="The truth direction moves answers more than random directions do",
        source=f"ours: a control for {GEOMETRY_OF_TRUTH}",
        sentence="The mass-mean direction moves the answer towards true when added and towards false when subtracted, "
        "further than random directions of the same norm move it either way.",
        table="causal_effects",
        statistic="share of random directions whose odd effect is smaller in size than that of mass-mean towards the truth",
        unit="share of directions",
        compute=stronger_than_random,
        criterion=Above(0.95),
        tolerance="0.05 below 1, ours: the usual level of a test.",
        figure="causal_effects",
        note="Must hold at every place and for every set that were tested.",
    ),
)
