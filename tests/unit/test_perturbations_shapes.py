import numpy as np
import pandas as pd
import pytest

from actspace.errors import StudyError
from actspace.perturbations.shapes import area, excess, flatness, max_slope, per_curve, plateau_score

S = np.linspace(0, 1, 31)
KEYS = {"experiment": "e", "site": "s", "weights": "trained", "path": "straight", "base": "real", "direction": "d"}
LINE, PARABOLA, STEP, NOTHING = 3 * S, S**2, np.where(S > 0.55, 2.0, 0.0), 0 * S


def curves(kl, l2, **columns):
    table = pd.DataFrame({"step": range(31), "kl_base_pert_nats": kl, "l2_late": l2, "relative_distance": S})
    local = {"local_sqrt_2kl": np.sqrt(2 * kl), "local_l2": l2}
    return table.assign(**{"prompt": 0, "draw": 0, **KEYS, **local, **columns})


def test_the_maximum_slope_is_that_of_the_steepest_step():
    # The last step of s^2 from 29/30 to 1 rises by 59/900; a jump rises by all within one of 30 steps.
    np.testing.assert_allclose(max_slope(np.stack([LINE, PARABOLA, STEP])), [1, 59 / 30, 30])


def test_a_plateau_lasts_up_to_a_tenth_of_the_maximum():
    # s^2 = 0.1 lies between 9/30 and 10/30, on the line from 0.09 to 1/9.
    between = (9 + (0.1 - 0.09) / (1 / 9 - 0.09)) / 30
    # The jump is between 16/30 and 17/30, a tenth of the way up.
    np.testing.assert_allclose(plateau_score(np.stack([LINE, PARABOLA, STEP])), [0.1, between, 16.1 / 30])


def test_a_plateau_ends_where_the_curve_first_leaves_it():
    bump = np.where((S > 0.2) & (S < 0.3), 1.0, 0.0) + (S > 0.8)
    assert plateau_score(bump) == pytest.approx(6.1 / 30)


def test_the_area_is_that_of_trapezia():
    np.testing.assert_allclose(area(np.stack([LINE, STEP])), [0.5, 13.5 / 30])
    assert area(PARABOLA) == pytest.approx(1 / 3, abs=1e-3)


def test_flatness_is_one_for_a_linear_effect_and_less_on_a_plateau():
    distance = 2 * S
    found = flatness(np.broadcast_to(distance, (3, 31)), np.stack([LINE, PARABOLA, np.minimum(S, 0.1)]))
    np.testing.assert_allclose(found, [1, 1 / 3, 3])


def test_the_excess_is_the_area_that_the_null_does_not_predict():
    # A null of half the slope predicts half of the area; one of the slope at the start of min(s, 0.5) too much of it.
    assert excess(LINE, LINE / 2) == 0.5
    assert excess(np.minimum(S, 0.5), S) == -0.333  # 1 - 0.5 / 0.375
    assert excess(PARABOLA, NOTHING) == 1


def test_an_excess_below_the_resolution_is_zero():
    found = excess(np.stack([LINE, LINE]), np.stack([LINE * (1 + 4e-4), LINE * (1 - 4e-4)]))
    assert (found == 0).all()
    assert not np.signbit(found).any()
    assert excess(LINE, LINE * (1 - 6e-4)) == 0.001


def test_where_nothing_changes_no_shape_is_known():
    found = (max_slope(NOTHING), plateau_score(NOTHING), area(NOTHING), flatness(S, NOTHING), excess(NOTHING, NOTHING))
    assert np.isnan(found).all()


def test_no_shape_depends_on_the_unit_of_the_effect():
    sizes = np.random.default_rng(0).random((5, 31)).cumsum(1)
    for shape in (max_slope, plateau_score, area):
        np.testing.assert_allclose(shape(sizes), shape(1e-6 * sizes))
    np.testing.assert_allclose(excess(sizes, LINE), excess(1e-6 * sizes, 1e-6 * LINE))


def test_each_curve_gets_one_row_and_kl_is_taken_by_its_root():
    one = curves(0.5 * (4 * S) ** 2, 5 * S)
    table = per_curve(pd.concat([one, one.assign(draw=1, l2_late=PARABOLA)]).sample(frac=1, random_state=0))
    np.testing.assert_allclose(table["kl_at_end"], 8)
    np.testing.assert_allclose(table["max_slope_sqrt_2kl"], 1)
    np.testing.assert_allclose(table["flatness_sqrt_2kl"], 1)
    np.testing.assert_allclose(table["flatness_l2"], [1, 1 / 3])
    np.testing.assert_allclose(table["excess_sqrt_2kl"], 0)
    assert table["threshold_nats"].isna().all()


def test_curves_without_all_their_steps_are_refused():
    with pytest.raises(StudyError, match="some curves lack steps"):
        per_curve(curves(S, S).drop(index=4))
