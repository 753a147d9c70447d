import numpy as np
import pandas as pd
import pytest
import torch
from test_perturbations_optima import triangle

from actspace.errors import StudyError
from actspace.perturbations.optima_statistics import optima_statistics
from actspace.perturbations.subspaces import orthonormal_frame, run_subspaces, slope, step_downhill
from landscapes import landscape, peaks
from perturbation_models import gaussian, tiny_setting

CFG = {
    "experiment": "corners",
    "weights": "trained",
    "kinds": ["toward", "mixture"],
    "steps": 31,
    "thresholds_nats": [0.5],
    "subspaces": {"n_prompts": 3, "draws": 2, "dimensions": [1, 2, 6], "angle_deg": 20.0},
}


def shares(table, direction):
    statistics = optima_statistics(triangle([1, 2, 3, 4, 5, 6]), table, seed=0, n_boot=50)
    rows = statistics[(statistics["statistic"] == "direction_before_step") & (statistics["direction"] == direction)]
    return rows.set_index("dimension")["value"].to_dict()


def test_a_frame_is_orthonormal_and_orthogonal_to_base_and_direction():
    base, direction, drawn = gaussian(2, 1, 16), gaussian(2, 3, 16, seed=1), gaussian(2, 3, 5, 16, seed=2)
    centre, frame = orthonormal_frame(base, direction, drawn)
    unit = base / base.norm(dim=-1, keepdim=True)
    whole = torch.cat([unit[:, :, None].expand(-1, 3, 1, 16), centre[..., None, :], frame], -2)
    torch.testing.assert_close(whole @ whole.mT, torch.eye(7, dtype=torch.float64).expand(2, 3, 7, 7))
    assert ((centre * direction).sum(-1) > 0).all()


def test_smaller_frames_are_the_beginning_of_larger_ones():
    base, direction, drawn = gaussian(16), gaussian(16, seed=1), gaussian(6, 16, seed=2)
    _, large = orthonormal_frame(base, direction, drawn)
    _, small = orthonormal_frame(base, direction, drawn[:3])
    torch.testing.assert_close((large[:3] * small).sum(-1).abs(), torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("drawn", [gaussian(1, 8).repeat(2, 1), gaussian(7, 8)])
def test_axes_that_span_too_little_are_refused(drawn):
    with pytest.raises(StudyError, match="random directions span fewer dimensions; lower `dimensions`"):
        orthonormal_frame(gaussian(8, seed=1), gaussian(8, seed=2), drawn)


def test_directions_without_a_side_are_refused():
    base = gaussian(8)
    with pytest.raises(StudyError, match="zero or parallel to its base"):
        orthonormal_frame(base, -2 * base, gaussian(2, 8, seed=1))


def test_sides_that_never_cross_count_as_the_end_of_the_path():
    inf = torch.inf
    found = slope(torch.tensor([30.0, inf, 40.0, inf]), torch.tensor([20.0, 100.0, inf, inf]))
    assert found.tolist() == [10, 80, -140, 0]


def test_a_step_by_hand():
    x, y, z = torch.eye(3, dtype=torch.float64)
    frame = torch.stack([y, z])
    down = step_downhill(x, frame, torch.tensor([3.0, -4.0], dtype=torch.float64), 90.0)
    torch.testing.assert_close(down, -0.6 * y + 0.8 * z, atol=1e-12, rtol=0)
    half = step_downhill(x, frame, torch.tensor([5.0, 0.0], dtype=torch.float64), 60.0)
    torch.testing.assert_close(half, 0.5 * x - 0.75**0.5 * y)
    assert torch.equal(step_downhill(x, frame, torch.zeros(2, dtype=torch.float64), 20.0), x)


def test_an_optimum_crosses_before_every_step_and_a_slope_after():
    table = run_subspaces(landscape(peaks, 3), {**CFG, "kinds": ["toward"]}, seed=0)
    assert shares(table, "toward_real") == {1: 1, 2: 1, 6: 1}
    elsewhere = shares(table, "toward_covariance_random")
    assert elsewhere[6] == 0
    assert elsewhere[6] <= elsewhere[2] <= elsewhere[1]


def test_where_nothing_crosses_directions_tie():
    table = run_subspaces(landscape(lambda side: 1e6 + 0 * side[..., 0], 3), CFG, seed=0)
    assert np.isinf(table["crossing_after_step_deg"]).all()
    assert shares(table, "toward_real") == {1: 0.5, 2: 0.5, 6: 0.5}


def test_families_of_a_real_model():
    setting = tiny_setting("llama", prompts=3)
    table = run_subspaces(setting, CFG, seed=0)
    assert list(table) == [
        *("experiment", "site", "weights", "kind", "direction", "prompt", "draw", "dimension", "threshold_nats"),
        *("crossing_at_direction_deg", "crossing_after_step_deg"),
    ]
    assert len(table) == 4 * 3 * 2 * 3
    assert table.groupby(["direction", "prompt", "draw"])["crossing_at_direction_deg"].nunique().max() == 1
    alone = run_subspaces(setting, {**CFG, "subspaces": {**CFG["subspaces"], "n_prompts": 1}}, seed=0)
    first = table[table["prompt"] == 0].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone, first, atol=0.1, rtol=0)


def test_subspaces_that_nobody_asked_for_are_an_empty_table():
    table = run_subspaces(landscape(peaks, 3), {**CFG, "subspaces": None}, seed=0)
    assert len(table) == 0
    some = run_subspaces(landscape(peaks, 3), CFG, seed=0)
    assert pd.concat([table, some]).dtypes.to_dict() == some.dtypes.to_dict()
    assert len(optima_statistics(triangle([1, 2, 3, 4, 5, 6]), table, seed=0, n_boot=5))
