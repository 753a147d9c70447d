"""Cascades of probes: thresholds by hand, the rate that is promised, recall in closed form, and what a split may see."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from actspace.errors import StudyError
from actspace.probes import cascades, evaluation
from actspace.probes.linear import LinearProbe

EARLY, LATE = "blocks.2.hook_resid_post", "blocks.9.hook_resid_post"
HOOKS = ["blocks.0.hook_resid_pre", EARLY, LATE]
MONITORING = {
    "first": [{"probe": "mass_mean", "hook": EARLY}],
    "second": [{"probe": "logistic_regression", "hook": LATE}],
    "label": 1,
    "false_positive_rates": [0.05],
    "shares": [0.2, 0.5],
}
CFG = {"hooks": HOOKS, "splits": 3, "test_fraction": 0.5, "seed": 0, "monitoring": MONITORING}
# Scores of wanted inputs are N(d, 1), of others N(0, 1), independent between the stages given the label.
SHIFT = {EARLY: 1.0, LATE: 2.5}


def statements(n=8000):
    labels = np.arange(n) % 2
    return pd.DataFrame({"label": labels, "group": [f"e{i // 4}" for i in range(n)]})


def scored(table, seed=0):
    """Activations (row, 1) that are the scores themselves, and probes that read them off."""
    rng = np.random.default_rng(seed)
    labels = table["label"].to_numpy()
    x = {hook: (rng.standard_normal(len(table)) + d * labels)[:, None] for hook, d in SHIFT.items()}
    kinds = {EARLY: "mass_mean", LATE: "logistic_regression"}
    probes = {f"{h}/all/{kinds[h]}/{i}": LinearProbe(np.ones(1), 0.0, kinds[h]) for h in SHIFT for i in range(3)}
    return x, probes


@pytest.fixture(scope="module")
def found():
    table = statements()
    return cascades.evaluate(*(parts := scored(table))[:1], table, parts[1], CFG)


def read(table, metric, **where):
    rows = table[table["metric"] == metric]
    for column, value in where.items():
        rows = rows[rows[column] == value]
    assert len(rows) == 1
    return rows["value"].item()


def expected_recall(share, rate):
    """Recall of two independent normal scores: the first threshold by the mixture, the second by what false positives remain."""
    grid = np.linspace(-6, 8, 200_001)
    passed = (norm.sf(grid) + norm.sf(grid - SHIFT[EARLY])) / 2
    first = np.interp(share, passed[::-1], grid[::-1])
    second = norm.isf(min(rate / norm.sf(first), 1.0))
    return norm.sf(first - SHIFT[EARLY]) * norm.sf(second - SHIFT[LATE])


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_recall_is_that_of_the_closed_form(found, share):
    got = read(found, "recall", first_probe="mass_mean", stages=cascades.BOTH, share=share)
    assert got == pytest.approx(expected_recall(share, 0.05), abs=0.025)


def test_each_stage_alone_has_the_recall_of_its_own_scores(found):
    for stages, hook in ((cascades.FIRST_ALONE, EARLY), (cascades.SECOND_ALONE, LATE)):
        got = read(found, "recall", first_probe="mass_mean", stages=stages)
        assert got == pytest.approx(norm.sf(norm.isf(0.05) - SHIFT[hook]), abs=0.025)


def test_a_random_first_stage_passes_on_its_share_of_what_is_wanted(found):
    got = read(found, "recall", first_probe=cascades.CHANCE, stages=cascades.BOTH, share=0.2)
    assert got == pytest.approx(0.2 * norm.sf(norm.isf(0.05 / 0.2) - SHIFT[LATE]), abs=0.02)


def test_the_rate_and_the_share_that_were_asked_for_are_met(found):
    rates = found[found["metric"] == "false_positive_rate"]
    assert rates["value"].between(0.04, 0.06).all()
    shares = found[(found["metric"] == "share_passed_on")]
    np.testing.assert_allclose(shares["value"], shares["share"], atol=0.01)


def test_cost_is_counted_in_blocks_of_the_model(found):
    where = {"first_probe": "mass_mean", "metric": "blocks_run"}
    rows = found[np.logical_and.reduce([found[k] == v for k, v in where.items()])].set_index("share")["value"]
    assert rows[[0.0, 1.0]].tolist() == [3, 10]  # what blocks 2 and 9 write
    assert rows[0.2] == pytest.approx(3 + 0.2 * 7, abs=0.08)


def test_the_other_label_turns_all_scores_round():
    table = statements(800)
    x, probes = scored(table)
    other = {**CFG, "monitoring": {**MONITORING, "label": 0}}
    turned = {key: LinearProbe(-p.direction, -p.bias, p.name) for key, p in probes.items()}
    same = cascades.evaluate(x, table.assign(label=1 - table["label"]), turned, other)
    pd.testing.assert_frame_equal(cascades.evaluate(x, table, probes, CFG), same)


def test_thresholds_by_hand():
    scores = np.array([5.0, 1.0, 4.0, 2.0, 3.0])
    assert cascades.first_threshold(scores, 0.4) == 4.0  # 5 and 4 pass
    assert cascades.first_threshold(scores, 0.05) == np.inf
    assert cascades.first_threshold(scores, 1) == -np.inf
    unwanted = np.arange(1.0, 20.0)  # 19 of them: one in twenty new ones exceeds the highest
    assert cascades.second_threshold(unwanted, 0.05) == 19.0
    assert cascades.second_threshold(unwanted, 0.1) == 18.0


def test_few_unwanted_statements_keep_their_promise():
    """Of 19 unwanted others and one new one, all alike, the new one exceeds the highest in one case of twenty, not in one of ten."""
    rng = np.random.default_rng(1)
    drawn = rng.standard_normal((20_000, 20))
    exceeded = [row[19] > cascades.second_threshold(row[:19], 0.05) for row in drawn]
    assert np.mean(exceeded) == pytest.approx(0.05, abs=0.005)


def test_too_few_unwanted_statements_are_one_clear_line():
    table = statements(40)
    with pytest.raises(StudyError, match=r"a false-positive rate of 0\.05 needs 19 unwanted statements .*, found"):
        cascades.evaluate(*(parts := scored(table))[:1], table, parts[1], CFG)


def test_no_entity_sets_thresholds_for_its_own_statements():
    table = statements(400)
    groups, wanted = table["group"].to_numpy(), table["label"].to_numpy() == 1
    test = evaluation.splits_of(groups, 1, 0.5, 0)[0][1]
    held = cascades._held(test, wanted, groups, seed=3)
    assert np.sum([judged for _, judged in held.folds], axis=0).tolist() == [1] * int(test.sum())
    for beside, judged in held.folds:
        assert not set(groups[test][judged]) & set(groups[test][beside])


def test_no_entity_of_a_compound_statement_sets_thresholds_for_another_of_its_statements():
    groups = np.array([f"e{i} | e{i // 3}" if i % 4 == 0 else f"e{i}" for i in range(200)])
    held = cascades._held(np.ones(200, dtype=bool), np.arange(200) % 2 == 1, groups, seed=3)
    for beside, judged in held.folds:
        assert not names(groups[judged]) & names(groups[beside])
    single = np.array([len(group.split(" | ")) == 1 for group in groups])
    assert held.judged[single].all()
    assert 0 < held.judged[~single].sum() < (~single).sum()


def names(groups):
    return {name for group in groups for name in group.split(" | ")}


def test_thresholds_do_not_depend_on_the_statements_they_judge():
    rng = np.random.default_rng(2)
    first, second = rng.standard_normal((2, 400))
    wanted, judged = rng.random(400) < 0.5, np.arange(400) < 40
    once, passed = cascades.flagged(first, second, wanted, (~judged, judged), 0.5, 0.05)
    alone, _ = cascades.flagged(first, second, np.where(judged, ~wanted, wanted), (~judged, judged), 0.5, 0.05)
    np.testing.assert_array_equal(once, alone)  # no label of a judged row counts
    shifted = second.copy()
    shifted[0] += 100
    more, _ = cascades.flagged(first, shifted, wanted, (~judged, judged), 0.5, 0.05)
    np.testing.assert_array_equal(once[1:], more[1:])
    assert more[0] == passed[0]


def test_a_first_threshold_is_that_of_the_other_rows_alone():
    rng = np.random.default_rng(4)
    first, second = rng.standard_normal((2, 400))
    wanted, judged = rng.random(400) < 0.5, np.arange(400) < 40
    first[judged] += 100  # were they counted, the others' threshold would rise
    raised, passed = cascades.flagged(first, second, wanted, (~judged, judged), 0.5, 0.05)
    others = first[~judged] >= sorted(first[~judged])[-180]
    reached = sorted(second[~judged][others & ~wanted[~judged]])
    limit = reached[-int(0.05 * ((~wanted & ~judged).sum() + 1))]
    assert passed.all()
    np.testing.assert_array_equal(raised, second[judged] > limit)
