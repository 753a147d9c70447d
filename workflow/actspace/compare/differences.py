"""What differs between studies: one row per thing that is not the same in all of them, one column per study."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence

import pandas as pd
import pyarrow as pa

from actspace import manifest, tables
from actspace.compare.folders import Finished
from actspace.report.page import flattened

ABSENT, NOT_THERE = "–", "not in the folder"
NAMES = ("study", "title")
"""Settings that only name a study."""
MODELS, TEXTS = ("model", "checkpoint"), ("statements", "phrases")
"""Rules that say what the model is, and that write the texts of a study; so do those named `tokens_`."""
NOT_TESTED = "not tested"
AGREEMENTS = ["opposite", "different", "not everywhere", "same"]
ABOUT = ["title", "source", "unit", "criterion", "lowest", "highest"]
COLUMNS = ["id", *ABOUT, "agreement", "study", "verdict", "value", "low", "high"]
Pairs = Iterator[tuple[str, str]]


def settings(studies: Sequence[Finished]) -> pd.DataFrame:
    """Compare configs, by dotted key; a list of plain values is one setting."""
    found = {s.name: {k: v for k, v in flattened(s.settings) if k not in NAMES} for s in studies}
    return differing(found, "setting")


def inputs(studies: Sequence[Finished]) -> pd.DataFrame:
    """Compare the sha256 of what studies were made from: files from outside, weights, and rows of tokens and statements."""
    return differing({s.name: dict(_inputs(s)) for s in studies}, "input")


def versions(studies: Sequence[Finished]) -> pd.DataFrame:
    """Compare versions of the software; a study whose files were made with several shows all of them."""
    return differing({s.name: _joined(manifest.versions(s.receipts.values())) for s in studies}, "software")


def code(studies: Sequence[Finished]) -> pd.DataFrame:
    """Compare the fingerprints of the code of each rule."""
    found = {s.name: manifest.gathered((r["rule"], r["code"]) for r in s.receipts.values()) for s in studies}
    return differing({name: _joined(by_rule) for name, by_rule in found.items()}, "rule")


def differing(found: Mapping[str, Mapping[str, str]], what: str) -> pd.DataFrame:
    """Keep what is not the same in all studies.

    Parameters
    ----------
    found : by study, the values by name
    what : name of the first column

    Returns
    -------
    DataFrame with the column `what` and one for each study; `ABSENT` where a study does not have it
    """
    keys = list(dict.fromkeys(key for values in found.values() for key in values))
    rows = [(key, *(values.get(key, ABSENT) for values in found.values())) for key in keys]
    return pd.DataFrame([row for row in rows if len(set(row[1:])) > 1], columns=[what, *found], dtype=object)


def verdicts(studies: Sequence[Finished]) -> pd.DataFrame:
    """Set the verdicts of all studies under one another, those claims first on which they disagree.

    Returns
    -------
    DataFrame with the columns id, title, source, unit, criterion, lowest, highest, agreement, study, verdict, value,
    low, high: one row per claim and study. `agreement` is "opposite" (holds in one, fails in another), "different",
    "not everywhere" (the same wherever it was tested), or "same". Claims that no study tested are left out.
    """
    about = pd.concat([s.claims for s in studies]).drop_duplicates("id").set_index("id")
    parts = [_verdicts_of(claim, row, studies) for claim, row in about.iterrows()]
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=COLUMNS)
    return table.sort_values("agreement", key=lambda a: a.map(AGREEMENTS.index), kind="stable").reset_index(drop=True)


def _verdicts_of(claim: object, about: pd.Series, studies: Sequence[Finished]) -> pd.DataFrame:
    rows = []
    for study in studies:
        own = study.claims[study.claims["id"] == claim]
        found = own.iloc[0][["verdict", "value", "low", "high"]].to_dict() if len(own) else {"verdict": NOT_TESTED}
        rows.append({"id": claim, **about[ABOUT].to_dict(), "study": study.name, **found})
    agreement = _agreement({row["verdict"] for row in rows})
    return pd.DataFrame(rows).assign(agreement=agreement).reindex(columns=COLUMNS)


def _agreement(found: set[str]) -> str:
    tested = found - {NOT_TESTED}
    if {"holds", "fails"} <= tested:
        return "opposite"
    if len(tested) > 1:
        return "different"
    return "same" if found == tested else "not everywhere"


def _inputs(study: Finished) -> Pairs:
    """Yield what a study was made from, with its sha256."""
    yield from manifest.read_from_outside(study.receipts.values())
    for path, record in sorted(study.files.items()):
        if record["rule"] in MODELS:
            yield from _weights(study, path)
        elif path.endswith(".parquet") and (record["rule"] in TEXTS or record["rule"].startswith("tokens_")):
            yield f"rows of {path}", _rows(study, path)


def _weights(study: Finished, path: str) -> Pairs:
    """Yield the weights that the description of a model names."""
    if not (study.folder / path).is_file():
        yield f"weights of {path}", NOT_THERE
        return
    for name, sha256 in json.loads((study.folder / path).read_text(encoding="utf-8"))["weights"].items():
        yield f"weights of {path}: {name}", sha256


def _rows(study: Finished, path: str) -> str:
    """Hash the rows of a table alone: the file's own sha256 is also that of the study's name and software, which stand in it."""
    if not (study.folder / path).is_file():
        return NOT_THERE
    table = tables.read_arrow(study.folder / path).replace_schema_metadata().combine_chunks()
    stream = pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    return hashlib.sha256(stream.getvalue()).hexdigest()


def _joined(values: Mapping[str, Sequence[str]]) -> dict[str, str]:
    return {name: ", ".join(several) for name, several in values.items()}
