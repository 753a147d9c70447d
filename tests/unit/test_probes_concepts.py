"""Concepts: phrases from templates, unions as sums and intensities as lengths, on activations whose answers are known."""

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.preprocessing import OneHotEncoder

from actspace.errors import StudyError
from actspace.probes import intensity, phrases, unions
from actspace.seeds import rng_for

UNIONS = {
    "kind": "unions",
    "template": "the {texture} {colour} {furniture}",
    "parts": {"texture": ["soft", "hard"], "colour": "tableau", "furniture": ["sofa", "desk", "bed"]},
}
INTENSITY = {
    "kind": "intensity",
    "template": "it was {grade} {adjective}",
    "neutral": "it was {adjective}",
    "grades": ["slightly", "very"],
    "adjectives": ["cold", "old"],
}
HOOK, EMBEDDING = "blocks.0.hook_resid_post", "blocks.0.hook_resid_pre"


def test_every_combination_is_one_phrase():
    table = phrases.fill(UNIONS)
    assert len(table) == 2 * 10 * 3
    assert not table["phrase"].duplicated().any()
    assert table.iloc[0].to_dict() == {
        "texture": "soft",
        "colour": "blue",
        "furniture": "sofa",
        "phrase": "the soft blue sofa",
    }


def test_every_grade_stands_beside_its_neutral_phrase():
    table = phrases.fill(INTENSITY)
    assert table["phrase"].tolist()[:3] == ["it was cold", "it was slightly cold", "it was very cold"]
    assert table["grade"].tolist() == [0, 1, 2, 0, 1, 2]


# --- unions


def combinations(sizes=(6, 8, 7)):
    """All combinations of parts a, b, c, and the number of each word (part, row)."""
    numbers = np.indices(sizes).reshape(3, -1)
    return pd.DataFrame(numbers.T, columns=["a", "b", "c"]).astype(str), numbers


def effects(rng, sizes=(6, 8, 7), d_model=400, scales=(1.0, 2.0, 3.0)):
    return [scale * rng.standard_normal((size, d_model)) for size, scale in zip(sizes, scales, strict=True)]


def summed(rng):
    parts, numbers = combinations()
    return parts, 5.0 + sum(effect[place] for effect, place in zip(effects(rng), numbers, strict=True))


def value(table, model, reference="mean", hook=HOOK):
    rows = table[(table["model"] == model) & (table["reference"] == reference) & (table["hook"] == hook)]
    assert len(rows) == 1
    return rows["value"].item()


@pytest.fixture(scope="module")
def additive():
    parts, x = summed(np.random.default_rng(0))
    return parts, x, unions.evaluate({EMBEDDING: np.full_like(x, 0.3), HOOK: x}, parts, folds=5, seed=0)


def test_a_sum_of_parts_is_explained_whole(additive):
    _, _, table = additive
    for reference in ("mean", "a", "b", "c"):
        assert value(table, "sum of parts", reference) == pytest.approx(1, abs=1e-12)
    assert value(table, "parts and their pairs") == pytest.approx(1, abs=1e-12)


def test_a_part_alone_explains_its_share_of_the_variance(additive):
    """In a full design the variances of main effects add up; of p words fitted to n rows, the rest counts (1 + p / n) times."""
    parts, x, table = additive
    total = ((x - x.mean(axis=0)) ** 2).sum()
    n_train = 6 * 8 * 7 * 4 / 5
    for part in parts:
        between = x - pd.DataFrame(x).groupby(parts[part].to_numpy()).transform("mean").to_numpy()
        left = (between**2).sum() / total * (1 + parts[part].nunique() / n_train)
        assert value(table, f"{part} alone") == pytest.approx(1 - left, abs=0.02)  # folds are not balanced


def test_the_sum_is_that_of_scikit_learns_regression_on_indicators():
    rng = np.random.default_rng(5)
    parts, x = summed(rng)
    x = x[:, :20] + rng.standard_normal((len(x), 20))
    table = unions.evaluate({HOOK: x}, parts, folds=4, seed=3)
    indicators = OneHotEncoder(sparse_output=False).fit_transform(parts)
    found, plain = np.empty_like(x), np.empty_like(x)
    for fold in np.array_split(rng_for(3, "folds").permutation(len(x)), 4):
        train = np.setdiff1d(np.arange(len(x)), fold)
        found[fold] = LinearRegression().fit(indicators[train], x[train]).predict(indicators[fold])
        plain[fold] = x[train].mean(axis=0)
    expected = 1 - ((x - found) ** 2).sum() / ((x - plain) ** 2).sum()
    assert value(table, "sum of parts") == pytest.approx(expected, abs=1e-12)


