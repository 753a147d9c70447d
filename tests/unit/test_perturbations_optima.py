from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import beta

from actspace.errors import StudyError
from actspace.perturbations.bases import fit_gaussian
from actspace.perturbations.directions import Pool, draw_targets
from actspace.perturbations.engine import Engine
from actspace.perturbations.experiment import run_experiment
from actspace.perturbations.optima import barycentric, run_triangles, triangles
from actspace.perturbations.optima_statistics import optima_statistics, unanimous
from landscapes import D_MODEL, landscape, peaks
from perturbation_models import gaussian, tiny_setting

CFG = {
    "experiment": "corners",
    "weights": "trained",
    "kinds": ["toward", "mixture"],
    "n_prompts": 3,
    "draws": 2,
    "resolution": 2,
    "steps": 31,
    "thresholds_nats": [0.5],
    "length": None,
}
NO_SUBSPACES = pd.DataFrame()
PARTS = ("corner", "neighbours", "centre")


def some_targets(base):
    pool = Pool(gaussian(20, D_MODEL, seed=1).numpy(), np.arange(20) + 10)
    return draw_targets(pool, fit_gaussian(np.zeros(D_MODEL), np.eye(D_MODEL)), range(len(base)), 6, "raw", seed=0)


def statistic(table, name, **wanted):
    rows = optima_statistics(table, NO_SUBSPACES, seed=0, n_boot=200).query("statistic == @name")
    for column, value in wanted.items():
        rows = rows[rows[column] == value]
    return rows.iloc[0]


def test_barycentric_weights_by_hand():
    expected = [[1, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 1, 0], [0, 0.5, 0.5], [0, 0, 1]]
    assert barycentric(2).tolist() == expected
    assert barycentric(10).shape == (66, 3)


def test_targets_are_interpolated_before_the_base_is_taken_away():
    base = gaussian(3, D_MODEL)
    targets = some_targets(base)
    found = triangles("toward", targets, base, barycentric(2))
    real, random = targets.real[:, 0, 0], targets.covariance_random[:, :, 0]
    torch.testing.assert_close(found["real_and_two_random"][:, 0, 1], (real + random[:, 1]) / 2 - base)
    torch.testing.assert_close(found["three_random"][:, 1, 4], (random[:, 4] + random[:, 5]) / 2 - base)
    shared = [3, 4, 5]  # without weight on the first corner
    torch.testing.assert_close(*(found[name][:, :, shared] for name in ("three_random", "real_and_two_random")))


def test_mixtures_do_not_contain_the_base():
    base = gaussian(3, D_MODEL)
    targets = some_targets(base)
    here, there = (triangles("mixture", targets, x, barycentric(3)) for x in (base, -5 * base))
    for name, found in here.items():
        assert torch.equal(found, there[name])
    corner = here["real_and_two_random"][:, 0, 0]
    torch.testing.assert_close(corner, targets.real[:, 0, 0] - targets.real[:, 0, 1])


def test_a_corner_that_is_an_optimum_always_crosses_before_its_neighbours():
    table = run_triangles(landscape(peaks, 3), {**CFG, "kinds": ["toward"]}, seed=0)
    corner = table[(table["corners"] == "real_and_two_random") & (table["weight_a"] == 1)]
    np.testing.assert_allclose(corner["crossing_deg"], 30, atol=3)
    found = statistic(table, "corner_before_neighbours", corners="real_and_two_random")
    assert (found["value"], found["low"], found["high"]) == (1, pytest.approx(0.025 ** (1 / 3)), 1)
    assert found["direction"] == "toward_real"
    at = [statistic(table, f"median_crossing_at_{part}", corners="real_and_two_random")["value"] for part in PARTS]
    assert at == sorted(at)
    assert at[0] < at[1] < at[2]


def test_without_an_optimum_corners_cross_first_in_half_of_the_comparisons():
    wild = gaussian(D_MODEL - 1, seed=3)
    setting = landscape(lambda side: 60 + 20 * torch.sin(1e4 * side @ wild), 150)
    table = run_triangles(setting, {**CFG, "n_prompts": 150}, seed=0)
    for kind in CFG["kinds"]:
        found = statistic(table, "corner_before_neighbours", kind=kind, corners="real_and_two_random")
        assert abs(found["value"] - 0.5) < 0.07
        assert found["low"] < 0.5 < found["high"]
        excess = statistic(table, "excess_over_random_corner", kind=kind)
        assert excess["low"] < 0 < excess["high"]
        assert (excess["n_prompts"], excess["n_directions"]) == (150, 600)


def triangle(crossing, prompt=0, corners="three_random"):
    """Lay six crossings out on a triangle of resolution 2."""
    table = pd.DataFrame(barycentric(2).numpy(), columns=["weight_a", "weight_b", "weight_c"])
    setting = {"experiment": "e", "site": "s", "weights": "trained", "kind": "toward", "corners": corners}
    return table.assign(**setting, prompt=prompt, draw=0, threshold_nats=0.5, crossing_deg=crossing).assign(
        cosine_minus_deviation=0.25
    )


