"""True and false statements, generated from facts or read from CSV files, and their splits by entity.

Source: Marks & Tegmark, The Geometry of Truth (2023); Bürger et al., Truth is Universal (2024).
"""

from __future__ import annotations

import csv
import difflib
import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from actspace.errors import StudyError
from actspace.probes.facts import FAMILIES, Fact
from actspace.probes.names import NEGATED
from actspace.seeds import rng_for

log = logging.getLogger(__name__)

# set: (family of facts, template, whether it negates the fact)
SETS = {
    "cities": ("cities", "The city of {} is in {}.", False),
    "neg_cities": ("cities", "The city of {} is not in {}.", True),
    "element_symbols": ("elements", "{} has the symbol {}.", False),
    "neg_element_symbols": ("elements", "{} does not have the symbol {}.", True),
    "comparisons": ("comparisons", "{} is larger than {}.", False),
}
COLUMNS = ["statement", "label", "set", "group", "topic"]
ENTITY_COLUMNS = ("group", "entity", "city", "country")
LABELS = {"0": 0, "1": 1, "false": 0, "true": 1}


def generate(sets: Sequence[str], per_set: int, rng: np.random.Generator) -> pd.DataFrame:
    """Generate statements, half of them true; each entity has one true and one false statement in a set.

    A set and its negation speak of the same entities with the same answers. What a set holds does not depend on the
    others.

    Parameters
    ----------
    sets : names out of `SETS`
    per_set : statements per set, a multiple of 4: two entities swap answers
    rng : one integer is drawn from it

    Returns
    -------
    DataFrame with the columns statement, label (1 true, 0 false), set, group (what a split must not part: two cities or
    elements that swap answers, or a pair of numbers) and topic (the family of facts)

    Raises
    ------
    StudyError
        If a set is unknown or named twice, or `per_set` is no multiple of 4 or exceeds what is known.
    """
    _check_sets(sets)
    if per_set < 4 or per_set % 4:
        raise StudyError(f"statements: `per_set` is {per_set}; entities swap answers in twos, so give a multiple of 4")
    root = int(rng.integers(2**63))
    families = {SETS[name][0] for name in sets}
    facts = {family: FAMILIES[family](per_set // 2, rng_for(root, family)) for family in families}
    rows = [row for name in sets for fact in facts[SETS[name][0]] for row in _fill(name, fact)]
    return pd.DataFrame(rows, columns=COLUMNS)


def collect(settings: Mapping[str, Any], seed: int) -> pd.DataFrame:
    """Put the generated sets and the files of one entry of the config together; columns as in `generate`.

    `settings` holds `generated` (names), `per_set`, `files` (paths by name of the set) and `group_column`.
    """
    generated, files = settings["generated"], settings["files"]
    parts = [generate(generated, settings["per_set"], np.random.default_rng(seed))] if generated else []
    parts += [read_csv(path, name, settings["group_column"]) for name, path in files.items()]
    if both := sorted(set(generated) & set(files)):
        raise StudyError(f"statements: the set '{both[0]}' is both generated and a file; rename the file's set")
    return pd.concat(parts, ignore_index=True)


def polarities(sets: Sequence[str] | NDArray) -> NDArray[np.int64]:
    """Return -1 for rows of negated sets, whose names begin with `neg_`, and 1 for the others, (row,)."""
    return np.where(np.char.startswith(np.asarray(sets, dtype=str), NEGATED), -1, 1)


def pairs(statements: pd.DataFrame) -> NDArray[np.int64]:
    """Find the negation of every statement that has one.

    A set `x` and its negation `neg_x` have the same statements in the same order, as the generated and the published
    ones do. It counts only if all labels are opposite and nine in ten statements end in the same word as their
    negations: two sets in different orders have no pairs, and the log says so.

    Returns
    -------
    integer ndarray of shape (pair, 2): the row numbers of a statement and of its negation
    """
    known = {name: np.flatnonzero(statements["set"] == name) for name in statements["set"].unique()}
    found = [np.empty((0, 2), dtype=np.int64)]
    for name, rows in known.items():
        if (negations := known.get(NEGATED + name)) is not None:
            if _negates(statements.iloc[rows], statements.iloc[negations]):
                found.append(np.stack([rows, negations], axis=1))
            else:
                log.warning("%s%s does not negate %s row by row: no pairs", NEGATED, name, name)
    return np.concatenate(found)


def _negates(statements: pd.DataFrame, negations: pd.DataFrame) -> bool:
    if len(statements) != len(negations):
        return False
    ends, others = (table["statement"].str.split().str[-1].to_numpy() for table in (statements, negations))
    opposite = statements["label"].to_numpy() != negations["label"].to_numpy()
    return bool(opposite.all() and (ends == others).mean() >= 0.9)


def _fill(name: str, fact: Fact) -> list[tuple[str, int, str, str, str]]:
    family, template, negates = SETS[name]
    answers = ((fact.true, 1 - negates), (fact.false, int(negates)))
    return [(template.format(*words), label, name, fact.group, family) for words, label in answers]


def _check_sets(sets: Sequence[str]) -> None:
    for name in sets:
        if name not in SETS:
            hint = _hint(name, list(SETS))
            raise StudyError(f"statements: there is no set '{name}'{hint}; there are {', '.join(SETS)}")
        if list(sets).count(name) > 1:
            raise StudyError(f"statements: the set '{name}' is named twice; name it once")


def read_csv(path: str | Path, set_name: str, group_column: str | None = None) -> pd.DataFrame:
    """Read statements from a CSV file with a header that has at least `statement` and `label`.

    Parameters
    ----------
    path : UTF-8 file; statements may hold commas and line breaks where they are quoted
    set_name : value of the column set
    group_column : the column that names the entity which a split must not share. Without it the first that exists of
        `group`, `entity`, `city` and `country` counts; where none does each statement is a group of its own.

    Returns
    -------
    DataFrame with the columns of `generate`; topic is the file's column of that name, or the set's name without `neg_`.
    A statement repeated with the same label and group is kept once.

    Raises
    ------
    StudyError
        If the file or a column is missing, a label is none of 0, 1, true and false, all labels are equal, a statement
        is empty or labelled both ways, or the file is not UTF-8 or not well-formed.
    """
    table = _read_table(Path(path))
    for column in ("statement", "label", *([group_column] if group_column else [])):
        if column not in table:
            hint, found = _hint(column, list(table.columns)), ", ".join(table.columns)
            raise StudyError(f"{path}: no column '{column}'{hint}; the file has the columns {found}")
    statement = table["statement"].str.strip()
    label = _labels(path, table["label"])
    group_column = group_column or next((column for column in ENTITY_COLUMNS if column in table), None)
    group = table[group_column].str.strip() if group_column else statement
    topic = table["topic"] if "topic" in table else set_name.removeprefix(NEGATED)
    columns = {"statement": statement, "label": label, "set": set_name, "group": group, "topic": topic}
    result = pd.DataFrame(columns)[COLUMNS]
    _check_statements(path, result)
    kept = result.drop_duplicates(["statement", "group"], ignore_index=True)
    if len(kept) < len(result):
        log.info("%s: %d repeated statements left out", path, len(result) - len(kept))
    return kept


def _read_table(path: Path) -> pd.DataFrame:
    rows = [row for row in _read_rows(path) if row]
    if not rows:
        raise StudyError(f"{path}: the file is empty; it needs a header with the columns statement and label")
    header = [name.strip() for name in rows[0]]
    for number, row in enumerate(rows[1:], 1):
        if len(row) != len(header):
            found = f"row {number} ({_shown(','.join(row))}) has {len(row)} fields, the header {len(header)}"
            raise StudyError(f"{path}: {found}; quote fields that hold commas")
    return pd.DataFrame(rows[1:], columns=header, dtype=str)


def _read_rows(path: Path) -> list[list[str]]:
    try:
        data = path.read_bytes()
        return list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True))
    except OSError as error:
        raise StudyError(f"{path}: cannot be read ({error.strerror}); give the path of a CSV file") from None
    except UnicodeDecodeError as error:
        line, byte = data[: error.start].count(b"\n") + 1, data[error.start]
        raise StudyError(f"{path}: line {line} has a byte that is not UTF-8 (0x{byte:02x}); save it as UTF-8") from None
    except csv.Error as error:
        raise StudyError(f"{path}: not well-formed CSV ({error}); quote fields with commas or line breaks") from None