def test_shuffled_parts_explain_nothing(additive):
    """Effects of p words fitted to n rows of noise cost p / n of the variance."""
    _, _, table = additive
    n_train = 6 * 8 * 7 * 4 / 5
    assert value(table, "shuffled parts") == pytest.approx(-(5 + 7 + 6) / n_train, abs=0.03)
    assert value(table, "shuffled parts", "c") == pytest.approx(-(5 + 7) / n_train, abs=0.03)


def test_a_reference_that_leaves_nothing_is_no_reference(additive):
    _, _, table = additive
    assert np.isnan(table[table["hook"] == EMBEDDING]["value"]).all()


def test_independent_interactions_leave_what_they_are_and_the_noise_they_make():
    """With variance v of interactions per row and main effects, the sum leaves v (1 + p / n) of the total."""
    rng = np.random.default_rng(1)
    parts, x = summed(rng)
    noise = 2.0 * rng.standard_normal(x.shape)
    table = unions.evaluate({HOOK: x + noise}, parts, folds=5, seed=0)
    n_train, p = 6 * 8 * 7 * 4 / 5, 1 + 5 + 7 + 6
    v, total = (noise**2).mean(), ((x + noise - (x + noise).mean(axis=0)) ** 2).mean()
    assert value(table, "sum of parts") == pytest.approx(1 - v * (1 + p / n_train) / total, abs=0.003)


def test_interactions_of_two_parts_are_found_by_pairs_and_not_by_the_sum():
    rng = np.random.default_rng(2)
    parts, x = summed(rng)
    a, b, _ = combinations()[1]
    pair = 2.0 * rng.standard_normal((6, 8, x.shape[1]))
    # Less its own main effects: the rest is orthogonal to all sums.
    pair = pair - pair.mean(axis=0) - pair.mean(axis=1, keepdims=True) + pair.mean(axis=(0, 1))
    both = x + pair[a, b]
    table = unions.evaluate({HOOK: both}, parts, folds=5, seed=0)
    share = (pair[a, b] ** 2).sum() / ((both - both.mean(axis=0)) ** 2).sum()
    assert value(table, "parts and their pairs") == pytest.approx(1, abs=1e-12)
    n_train, p = 6 * 8 * 7 * 4 / 5, 1 + 5 + 7 + 6
    assert value(table, "sum of parts") == pytest.approx(1 - share * (1 + p / n_train), abs=0.012)


def test_an_interval_holds_its_value_and_narrows_with_fewer_surprises():
    rng = np.random.default_rng(3)
    parts, x = summed(rng)
    table = unions.evaluate({HOOK: x + rng.standard_normal(x.shape)}, parts, folds=5, seed=0)
    assert ((table["low"] <= table["value"]) & (table["value"] <= table["high"])).all()
    assert (table["high"] - table["low"] < 0.1).all()


def test_a_word_in_one_combination_alone_is_refused():
    parts = pd.DataFrame({"a": ["x", "y", "y", "y"], "b": ["1", "1", "2", "3"]})
    with pytest.raises(StudyError, match=r"the . '.' is in no training combination of a fold; give more words"):
        unions.evaluate({HOOK: np.zeros((4, 2))}, parts, folds=2, seed=0)


# --- intensity

N, LENGTHS = 20, np.array([0.5, 1.0, 2.0, 4.0])


def graded(effect, rng):
    """Activations of neutral phrases, and of graded ones: with `effect` (grade, d_model), or one per adjective."""
    neutral = 10 * rng.standard_normal((N, 1, effect.shape[-1]))
    x = np.concatenate([neutral, neutral + effect], axis=1).reshape(N * 5, -1)
    table = pd.DataFrame({"adjective": np.repeat([f"w{i}" for i in range(N)], 5), "grade": np.tile(np.arange(5), N)})
    return intensity.evaluate({HOOK: x}, table, folds=5, seed=0)


