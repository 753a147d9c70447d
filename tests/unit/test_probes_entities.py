"""Entities: names, columns, published forms, ties across sets, and splits that hold them out."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actspace.errors import StudyError
from actspace.probes import datasets, entities
from actspace.probes.entities import SEPARATOR, join, key, sides

PUBLISHED = Path(os.environ.get("ACTSPACE_TEST_DATA", Path(__file__).parents[3] / "shared" / "data")) / "truth"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("São Paulo", "sao paulo"),
        ("The Hague", "Hague"),
        ("Dogs are not mammals.", "Dogs are mammals"),
        ("The sun isn't a planet.", "The sun is a planet."),
        ("Fifty-one, fifty-two", "fifty-one, fifty-two"),
    ],
)
def test_names_that_mean_one_thing_have_one_key(one, other):
    assert key(one) == key(other)


def test_names_of_different_things_keep_apart_and_none_vanishes():
    assert len({key(name) for name in ("fifty-one, sixty-two", "fifty-two, sixty-one", "not", "the", "?", "")}) == 6


@pytest.mark.parametrize(
    ("columns", "named", "found"),
    [
        ({"city": ["a", "b"], "country": ["X", "X"]}, None, ["a", "b"]),
        ({"city": ["a", "b"], "country": ["X", "X"]}, ["country"], ["X", "X"]),
        ({"city1": ["a", "b"], "country1": ["X", "Y"], "city2": ["c", "b"]}, None, [f"a{SEPARATOR}c", "b"]),
        ({"subject": [" Ann ", ""]}, None, ["Ann", ""]),
        ({"n1": ["1", "2"]}, None, None),
    ],
)
def test_entities_of_columns(columns, named, found):
    read = entities.of_columns(pd.DataFrame(columns), named)
    assert read is None if found is None else read.tolist() == found


@pytest.mark.parametrize(
    ("statements", "found"),
    [
        (["The city of Krasnodar is not in Russia.", "The city of Bo is in Peru."], ["Krasnodar", "Bo"]),
        (["Thallium has the symbol Tl.", "Barium does not have the symbol Sb."], ["Thallium", "Barium"]),
        (["The giant anteater is a fish.", "The emu is not an animal."], ["giant anteater", "emu"]),
        (["Edwin Hall lived in the U.S.", "Edwin Hall did not live in Peru."], ["Edwin Hall", "Edwin Hall"]),
        (["The Spanish word 'uno' means 'one'.", "The Spanish word 'con' does not mean 'to speak'."], ["uno", "con"]),
        (["Sixty is larger than fifty.", "Fifty is smaller than sixty."], ["fifty, Sixty", "Fifty, sixty"]),
        (["It is the case either that the city of Bo is in Peru or that it is in Mali."], ["Bo"]),
        (["It is the case either that Ann Lee lived in Peru or that he/she lived in Mali."], ["Ann Lee"]),
        (
            ["It is the case both that the salmon is a fish and that the frog is a bird."],
            [f"salmon{SEPARATOR}frog"],
        ),
        (["The city of Bo is in Peru.", "Bo is a city."], None),
    ],
)
def test_entities_of_published_forms(statements, found):
    read = entities.of_forms(pd.Series(statements))
    assert read is None if found is None else read.tolist() == found


def test_parts_of_a_compound_statement_are_entities_of_their_own():
    plain, compound = "Fish sleep.", "It is the case both that fish sleep and that ice melts."
    read = entities.of_statements(pd.Series([plain, compound]))
    first, both = join(read.tolist(), [])
    assert first in both.split(SEPARATOR)
    assert len(both.split(SEPARATOR)) == 2


def test_ties_join_entities_and_chains_of_them():
    groups = ["Bo", "bo", "Lima", f"Oslo{SEPARATOR}Rome", "Rome"]
    assert join(groups, []) == ["Bo", "Bo", "Lima", f"Oslo{SEPARATOR}Rome", "Rome"]
    assert join(groups, [("Lima", "Bo"), ("Bo", "Paris")]) == ["Bo, Lima, Paris"] * 3 + groups[3:]


rows_of_entities = st.lists(st.sets(st.sampled_from("abcdefgh"), min_size=1, max_size=3), min_size=4, max_size=40)


@given(rows_of_entities, st.floats(0.1, 0.9), st.integers(0, 100))
def test_no_entity_is_on_both_sides_of_a_split(rows, fraction, seed):
    names = set.union(*rows)
    if len(names) < 2:
        return
    train, test = sides([SEPARATOR.join(sorted(row)) for row in rows], fraction, seed)
    trained = set().union(*(row for row, side in zip(rows, train, strict=True) if side))
    tested = set().union(*(row for row, side in zip(rows, test, strict=True) if side))
    assert trained.isdisjoint(tested)
    for row, one, other in zip(rows, train, test, strict=True):
        assert one or other or (len(row) > 1)


def test_a_split_of_compound_statements_tests_those_of_held_out_entities_alone():
    groups = [f"{a}{SEPARATOR}{b}" for a in "abcdefghij" for b in "abcdefghij" if a < b]
    train, test = sides(groups, 0.3, seed=3)
    assert test.sum() == 3  # pairs out of three held out
    assert train.sum() == 21  # pairs out of seven
    again = sides(groups[::-1], 0.3, seed=3)
    np.testing.assert_array_equal(again[1][::-1], test)


def test_a_split_keeps_groups_together_and_ignores_row_order():
    groups = np.repeat([f"g{i}" for i in range(20)], 3)
    test = sides(groups, 0.3, seed=5)[1]
    assert set(groups[test]).isdisjoint(groups[~test])
    assert len(set(groups[test])) == 6
    order = np.random.default_rng(0).permutation(len(groups))
    np.testing.assert_array_equal(sides(groups[order], 0.3, seed=5)[1], test[order])
    assert (sides(groups, 0.3, seed=6)[1] != test).any()


def test_a_split_leaves_an_entity_on_each_side():
    assert sides(["a", "b"], 0.01, seed=0)[1].sum() == 1
    assert sides(["a", "b"], 0.99, seed=0)[1].sum() == 1


@pytest.mark.parametrize(
    ("groups", "fraction", "message"),
    [
        (["a", "a"], 0.5, "two entities or more, found 1"),
        (["a", "b"], 1.0, "`test_fraction` is 1.0; .* between 0 and 1"),
    ],
)
def test_a_split_names_the_mistake(groups, fraction, message):
    with pytest.raises(StudyError, match=message):
        sides(groups, fraction, seed=0)


@pytest.mark.parametrize("collection", datasets.SETS)
def test_addresses_of_published_sets_are_pinned_by_a_commit(collection):
    for name in datasets.SETS[collection]:
        place, _, pin = datasets.address(collection, name).partition(datasets.SHA256_MARK)
        owner, repository, commit, folder, file = place.removeprefix("https://raw.githubusercontent.com/").split("/")
        assert f"{owner}/{repository}" in ("saprmarks/geometry-of-truth", "sciai-lab/Truth_is_Universal")
        assert len(commit) == 40
        assert (folder, file.endswith(".csv")) == ("datasets", True)
        assert len(pin) in (0, 64)


def test_one_file_has_one_sum_in_both_collections():
    one, other = (
        datasets.address(*where)
        for where in (("geometry_of_truth", "cities_cities_conj"), ("truth_is_universal", "cities_conj"))
    )
    assert one == other
    assert one.endswith("/cities_cities_conj.csv#sha256=" + datasets.SHA256["cities_conj"])
    assert "#" not in datasets.address("geometry_of_truth", "cities_cities_disj")


@pytest.mark.skipif(not PUBLISHED.exists(), reason="the published statement sets are not there")
def test_sums_are_those_of_the_published_files():
    found = {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in PUBLISHED.glob("*.csv")}
    assert found == datasets.SHA256
