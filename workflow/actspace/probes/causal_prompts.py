"""Prompts that ask a model whether a statement is true: labelled examples, the statement, and one token to answer with.

Source: Marks & Tegmark, The Geometry of Truth (2023), section on causal interventions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from actspace.errors import StudyError
from actspace.probes.entities import sides
from actspace.seeds import rng_for, seed_for
from actspace.tokens import Encoder, bos_of, encoder

SPLIT = 0
"""The split of the probe study whose directions are tested, on the statements that it holds out."""
PLACE = "{statement}"
COMMON_ANSWERS = (
    *((" TRUE", " FALSE"), (" True", " False"), (" true", " false"), (" Yes", " No"), (" yes", " no")),
    *(("TRUE", "FALSE"), ("True", "False"), ("true", "false"), ("Yes", "No"), ("yes", "no")),
)
"""Pairs of answers to suggest where others are no single tokens."""


def split_of(groups: Sequence[str] | NDArray, cfg: Mapping[str, Any]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Mark the statements that probes of the tested split were fitted on, and those that it holds out, both (row,).

    `cfg` holds `probe_seed` and `test_fraction` of the probe study.
    """
    return sides(groups, cfg["test_fraction"], seed_for(cfg["probe_seed"], "split", SPLIT))


def build(statements: pd.DataFrame, tokenizer: Any, cfg: Mapping[str, Any], context_length: int) -> pd.DataFrame:
    """Make one prompt for each statement to be tested: held-out ones, after examples that the probes were fitted on.

    Parameters
    ----------
    statements : columns statement, label, set and group
    tokenizer : transformers tokenizer
    cfg : `where` (place in the config), `sets`, `statements` (per set, at most), `shots`, `template`, `answer_true`,
        `answer_false`, `positions`, `bos`, `seed`, `probe_seed`, `test_fraction`
    context_length : tokens that the model takes

    Returns
    -------
    DataFrame
        `row` (of the statement), statement, label, set, group, prompt, token_ids, `end` (index of the statement's last
        token in them), true_id and false_id (the answers' tokens)

    Raises
    ------
    StudyError
        If an answer is no single token after the prompt, a set lacks statements for prompts or examples, a prompt
        exceeds the context, the template joins the statement's last token with what follows, or a statement has fewer
        tokens than a position asks for.
    """
    rows = statements.reset_index(names="row")
    train, test = split_of(rows["group"].to_numpy(), cfg)
    encode, start = encoder(tokenizer), bos_of(tokenizer, cfg["bos"])
    prompts = []
    for name in cfg["sets"]:
        here = (rows["set"] == name).to_numpy()
        before = examples(rows[here & train], name, cfg)
        prompts += [
            asked(row, before, encode, start, cfg)
            for row in spread(rows[here & test], cfg["statements"], rng_for(cfg["seed"], "tested", name)).to_dict(
                "records"
            )
        ]
    table = pd.DataFrame(prompts)
    true_id, false_id = answer_tokens(encode, str(table["prompt"].iloc[0]), cfg)
    longest = int(table["token_ids"].map(len).max())
    if longest > context_length:
        found = f"a prompt has {longest} tokens, but the model's context is {context_length}"
        raise StudyError(f"{cfg['where']}.shots: {found}; take fewer")
    return table.assign(true_id=true_id, false_id=false_id)


def spread(rows: pd.DataFrame, n: int, rng: np.random.Generator) -> pd.DataFrame:
    """Choose n statements at most, as many true as false ones, from as many entities as possible.

    Raises StudyError if they lack true or false ones.
    """
    shuffled = rows.iloc[rng.permutation(len(rows))]
    turn = shuffled.groupby(["group", "label"]).cumcount().to_numpy()
    ordered = shuffled.iloc[np.argsort(turn, kind="stable")]
    half = min(n // 2, *(int((rows["label"] == label).sum()) for label in (0, 1)))
    if not half:
        raise StudyError("causal: no held-out true or no held-out false statement in a set; add statements")
    return ordered.groupby("label").head(half).sort_index()


def examples(rows: pd.DataFrame, name: str, cfg: Mapping[str, Any]) -> str:
    """Write the examples of a set, one a line, in random order; half of them true, each of an entity of its own."""
    if not cfg["shots"]:
        return ""
    rng = rng_for(cfg["seed"], "examples", name)
    half = cfg["shots"] // 2
    single = rows.iloc[rng.permutation(len(rows))].drop_duplicates("group")
    chosen = single.groupby("label").head(half)
    if len(chosen) < 2 * half:
        raise StudyError(
            f"{cfg['where']}.shots: the set '{name}' has no {half} true and {half} false ones to show; take fewer"
        )
    shown = chosen.iloc[rng.permutation(len(chosen))]
    answers = shown["label"].map({1: cfg["answer_true"], 0: cfg["answer_false"]})
    return "".join(
        f"{cfg['template'].replace(PLACE, text)}{answer}\n"
        for text, answer in zip(shown["statement"], answers, strict=True)
    )


def asked(
    row: Mapping[str, Any], examples: str, encode: Encoder, start: list[int], cfg: Mapping[str, Any]
) -> dict[str, Any]:
    """Write and tokenize the prompt of one statement, and find the statement's last token in it."""
    before, after = cfg["template"].split(PLACE)
    statement, where = str(row["statement"]), f"{cfg['where']}.template"
    opening, upto, whole = encode(
        [examples + before, examples + before + statement, examples + before + statement + after]
    )
    if whole[: len(upto)] != upto:
        raise StudyError(f"{where}: what follows '{PLACE}' becomes one token with its end; begin it with a space")
    if len(upto) - _shared(opening, upto) < -min(cfg["positions"]):
        raise StudyError(
            f"{cfg['where']}.positions: '{statement}' has no {-min(cfg['positions'])} tokens; leave that one out"
        )
    kept = {key: row[key] for key in ("row", "statement", "label", "set", "group")}
    prompt = examples + before + statement + after
    return kept | {"prompt": prompt, "token_ids": start + whole, "end": len(start) + len(upto) - 1}


def _shared(a: Sequence[int], b: Sequence[int]) -> int:
    """Count the tokens that two sequences begin with alike."""
    different = (place for place, (one, other) in enumerate(zip(a, b, strict=False)) if one != other)
    return next(different, min(len(a), len(b)))


def answer_tokens(encode: Encoder, prompt: str, cfg: Mapping[str, Any]) -> tuple[int, int]:
    """Return the tokens of the answers "true" and "false" as they follow a prompt.

    Raises
    ------
    StudyError
        If one of them is not a single token there; it names common answers that are.
    """
    found = {key: _single(encode, prompt, cfg[key]) for key in ("answer_true", "answer_false")}
    for key, token in found.items():
        if token is None:
            known = [pair for pair in COMMON_ANSWERS if all(_single(encode, prompt, word) is not None for word in pair)]
            listed = ", ".join(f"'{true}' and '{false}'" for true, false in known)
            remedy = f"take {listed}" if known else "take words of the model's vocabulary"
            raise StudyError(f"{cfg['where']}.{key}: '{cfg[key]}' is no single token of this model here; {remedy}")
    true, false = found["answer_true"], found["answer_false"]
    assert true is not None
    assert false is not None
    if true == false:
        raise StudyError(f"{cfg['where']}.answer_false: both answers are the token {true}; take another word")
    return true, false


def _single(encode: Encoder, prompt: str, word: str) -> int | None:
    """Return the one token that a word adds to a prompt; None if it adds another number, or changes the prompt's own."""
    before, after = encode([prompt, prompt + word])
    return after[-1] if after[:-1] == before else None
