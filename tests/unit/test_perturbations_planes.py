import numpy as np
import pandas as pd
import pytest
import torch

from actspace.errors import StudyError
from actspace.perturbations.plane_statistics import CORNERS, plane_statistics, relative_slopes
from actspace.perturbations.planes import plane_axes, run_planes, window
from perturbation_models import gaussian, tiny_setting

CFG = {"experiment": "plane", "weights": "trained", "n_prompts": 2, "resolution": 9}


def plane(late, prompt=0, resolution=61):
    """Make a plane and its activations from a function of x and y; they stand at (0, 0), (4, 0) and (2, 3)."""
    corners = pd.DataFrame({"corner": CORNERS, "x": [0.0, 4, 2], "y": [0.0, 0, 3]})
    x, y = window(torch.tensor(corners[["x", "y"]].to_numpy()), resolution).numpy().T
    setting = {"experiment": "e", "site": "s", "weights": "trained", "read_hook": "r", "prompt": prompt}
    return pd.DataFrame({"x": x, "y": y, "l2_late": late(x, y)}).assign(**setting), corners.assign(**setting)


def test_axes_are_orthonormal_and_keep_distances():
    corners = gaussian(3, 16)
    axes = plane_axes(corners)
    torch.testing.assert_close(axes @ axes.T, torch.eye(2, dtype=torch.float64))
    named = (corners - corners[0]) @ axes.T
    torch.testing.assert_close(torch.cdist(named, named), torch.cdist(corners, corners))
    torch.testing.assert_close(named[1, 1].item(), 0.0, atol=1e-12, rtol=0)
    assert named[1, 0] > 0
    assert named[2, 1] > 0


def test_a_window_by_hand():
    grid = window(torch.tensor([[0.0, 0.0], [4.0, 0.0], [-2.0, 2.0]], dtype=torch.float64), 3)
    expected = [(-5, -1), (1, -1), (7, -1), (-5, 1), (1, 1), (7, 1), (-5, 3), (1, 3), (7, 3)]
    assert [tuple(point) for point in grid.tolist()] == expected


@pytest.mark.parametrize("last", [[2.0, 2.0, 2.0], [1.0, 1.0, 1.0]])
def test_three_activations_on_a_line_are_refused(last):
    corners = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], last], dtype=torch.float64)
    with pytest.raises(StudyError, match="three activations lie on a line"):
        plane_axes(corners)
    with pytest.raises(StudyError, match="three activations lie on a line"):
        plane_axes(corners[[1, 1, 0]])


def test_activations_in_the_plane_are_the_models_own():
    setting = tiny_setting("llama", prompts=3)
    engine, given = setting.engine, setting.activations
    _, corners = run_planes(setting, CFG, seed=0)
    prompts = engine.prepare(given.token_ids[:1])
    base = torch.from_numpy(given.real[:1])
    pool = torch.from_numpy(given.pool.activations)
    everywhere = engine.measure(prompts, engine.reference(prompts, base), pool[None]).kl_base_pert_nats[0].numpy()
    found = corners[corners["prompt"] == 0].set_index("corner")
    assert found.loc["base", "kl_base_pert_nats"] < 1e-6
    for other in ("first_other", "second_other"):
        nearest = np.abs(everywhere / found.loc[other, "kl_base_pert_nats"] - 1).min()
        assert nearest < 1e-3  # one of the pool
    distance = np.hypot(*found.loc["second_other", ["x", "y"]].astype(float))
    assert np.abs((pool - base).norm(dim=1).numpy() - distance).min() < 1e-9


def test_tables_of_planes():
    setting = tiny_setting("llama", prompts=3)
    planes, corners = run_planes(setting, CFG, seed=0)
    columns = ["experiment", "site", "weights", "read_hook", "prompt", "x", "y", "kl_base_pert_nats", "l2_late"]
    assert list(planes) == columns
    assert list(corners) == [*columns[:5], "corner", *columns[5:]]
    assert len(planes) == 2 * 81
    assert corners["corner"].tolist() == [*CORNERS] * 2
    alone, _ = run_planes(setting, {**CFG, "n_prompts": 1}, seed=0)
    pd.testing.assert_frame_equal(alone, planes[planes["prompt"] == 0], rtol=1e-6, atol=1e-8)


def test_an_output_that_is_linear_has_no_plateau():
    found = relative_slopes(*plane(lambda x, y: 3 * np.hypot(x, y)))
    np.testing.assert_allclose([found[name] for name in CORNERS], 1, atol=0.02)


def test_plateaus_around_activations_have_small_slopes():
    def stairs(x, y):  # flat within 1 of each activation, and far from all of them
        corners = np.array([(0, 0), (4, 0), (2, 3)])
        off = np.hypot(x[:, None] - corners[:, 0], y[:, None] - corners[:, 1]).min(1)
        return np.clip(off, 0.9, 1.8)

    found = relative_slopes(*plane(stairs))
    assert max(found.values()) < 0.3


def test_plane_statistics_are_means_over_prompts():
    parts = [plane(lambda x, y: np.hypot(x, y), 0), plane(lambda x, y: np.hypot(x, y) ** 2, 1)]
    planes, corners = (pd.concat(tables) for tables in zip(*parts, strict=True))
    table = plane_statistics(planes, corners, seed=0, n_boot=50).set_index("corner")
    single = [relative_slopes(*part)["base"] for part in parts]
    assert table.loc["base", "value"] == pytest.approx(np.mean(single))
    assert table.loc["base", "low"] == pytest.approx(min(single))
    assert set(table["n_prompts"]) == {2}
