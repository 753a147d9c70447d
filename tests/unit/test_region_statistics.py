import numpy as np
import pandas as pd
import pytest

from actspace.errors import StudyError
from actspace.perturbations.region_statistics import (
    anywhere,
    region_statistics,
    shifted,
    slope_at,
    slope_of_other_paths,
)

SLOPE = np.array([[[0.0, 3.0, 0.0]], [[1.0, 0.0, 2.0]]])
CHANGED = np.array([[[0.0, 1.0, 0.0]], [[1.0, 0.0, 1.0]]])


def paths(slope, changes, prompts=4, pairs=2, cells=None):
    """Make a table of paths that are all alike."""
    steps = len(slope) + 1
    flags = np.isin(np.arange(steps), changes)
    one = pd.DataFrame({"step": range(steps), "slope": [np.nan, *slope], "speed": [np.nan, *np.abs(slope)]})
    one = one.assign(region=np.cumsum(flags), changed=flags)
    one["cell_changed"] = pd.array([pd.NA] * steps if cells is None else np.isin(np.arange(steps), cells), "boolean")
    index = pd.MultiIndex.from_product([range(prompts), range(pairs)], names=["prompt", "other"]).to_frame(index=False)
    return index.merge(one, how="cross").assign(experiment="e", site="s", weights="trained")


def values(table):
    return region_statistics(table, seed=0, n_boot=200).set_index("statistic")["value"]


def test_slope_at_changes_is_a_mean_over_changes():
    counts = np.array([[1.0, 1.0], [2.0, 0.0], [0.0, 1.0]])
    assert slope_at(SLOPE, CHANGED, counts) == pytest.approx([(3 + 1 + 2) / 3, 3, 1.5])


def test_without_changes_the_slope_there_is_unknown():
    assert np.isnan(slope_at(SLOPE, 0 * CHANGED, np.ones((1, 2)))).all()


def test_shifts_are_those_of_rolling_each_path():
    rolled = [
        (np.roll(CHANGED[0], s) * SLOPE[0]).sum() + (np.roll(CHANGED[1], t) * SLOPE[1]).sum()
        for s in range(3)
        for t in range(3)
    ]
    found = shifted(SLOPE, CHANGED, np.random.default_rng(0), n=500)
    assert sorted({round(x, 9) for x in found}) == sorted({round(x / 3, 9) for x in rolled})
    assert found.mean() == pytest.approx(1, abs=0.05)


def test_other_paths_have_their_own_slopes_at_the_same_steps():
    counts = np.array([[1.0, 1.0], [2.0, 0.0]])
    # mean slopes 0.5, 1.5 and 1; one change at each step. Of the first prompt alone: 3 at its change.
    assert slope_of_other_paths(SLOPE, CHANGED, counts) == pytest.approx([1, 3])


def test_boundaries_anywhere_go_where_the_output_goes():
    speed = np.array([[[1.0, 3.0, 0.0]]])
    assert anywhere(speed, np.array([[[0.0, 1.0, 1.0]]])).tolist() == [[[0.5, 1.5, 0.0]]]


def test_changes_on_the_steep_part_stand_out_against_both_nulls():
    found = values(paths([0.0, 0.5, 3.0, 0.5, 1.0], changes=[3]))
    assert found["slope_at_region_changes"] == 3
    assert found["slope_at_region_changes_shifted"] == pytest.approx(1, abs=0.05)
    assert found["slope_at_boundaries_anywhere"] == pytest.approx((0.25 + 9 + 0.25 + 1) / 5)
    assert found["excess_at_region_changes"] == pytest.approx(3 - 2.1)
    assert found["max_slope"] == 3


def test_regions_and_changes_are_counted():
    found = values(paths([1.0, 1.0, 1.0, 1.0], changes=[2, 4]))
    assert found[["regions_per_path", "region_changes_per_path"]].to_list() == [3, 2]
    assert "slope_at_cell_changes" not in found


def test_cells_have_their_own_changes_and_null():
    found = values(paths([0.0, 2.0, 1.0], changes=[2], cells=[1, 3]))
    assert found["slope_at_cell_changes"] == 0.5
    assert found["cell_changes_per_path"] == 2
    assert found["slope_at_cell_changes_shifted"] == pytest.approx(1, abs=0.1)


def test_intervals_resample_prompts():
    table = paths([0.0, 3.0, 0.0], changes=[2], prompts=6)
    odd = table["prompt"] % 2 == 1
    table.loc[odd, "slope"] = table.loc[odd, "step"].map({1: 1.0, 2: 1.0, 3: 1.0})
    found = region_statistics(table, seed=0).set_index("statistic").loc["slope_at_region_changes"]
    assert (found["value"], found["n_prompts"], found["n_pairs"]) == (2, 6, 12)
    # six prompts, half of them 3 and half 1: the mean has a standard error of 0.41
    assert found["high"] - found["low"] == pytest.approx(4 * 0.41, abs=0.4)


def test_paths_that_lack_steps_are_refused():
    with pytest.raises(StudyError, match="some paths lack steps"):
        region_statistics(paths([1.0, 1.0], changes=[1]).iloc[1:], seed=0)
