import xml.etree.ElementTree as ET

import numpy as np
import pytest
from matplotlib.collections import PolyCollection

from actspace import claims
from actspace.perturbations.optima_statistics import triangle_medians
from actspace.report import style
from actspace.report.figures import available_figures
from synthetic_optima import N_PROMPTS, optima_tables


@pytest.fixture(scope="module")
def tables():
    return optima_tables()


def drawn(tables, name):
    with style.theme():
        return available_figures(tables)[name].draw(tables)


def test_every_figure_is_drawn_and_says_how_many_prompts(tables):
    specs = available_figures(tables)
    assert list(specs) == [
        "triangles_sensitivity_optima",
        "subspaces_sensitivity_optima",
        "planes_three_activations",
    ]
    for name, spec in specs.items():
        svg = spec.svg(tables)
        assert ET.fromstring(svg).get("role") == "img"
        assert len(svg) < 300_000, name
        assert "6 prompts" in spec.caption(tables) or "3 prompts" in spec.caption(tables)


def test_a_search_without_subspaces_has_no_such_figure(tables):
    statistics = tables["optima_statistics"]
    without = {**tables, "optima_statistics": statistics[statistics["statistic"] != "direction_before_step"]}
    assert "subspaces_sensitivity_optima" not in available_figures(without)


def test_triangles_show_every_direction_and_cross_out_those_that_never_cross(tables):
    figure = drawn(tables, "triangles_sensitivity_optima")
    assert len(figure.axes) == 2 * 4 * 3  # each panel has a scale
    never, cells = figure.axes[3].collections  # the median, with a real corner
    assert isinstance(cells, PolyCollection)
    assert len(never.get_paths()) == 1
    assert len(cells.get_paths()) == 9
    median = (N_PROMPTS - 1) // 2
    assert cells.get_array().min() == pytest.approx(30 + median)
    top = cells.get_paths()[int(np.argmin(cells.get_array()))].vertices.mean(0)
    assert top[1] > 0.6


def test_medians_of_triangles_are_order_statistics(tables):
    found = triangle_medians(tables["triangles"]).query("corners == 'three_random' and kind == 'toward'")
    corner = found[found["weight_a"] == 1]["crossing_deg"].item()
    assert corner == 50 + (N_PROMPTS - 1) // 2
    assert np.isinf(found["crossing_deg"]).sum() == 1


def test_the_plane_marks_its_activations(tables):
    figure = drawn(tables, "planes_three_activations")
    marked = [tuple(np.ravel(line.get_xydata())) for line in figure.axes[0].get_lines()]
    assert marked == [(0, 0), (4, 0), (2, 3)]


def test_claims_about_optima_and_planes(tables):
    verdicts = claims.evaluate(tables).set_index("id")
    assert verdicts.loc["real_other_is_an_optimum", ["value", "verdict"]].tolist() == [1, "holds"]
    assert verdicts.loc["real_mixture_is_an_optimum", "verdict"] == "holds"
    # Random corners win only at the second and third corner, against neighbours towards the first.
    assert verdicts.loc["real_corner_beats_random_corner", "verdict"] == "holds"
    assert verdicts.loc["subspaces_hold_better_directions", ["value", "verdict"]].tolist() == [1, "holds"]
    assert "4 dimensions" in verdicts.loc["subspaces_hold_better_directions", "statistic"]
    assert verdicts.loc["plateaus_in_the_plane", "verdict"] == "holds"


def test_what_was_not_run_is_untested(tables):
    missing = claims.untested({"optima_statistics": tables["optima_statistics"].iloc[:0]})["id"]
    assert {"real_other_is_an_optimum", "subspaces_hold_better_directions", "plateaus_in_the_plane"} <= set(missing)
    statistics = tables["optima_statistics"]
    corners_only = {"optima_statistics": statistics[statistics["statistic"] != "direction_before_step"]}
    assert "subspaces_hold_better_directions" in set(claims.untested(corners_only)["id"])
    assert "real_other_is_an_optimum" not in set(claims.untested(corners_only)["id"])
