import numpy as np
import pandas as pd
import pytest
import torch

from actspace.errors import StudyError
from actspace.perturbations.bases import fit_gaussian
from actspace.perturbations.directions import Pool, draw_targets
from actspace.perturbations.engine import Engine
from actspace.perturbations.experiment import Activations, run_experiment
from actspace.perturbations.optima import barycentric, run_triangles, triangles
from actspace.perturbations.optima_statistics import optima_statistics
from actspace.perturbations.paths import orthogonal
from landscapes import D_MODEL, Landscape, activations, axis
from perturbation_models import D_MODEL as MODEL_WIDTH
from perturbation_models import N_LAYERS, gaussian, tiny_model, token_ids

CFG = {
    "experiment": "corners",
    "weights": "trained",
    "kinds": ["toward", "mixture"],
    "n_prompts": 3,
    "draws": 2,
    "resolution": 2,
    "steps": 31,
    "thresholds_nats": [0.5],
}
TARGET = np.r_[0.3, 2.0, np.zeros(D_MODEL - 2)]
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
    engine = Landscape(lambda side: 90 - 60 * side @ axis(0))
    table = run_triangles(engine, {**CFG, "kinds": ["toward"]}, activations(3, TARGET), seed=0)
    corner = table[(table["corners"] == "real_and_two_random") & (table["weight_a"] == 1)]
    np.testing.assert_allclose(corner["crossing_deg"], 30, atol=0.1)
    found = statistic(table, "corner_before_neighbours", corners="real_and_two_random")
    assert (found["value"], found["low"], found["high"]) == (1, 1, 1)
    assert found["direction"] == "toward_real"
    at = [statistic(table, f"median_crossing_at_{part}", corners="real_and_two_random")["value"] for part in PARTS]
    assert at == sorted(at)
    assert at[0] < at[1] < at[2]


def test_without_an_optimum_corners_cross_first_in_half_of_the_comparisons():
    wild = gaussian(D_MODEL - 1, seed=3)
    engine = Landscape(lambda side: 60 + 20 * torch.sin(1e4 * side @ wild))
    table = run_triangles(engine, {**CFG, "n_prompts": 150}, activations(150), seed=0)
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


def test_the_excess_is_paired_by_prompt():
    sure, never = [1, 2, 2, 1, 2, 1], [2, 1, 1, 2, 1, 2]
    parts = [
        triangle(values, prompt, corners)
        for prompt, values in enumerate((sure, never, sure, never))
        for corners in ("three_random", "real_and_two_random")
    ]
    found = statistic(pd.concat(parts), "excess_over_random_corner")
    assert (found["value"], found["low"], found["high"]) == (0, 0, 0)


def real_activations(prompts=3):
    rng = np.random.default_rng(0)
    pool = rng.standard_normal((30, MODEL_WIDTH)) + 0.5
    return Activations(
        token_ids=token_ids(prompts, 5),
        documents=np.arange(prompts),
        real=rng.standard_normal((prompts, MODEL_WIDTH)) + 0.5,
        pool=pool,
        pool_documents=np.arange(30) // 3 + 2,
        mean=pool.mean(0),
        covariance=np.cov(pool.T),
    )


@pytest.fixture(scope="module")
def llama():
    return Engine(tiny_model("llama"), "blocks.1.hook_resid_pre", f"blocks.{N_LAYERS - 1}.hook_resid_post")


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
    table = run_triangles(llama, {**CFG, "kinds": [kind], "draws": 1}, real_activations(), seed=4)
    cfg = {**CFG, "draws": 3, "bases": ["real"], "paths": ["sphere"], "directions": [family]}
    _, thresholds = run_experiment(llama, cfg, real_activations(), seed=4)
    found = table[(table["corners"] == corners) & (table["weight_a"] == 1)].sort_values("prompt")
    expected = thresholds[thresholds["draw"] == 0].sort_values("prompt")
    np.testing.assert_allclose(found["crossing_deg"], expected["crossing"], atol=0.1)
    np.testing.assert_allclose(found["cosine_minus_deviation"], expected["cosine_minus_deviation"], rtol=1e-9)


def test_the_table_has_a_row_for_every_direction_and_threshold(llama):
    table = run_triangles(llama, {**CFG, "thresholds_nats": [0.1, 0.5]}, real_activations(), seed=0)
    assert list(table) == [
        *("experiment", "site", "weights", "kind", "corners", "prompt", "draw", "weight_a", "weight_b", "weight_c"),
        *("threshold_nats", "crossing_deg", "cosine_minus_deviation"),
    ]
    assert len(table) == 2 * 2 * 3 * 2 * 6 * 2
    assert not table.duplicated(list(table)[:11]).any()
    wide = table.pivot(index=list(table)[3:10], columns="threshold_nats", values="crossing_deg")
    assert (wide[0.1] <= wide[0.5]).all()


def test_neither_batches_nor_further_prompts_change_the_numbers(llama):
    whole = run_triangles(llama, CFG, real_activations(), seed=0)
    small = Engine(llama.model, llama.site, llama.read_hook, rows_per_launch=7)
    alone = run_triangles(small, {**CFG, "n_prompts": 2}, real_activations(), seed=0)
    first = whole[whole["prompt"] < 2].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone, first, atol=0.1, rtol=0)


def test_too_few_prompts_are_refused(llama):
    with pytest.raises(StudyError, match="prompts: 9 asked for and 3 at hand"):
        run_triangles(llama, {**CFG, "n_prompts": 9}, real_activations(), seed=0)


def test_cosines_are_of_the_part_that_the_sphere_uses(llama):
    given = real_activations()
    table = run_triangles(llama, {**CFG, "kinds": ["toward"]}, given, seed=0)
    base, mean = torch.from_numpy(given.real), torch.from_numpy(given.mean)
    undoing = orthogonal(base, mean[None] - base)
    assert (undoing.norm(dim=-1) > 0).all()
    assert table["cosine_minus_deviation"].between(-1, 1).all()
    by_centre = table.groupby(table["weight_a"] == 1)["cosine_minus_deviation"].mean()
    assert by_centre[False] > by_centre[True]  # averages of targets lie nearer the mean
