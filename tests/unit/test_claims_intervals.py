import math

import pytest

from actspace.claims.intervals import Above, Estimate, Within, complement, difference, distance, everywhere, judge


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.6, 0.7, "holds"), (0.3, 0.5, "fails"), (0.4, 0.6, "undecided"), (0.5, 0.7, "undecided")],
)
def test_above_needs_the_whole_interval(low, high, verdict):
    assert judge(Estimate(0.5, low, high), Above(0.5)) == verdict


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-0.05, 0.05, "holds"),
        (0.06, 0.2, "fails"),
        (-0.3, -0.06, "fails"),
        (0.04, 0.06, "undecided"),
        (-1, 1, "undecided"),
    ],
)
def test_within_needs_the_whole_interval(low, high, verdict):
    assert judge(Estimate(0.0, low, high), Within(-0.05, 0.05)) == verdict


@pytest.mark.parametrize("criterion", [Above(0.0), Within(0.0, 2.0)])
def test_an_unknown_interval_decides_nothing(criterion):
    assert judge(Estimate(1.0, math.nan, math.nan), criterion) == "undecided"


def test_a_reservation_withholds_holds_but_not_fails():
    assert judge(Estimate(1, 0.9, 1.1, reservation="no null"), Above(0.5)) == "undecided"
    assert judge(Estimate(0, -0.1, 0.1, reservation="no null"), Above(0.5)) == "fails"


def test_a_difference_takes_the_widest_interval():
    found = difference(Estimate(3, 2, 5), Estimate(1, 0.5, 1.5))
    assert (found.value, found.low, found.high) == (2, 0.5, 4.5)


def test_a_complement_turns_the_interval():
    found = complement(Estimate(0.25, 0.125, 0.5))
    assert (found.value, found.low, found.high) == (0.75, 0.5, 0.875)


@pytest.mark.parametrize(
    ("interval", "expected"), [((0.75, 1.0), (0.25, 0.5)), ((0.0, 0.25), (0.25, 0.5)), ((0.25, 1.0), (0.0, 0.5))]
)
def test_distance_from_chance_reaches_zero_only_across_it(interval, expected):
    found = distance(Estimate(0.75, *interval), 0.5)
    assert (found.low, found.high) == expected


def test_everywhere_spans_all_places():
    found = everywhere({"a": Estimate(1, 0.5, 2), "b": Estimate(3, 2.5, 4)})
    assert (found.value, found.low, found.high) == (2, 0.5, 4)
    assert found.detail == "a: 1; b: 3"


def test_everywhere_is_unknown_where_one_place_is():
    assert math.isnan(everywhere({"a": Estimate(1, math.nan, 2), "b": Estimate(3, 2, 4)}).low)
