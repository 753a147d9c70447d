"""How claims read perturbation experiments: a statistic of a family, or of one family against another, at every site.

AUROC is the probability that the first family crosses the threshold before the second, ties counting half. The excess
is the share of the area under a curve that the metric at its base does not predict: 0 for a linear model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pandas as pd

from actspace.claims.entry import NotTestedError, Tables, estimate_of, rows_of
from actspace.claims.intervals import Estimate, complement, everywhere
from actspace.perturbations.paths import PATHS
from actspace.perturbations.statistics import at_one_threshold

TOWARD_REAL, TOWARD_COVARIANCE = "real|toward_real", "real|toward_covariance_random"
REAL_MIXTURE, COVARIANCE_MIXTURE, ISOTROPIC = "real|real_mixture", "real|covariance_mixture", "real|isotropic"
RANDOM_BASE, RANDOM_BASE_MIXTURE = "covariance_random|toward_covariance_random", "covariance_random|covariance_mixture"
SPHERE, STRAIGHT = "sphere", "straight"
CHANCE, NEAR_CHANCE = 0.5, 0.1
ABOUT_EQUAL = f"{NEAR_CHANCE:g} either side of chance (0.5), ours: the source says that they differ little, or not."


def auroc(tables: Tables, experiment: str, first: str, second: str, path: str | None = None) -> Estimate:
    """Find the AUROC of one family against another, as `compared` does."""
    return compared(tables, experiment, "auroc", first, second, complement, path)


def compared(
    tables: Tables,
    experiment: str,
    statistic: str,
    first: str,
    second: str,
    turn: Callable[[Estimate], Estimate],
    path: str | None = None,
) -> Estimate:
    """Find a comparison of two families, on one path, or on the sphere where it was run and else on the first there is.

    Parameters
    ----------
    first, second : str
        Families as "base|direction".
    turn : callable
        Makes the estimate of one order of the families from that of the other, which the table may hold.
    """
    wanted = {"statistic": statistic} | ({"path": path} if path else {})
    rows = at_one_threshold(rows_of(tables, "perturbation_comparisons", experiment=experiment, **wanted))
    straight = (rows["a"] == first) & (rows["b"] == second)
    turned = (rows["a"] == second) & (rows["b"] == first)
    rows = rows[straight | turned]
    if rows.empty:
        raise NotTestedError(f"experiment {experiment} does not compare {first} with {second}")
    places = {}
    for site, found, row in _at_sites(rows):
        places[site] = found if row["a"] == first else replace(turn(found), detail=found.detail)
    return everywhere(places)


def minus(a: Estimate) -> Estimate:
    """Return an estimate with its sign changed: a difference of two families that are exchanged."""
    return Estimate(-a.value, -a.high, -a.low, a.detail)


def of_family(tables: Tables, experiment: str, statistic: str, family: str, path: str | None = None) -> Estimate:
    """Find a statistic of one family, on one path, or on the sphere where it was run."""
    base, direction = family.split("|")
    wanted = {"base": base, "direction": direction, "statistic": statistic} | ({"path": path} if path else {})
    rows = at_one_threshold(rows_of(tables, "perturbation_statistics", experiment=experiment, **wanted))
    return everywhere({site: found for site, found, _ in _at_sites(rows)})


def _at_sites(rows: pd.DataFrame) -> Iterator[tuple[str, Estimate, pd.Series]]:
    """Yield site, estimate and row at each site, on the first path that was run: the sphere, or the next one there is."""
    path = next((name for name in PATHS if (rows["path"] == name).any()), str(rows["path"].iloc[0]))
    for _, row in rows[rows["path"] == path].iterrows():
        yield str(row["site"]), replace(estimate_of(row), detail=f"{path}, {int(row['n_prompts'])} prompts"), row
