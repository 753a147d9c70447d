"""Prompts that ask about statements: what is asked, where statements end, and the refusal of answers that are no tokens."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import checkpoints
from actspace.errors import StudyError
from actspace.probes import causal_prompts
from actspace.probes.causal_prompts import build, examples, split_of, spread

CFG = {
    "where": "causal.truth",
    "sets": ["cities"],
    "statements": 6,
    "shots": 4,
    "template": "{statement} Is it so?",
    "answer_true": " the",
    "answer_false": " a",
    "positions": [-2, -1],
    "bos": False,
    "seed": 1,
    "probe_seed": 3,
    "test_fraction": 0.5,
}
WORDS = " the a the a the a is it so Is"


@pytest.fixture(scope="module")
def tokenizer():
    return checkpoints.tokenizer(WORDS)


def statements(n_groups: int = 20) -> pd.DataFrame:
    rows = [
        (f"The {name} {group} {'is' if label else 'was'} on the mat.", label, name, f"{name} {group}")
        for name in ("cities", "others")
        for group in range(n_groups)
        for label in (0, 1)
    ]
    return pd.DataFrame(rows, columns=["statement", "label", "set", "group"])


def test_prompts_ask_about_split_of_statements_after_examples_from_the_training_side(tokenizer):
    table = statements()
    _, test = split_of(table["group"], CFG)
    found = build(table, tokenizer, CFG, 1000)
    assert found["label"].value_counts().to_dict() == {0: 3, 1: 3}
    assert found["group"].nunique() >= 3
    assert (found["set"] == "cities").all()
    assert test[found["row"]].all()
    assert (table.loc[found["row"], "statement"].to_numpy() == found["statement"]).all()
    lines = found["prompt"].iloc[0].splitlines()
    assert len(lines) == 5
    shown = {line.split(" Is it so?")[0]: line.split(" Is it so?")[1] for line in lines[:4]}
    known = table[~test & (table["set"] == "cities")].set_index("statement")
    assert sorted(shown.values()) == [" a", " a", " the", " the"]
    for statement, answer in shown.items():
        assert answer == (" the" if known.loc[statement, "label"] else " a")
    assert known.loc[list(shown), "group"].is_unique
    assert found["prompt"].str.startswith("\n".join(lines[:4])).all()


def test_the_end_is_the_last_token_of_the_statement(tokenizer):
    for bos in (False, True):
        for row in build(statements(), tokenizer, {**CFG, "bos": bos}, 1000).to_dict("records"):
            upto = tokenizer.decode(row["token_ids"][: row["end"] + 1])
            assert upto.endswith(row["statement"])
            assert tokenizer.decode(row["token_ids"][row["end"] + 1 :]) == " Is it so?"
            assert (row["token_ids"][0] == tokenizer.bos_token_id) == bos


def test_answers_are_the_tokens_that_follow_the_prompt(tokenizer):
    found = build(statements(), tokenizer, CFG, 1000).iloc[0]
    assert tokenizer.convert_ids_to_tokens([found["true_id"], found["false_id"]]) == ["Ġthe", "Ġa"]


def test_answers_of_several_tokens_are_refused_with_those_that_are_single(tokenizer, monkeypatch):
    with pytest.raises(StudyError, match=r"causal.truth.answer_false: ' FALSE' is no single token .* vocabulary"):
        build(statements(), tokenizer, {**CFG, "answer_false": " FALSE"}, 1000)
    monkeypatch.setattr(causal_prompts, "COMMON_ANSWERS", ((" TRUE", " FALSE"), (" the", " a"), (" is", " XYZ")))
    with pytest.raises(StudyError, match=r"' TRUE' is no single token of this model here; take ' the' and ' a'$"):
        build(statements(), tokenizer, {**CFG, "answer_true": " TRUE"}, 1000)


def test_two_answers_must_be_two_tokens(tokenizer):
    with pytest.raises(StudyError, match=r"causal.truth.answer_false: both answers are the token"):
        build(statements(), tokenizer, {**CFG, "answer_false": " the"}, 1000)


def test_a_template_that_joins_the_end_of_the_statement_is_refused(tokenizer):
    table = statements().assign(statement=lambda t: t["statement"].str.removesuffix(" on the mat.") + " th")
    with pytest.raises(StudyError, match=r"causal.truth.template: what follows '\{statement\}' becomes one token"):
        build(table, tokenizer, {**CFG, "template": "{statement}e"}, 1000)


def test_prompts_beyond_the_context_and_positions_beyond_the_statement_are_refused(tokenizer):
    with pytest.raises(StudyError, match=r"causal.truth.shots: a prompt has \d+ tokens, but the model's context is 30"):
        build(statements(), tokenizer, CFG, 30)
    with pytest.raises(StudyError, match=r"causal.truth.positions: 'The cities \d+ .*' has no 99 tokens"):
        build(statements(), tokenizer, {**CFG, "positions": [-99, -1]}, 1000)


def test_statements_are_spread_over_entities():
    rows = pd.DataFrame({"group": np.repeat(list("abcd"), 4), "label": [0, 0, 1, 1] * 4})
    found = spread(rows, 8, np.random.default_rng(0))
    assert (found.groupby(["group", "label"]).size() == 1).all()
    assert len(spread(rows, 100, np.random.default_rng(0))) == 16


def test_a_set_without_false_statements_or_with_too_few_examples_is_one_line():
    rows = statements(3)
    with pytest.raises(StudyError, match="no held-out true or no held-out false"):
        spread(rows[rows["label"] == 1], 4, np.random.default_rng(0))
    with pytest.raises(StudyError, match=r"causal.truth.shots: the set 'cities' has no 5 true and 5 false ones"):
        examples(rows, "cities", {**CFG, "shots": 10})


def test_examples_may_be_left_out(tokenizer):
    found = build(statements(), tokenizer, {**CFG, "shots": 0}, 1000)
    assert (found["prompt"] == found["statement"] + " Is it so?").all()