def test_statistics_by_hand():
    inf = np.inf
    # Corners 10, inf, 40; between them 10 (a, b), 20 (a, c), inf (b, c): wins 1/2 and 1, 0 and 1/2, 0 and 1.
    random = triangle([10, 10, 20, inf, inf, 40])
    real = triangle([10, 30, inf, 5, 5, 5], corners="real_and_two_random")
    table = pd.concat([random, real]).sample(frac=1, random_state=0)
    assert statistic(table, "corner_before_neighbours", corners="three_random")["value"] == 0.5
    assert statistic(table, "corner_before_neighbours", corners="real_and_two_random")["value"] == 1
    assert statistic(table, "excess_over_random_corner")["value"] == 0.5
    assert statistic(table, "median_crossing_at_corner", corners="three_random")["value"] == 40
    assert statistic(table, "median_crossing_at_neighbours", corners="real_and_two_random")["value"] == 30
    # All three points between the corners are equally near the centre.
    assert statistic(table, "median_crossing_at_centre", corners="three_random")["value"] == 20
    assert statistic(table, "mean_cosine_at_corner", corners="three_random")["value"] == 0.25


def test_each_corner_is_compared_with_its_own_neighbours():
    # From the first corner to the last; the first wins against 40 and 40, the others lose against 0.5 and 1.5.
    crossing = [30, 40, 40, 0.5, 9, 1.5, 1, 0.5, 1.5, 2]
    points = pd.DataFrame(barycentric(3).numpy(), columns=["weight_a", "weight_b", "weight_c"])
    table = points.assign(**triangle(0).drop(columns=list(points)).iloc[0].to_dict()).assign(crossing_deg=crossing)
    assert statistic(table, "corner_before_neighbours")["value"] == pytest.approx(1 / 3)
    assert statistic(table, "median_crossing_at_centre")["value"] == 9


def test_unanimous_prompts_have_exact_binomial_bounds():
    inside = {"value": 0.5, "low": 0.3, "high": 0.7}
    assert unanimous(inside, 4) == inside
    none, every = ({"value": share, "low": share, "high": share} for share in (0.0, 1.0))
    lowest = beta.ppf(0.025, 9, 1)  # Clopper and Pearson's bound for 9 of 9
    assert unanimous(every, 9) == {"value": 1, "low": pytest.approx(lowest), "high": 1}
    assert unanimous(none, 9) == {"value": 0, "low": 0, "high": pytest.approx(1 - lowest)}


def test_the_excess_is_paired_by_prompt():
    sure, never = [1, 2, 2, 1, 2, 1], [2, 1, 1, 2, 1, 2]
    parts = [
        triangle(values, prompt, corners)
        for prompt, values in enumerate((sure, never, sure, never))
        for corners in ("three_random", "real_and_two_random")
    ]
    found = statistic(pd.concat(parts), "excess_over_random_corner")
    assert (found["value"], found["low"], found["high"]) == (0, 0, 0)


@pytest.fixture(scope="module")
def llama():
    return tiny_setting("llama", prompts=3)


@pytest.mark.parametrize(
    ("kind", "corners", "family"),
    [
        ("toward", "real_and_two_random", "toward_real"),
        ("toward", "three_random", "toward_covariance_random"),
        ("mixture", "real_and_two_random", "real_mixture"),
        ("mixture", "three_random", "covariance_mixture"),
    ],
)
def test_corners_are_the_directions_of_the_other_experiments(llama, kind, corners, family):
    table = run_triangles(llama, {**CFG, "kinds": [kind], "draws": 1}, seed=4)
    cfg = {**CFG, "draws": 3, "bases": ["real"], "paths": ["sphere"], "directions": [family]}
    _, thresholds = run_experiment(llama, cfg, seed=4)
    found = table[(table["corners"] == corners) & (table["weight_a"] == 1)].sort_values("prompt")
    expected = thresholds[thresholds["draw"] == 0].sort_values("prompt")
    np.testing.assert_allclose(found["crossing_deg"], expected["crossing"], atol=0.1)
    np.testing.assert_allclose(found["cosine_minus_deviation"], expected["cosine_minus_deviation"], rtol=1e-9)


def test_the_table_has_a_row_for_every_direction_and_threshold(llama):
    table = run_triangles(llama, {**CFG, "thresholds_nats": [0.1, 0.5]}, seed=0)
    assert list(table) == [
        *("experiment", "site", "weights", "kind", "corners", "prompt", "draw", "weight_a", "weight_b", "weight_c"),
        *("threshold_nats", "crossing_deg", "cosine_minus_deviation"),
    ]
    assert len(table) == 2 * 2 * 3 * 2 * 6 * 2
    assert not table.duplicated(list(table)[:11]).any()
    wide = table.pivot(index=list(table)[3:10], columns="threshold_nats", values="crossing_deg")
    assert (wide[0.1] <= wide[0.5]).all()


def test_neither_batches_nor_further_prompts_change_the_numbers(llama):
    whole = run_triangles(llama, CFG, seed=0)
    small = Engine(llama.engine.model, llama.engine.site, llama.engine.read_hook, rows_per_launch=7)
    alone = run_triangles(replace(llama, engine=small), {**CFG, "n_prompts": 2}, seed=0)
    first = whole[whole["prompt"] < 2].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone, first, atol=0.1, rtol=0)


def test_too_few_prompts_are_refused(llama):
    with pytest.raises(StudyError, match="prompts: 9 asked for and 3 at hand"):
        run_triangles(llama, {**CFG, "n_prompts": 9}, seed=0)


def test_averages_of_targets_undo_more_of_the_bases_deviation(llama):
    table = run_triangles(llama, {**CFG, "kinds": ["toward"]}, seed=0)
    mean = table.groupby(table["weight_a"] == 1)["cosine_minus_deviation"].mean()
    assert mean[False] > mean[True] > 0
