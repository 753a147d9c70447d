"""Claims about sensitivity optima, and about the plane through three activations.

A win-share is the fraction of comparisons in which the first direction crosses the threshold before the second; ties,
two directions that never cross among them, count half."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pandas as pd

from actspace.claims.entry import CHANCE_ALONE, SIGN_ALONE, NotTestedError, Tables, claims_of, estimate_of, rows_of
from actspace.claims.intervals import Above, Estimate, complement, everywhere
from actspace.claims.sources import PLATEAUS_1, PLATEAUS_3
from actspace.claims.sweeps import CHANCE
from actspace.perturbations.statistics import at_one_threshold

OPTIMA, PLANES = "sensitivity_optima", "three_activations"
WITH_REAL, THREE_RANDOM = "real_and_two_random", "three_random"


def _statistics(tables: Tables, **wanted: object) -> pd.DataFrame:
    return at_one_threshold(rows_of(tables, "optima_statistics", experiment=OPTIMA, **wanted))


def corner(tables: Tables, kind: str) -> Estimate:
    """Win-share of the real corner over its two nearest neighbours; the detail says that of random corners."""
    wanted = {"statistic": "corner_before_neighbours", "kind": kind}
    random = _statistics(tables, corners=THREE_RANDOM, **wanted).set_index("site")["value"]
    places = {}
    for _, row in _statistics(tables, corners=WITH_REAL, **wanted).iterrows():
        detail = f"random corners: {random[row['site']]:.2f}; {int(row['n_prompts'])} prompts"
        places[str(row["site"])] = replace(estimate_of(row), detail=detail)
    return everywhere(places)


def corner_excess(tables: Tables, kind: str) -> Estimate:
    """Win-share of the real corner minus that of random corners, paired by prompt."""
    rows = _statistics(tables, statistic="excess_over_random_corner", kind=kind)
    return everywhere({str(row["site"]): _of(row) for _, row in rows.iterrows()})


def step_first(tables: Tables, direction: str, control: str) -> Estimate:
    """Win-share of the step downhill over the direction it leaves, in the largest subspace; the detail has the control's."""
    rows = _statistics(tables, statistic="direction_before_step")
    rows = rows[rows["dimension"] == rows["dimension"].max()]
    random = rows[rows["direction"] == control].set_index("site")["value"]
    places = {}
    for _, row in rows[rows["direction"] == direction].iterrows():
        compared = f"random directions: {1 - random[row['site']]:.2f}" if row["site"] in random else "no control"
        detail = f"{int(row['dimension'])} dimensions, {int(row['n_prompts'])} prompts; {compared}"
        places[str(row["site"])] = replace(complement(estimate_of(row)), detail=detail)
    if not places:
        raise NotTestedError(f"experiment {OPTIMA} has no subspaces around {direction}")
    return everywhere(places)


def flat_around_activations(tables: Tables) -> Estimate:
    """One minus the slope around activations over the slope halfway between them, for each of the three."""
    rows = rows_of(tables, "plane_statistics", experiment=PLANES, statistic="relative_slope")
    if rows["value"].isna().any():
        raise NotTestedError("the grid of a plane is too coarse for a slope around each activation")
    return everywhere({f"{row['site']}, {row['corner']}": complement(_of(row)) for _, row in rows.iterrows()})


def _of(row: pd.Series) -> Estimate:
    return replace(estimate_of(row), detail=f"{int(row['n_prompts'])} prompts")


_claim = claims_of(
    table="optima_statistics",
    figure=f"triangles_{OPTIMA}",
    unit="share won",
    criterion=Above(CHANCE),
    tolerance=CHANCE_ALONE,
)
CLAIMS = (
    _claim(
        id="real_other_is_an_optimum",
        title="Directions towards real activations are local optima of sensitivity",
        source=PLATEAUS_3,
        sentence="Among directions between a real and two random targets, the one towards the real target changes the "
        "output earliest in its neighbourhood.",
        statistic="share of comparisons in which the real corner crosses before its two nearest neighbours, towards "
        "targets",
        compute=partial(corner, kind="toward"),
        note="Only two of hundreds of directions are tried. An interpolated target lies nearer the mean, so that the "
        "neighbours undo more of the base's own deviation: what random corners reach is the fair comparison.",
    ),
    _claim(
        id="real_mixture_is_an_optimum",
        title="Real directions are local optima under the corrected baseline",
        source=f"{PLATEAUS_3}; mixtures in place of directions towards targets are ours",
        sentence="Among mixtures of a real and two covariance-random differences, the real one changes the output "
        "earliest in its neighbourhood.",
        statistic="share of comparisons in which the real corner crosses before its two nearest neighbours, mixtures",
        compute=partial(corner, kind="mixture"),
        note="Neither direction contains the base activation.",
    ),
    _claim(
        id="real_corner_beats_random_corner",
        title="A real corner is an optimum more often than a random one",
        source=f"{PLATEAUS_3}; this comparison is ours",
        sentence="The direction towards a real target crosses before its neighbours more often than directions towards "
        "random targets do.",
        statistic="share of comparisons won by the real corner minus that won by random corners, paired by prompt",
        compute=partial(corner_excess, kind="toward"),
        criterion=Above(0.0),
        tolerance=SIGN_ALONE,
    ),
    _claim(
        id="subspaces_hold_better_directions",
        title="Random subspaces hold more sensitive directions nearby",
        source=f"{PLATEAUS_3} (as a caveat: two directions of 768 were tried); this test is ours",
        sentence="In a subspace of many random dimensions, a direction towards a real activation is no local optimum: "
        "one step downhill crosses earlier.",
        statistic="share of directions towards real activations that a step downhill beats, in the largest subspace",
        compute=partial(step_first, direction="toward_real", control="toward_covariance_random"),
        figure=f"subspaces_{OPTIMA}",
        note="The step follows the gradient of the crossing, measured with the same model and prompt; its length is "
        "fixed, so that a direction may also be an optimum at a smaller scale.",
    ),
    _claim(
        id="plateaus_in_the_plane",
        title="In the plane through three real activations, the output is flat around each",
        source=f"{PLATEAUS_1}; seen there in a picture, this statistic is ours",
        sentence="Around each of three real activations the output changes less per shift than halfway between them.",
        table="plane_statistics",
        statistic="1 minus the slope of the late L2 distance around an activation over the slope around the midpoints of "
        "its two sides",
        unit="share of slope",
        compute=flat_around_activations,
        criterion=Above(0.0),
        tolerance=SIGN_ALONE,
        figure=f"planes_{PLANES}",
        note="Measured in the context of the first prompt, in which the other two activations are out of place.",
    ),
)