def _labels(path: str | Path, words: pd.Series) -> NDArray[np.int64]:
    for number, word in enumerate(words, 1):
        if word.strip().lower() not in LABELS:
            raise StudyError(f"{path}: row {number} has the label '{word}'; allowed are 0, 1, true and false")
    labels = np.array([LABELS[word.strip().lower()] for word in words], dtype=np.int64)
    if len(set(labels.tolist())) < 2:
        found = ("only true" if labels.any() else "only false") if len(labels) else "no"
        raise StudyError(f"{path}: there are {found} statements; a probe needs true and false ones")
    return labels


def _check_statements(path: str | Path, table: pd.DataFrame) -> None:
    for column, what in (("statement", "an empty statement"), ("group", "no entity in the group column")):
        empty = (table[column] == "").to_numpy()
        if empty.any():
            raise StudyError(f"{path}: row {int(empty.argmax()) + 1} has {what}; fill it in or remove the row")
    verdicts = table.groupby("statement", sort=False)["label"].nunique()
    if (verdicts > 1).any():
        statement = _shown(str(verdicts.index[(verdicts > 1).to_numpy().argmax()]))
        raise StudyError(f"{path}: the statement '{statement}' is there both as true and as false; keep one of them")


def _hint(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name.lower(), known, n=1)
    return f" (did you mean '{near[0]}'?)" if near else ""


def _shown(text: str, length: int = 60) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."


def entity_split(groups: Sequence[str] | NDArray, test_fraction: float, seed: int) -> NDArray[np.bool_]:
    """Hold out entities: every row of a group falls on one side, in whichever set it stands.

    Parameters
    ----------
    groups : the entity of each row; equal names are one entity, also across sets
    test_fraction : share of the entities to hold out
    seed : of the choice, which does not depend on the order of rows

    Returns
    -------
    bool ndarray of shape (row,), true for test rows

    Raises
    ------
    StudyError
        If there are fewer than two entities, or the fraction is not between 0 and 1.
    """
    rows = np.asarray(groups, dtype=str)
    names = np.unique(rows)
    if not 0 < test_fraction < 1:
        raise StudyError(f"probes: `test_fraction` is {test_fraction}; it must lie between 0 and 1")
    if len(names) < 2:
        raise StudyError(f"probes: a split by entity needs two entities or more, found {len(names)}; add statements")
    n_test = min(max(round(test_fraction * len(names)), 1), len(names) - 1)
    held_out = np.random.default_rng(seed).choice(names, n_test, replace=False)
    return np.isin(rows, held_out)