def metric(table, name, grade=0, grades=intensity.REAL):
    rows = table[(table["metric"] == name) & (table["grade"] == grade) & (table["grades"] == grades)]
    assert len(rows) == 1
    return rows["value"].item()


@pytest.fixture(scope="module")
def one_direction():
    rng = np.random.default_rng(0)
    direction = rng.standard_normal(30)
    strength = rng.uniform(0.5, 2, size=(N, 1, 1))  # adjectives differ in how far a grade goes
    return graded(strength * LENGTHS[:, None] * direction, rng)


def test_one_direction_of_growing_length(one_direction):
    for name in (
        "along_one_direction",
        "along_own_directions",
        "monotonicity",
        "cosine_same_grade",
        "cosine_other_grades",
    ):
        assert metric(one_direction, name) == pytest.approx(1, abs=1e-9)
    assert metric(one_direction, "cosine_gap") == pytest.approx(0, abs=1e-9)
    projections = np.array([metric(one_direction, "projection", grade) for grade in (1, 2, 3, 4)])
    np.testing.assert_allclose(projections / projections[0], LENGTHS / LENGTHS[0])


def test_shuffled_grades_have_no_order(one_direction):
    assert (
        abs(metric(one_direction, "monotonicity", grades=intensity.SHUFFLED)) < 0.35
    )  # 20 adjectives: 0.58 / sqrt(20)
    shared = [
        metric(one_direction, "along_one_direction", grades=grades) for grades in (intensity.REAL, intensity.SHUFFLED)
    ]
    assert shared[0] == pytest.approx(shared[1])


def test_directions_that_turn_with_the_grade():
    """In a plane, at angles t and equal lengths, one direction holds (G + |sum of exp(2 i t)|) / 2 G of the squares."""
    angles = np.deg2rad([0, 25, 50, 75])
    found = graded(np.stack([np.cos(angles), np.sin(angles), 0 * angles], axis=1), np.random.default_rng(1))
    expected = (4 + abs(np.exp(2j * angles).sum())) / 8
    assert metric(found, "along_one_direction") == pytest.approx(expected, abs=1e-9)
    assert metric(found, "along_own_directions") == pytest.approx(1, abs=1e-9)
    other = np.mean([np.cos(a - b) for a in angles for b in angles if a != b])
    assert metric(found, "cosine_other_grades") == pytest.approx(other, abs=1e-9)
    assert metric(found, "cosine_gap") == pytest.approx(1 - other, abs=1e-9)


def test_shuffled_grades_have_no_directions_of_their_own():
    found = graded(2 * np.eye(4, 12), np.random.default_rng(2))
    assert metric(found, "cosine_gap") == pytest.approx(1, abs=1e-9)
    assert metric(found, "cosine_other_grades") == pytest.approx(0, abs=1e-9)
    assert abs(metric(found, "cosine_gap", grades=intensity.SHUFFLED)) < 0.05


def test_lengths_that_fall_with_the_grade_are_in_the_opposite_order():
    """No sign is chosen by the order, so that a wrong order shows."""
    found = graded(LENGTHS[::-1, None] * np.eye(1, 8), np.random.default_rng(5))
    assert metric(found, "monotonicity") == pytest.approx(-1, abs=1e-9)
    assert metric(found, "projection", 4) > 0


def test_effects_of_nothing_but_noise_share_no_direction():
    rng = np.random.default_rng(3)
    found = graded(rng.standard_normal((N, 4, 200)), rng)
    # An adjective's own neutral phrase is in all its effects, and in those of no other one.
    assert metric(found, "along_one_direction") < 0.03
    assert abs(metric(found, "cosine_same_grade")) < 0.05
    assert abs(metric(found, "monotonicity")) < 0.35


def test_grades_that_do_nothing_are_not_measured():
    found = graded(np.zeros((4, 6)), np.random.default_rng(4))
    assert found["value"].isna().all()


def test_too_few_adjectives_for_the_folds_are_refused():
    table = pd.DataFrame({"adjective": ["a", "a", "b", "b"], "grade": [0, 1, 0, 1]})
    with pytest.raises(StudyError, match="5 folds of 2 adjectives"):
        intensity.evaluate({HOOK: np.zeros((4, 2))}, table, folds=5, seed=0)


def test_the_strongest_part_is_the_one_that_explains_most_alone(additive):
    assert unions.strongest_part(additive[2][additive[2]["hook"] == HOOK]) == "c"
