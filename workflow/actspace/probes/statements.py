"""True and false statements, generated from facts or read from CSV files, and their splits by entity.

Source: Marks & Tegmark, The Geometry of Truth (2023); Bürger et al., Truth is Universal (2024).
"""

from __future__ import annotations

import csv
import difflib
import io
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from actspace.errors import StudyError
from actspace.probes import entities
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
    "neg_comparisons": ("comparisons", "{} is not larger than {}.", True),
}
# set: (set of both parts, template, label of the whole from those of the parts)
COMPOUNDS: dict[str, tuple[str, str, Callable[[Iterable[int]], bool]]] = {
    f"{name}_{suffix}": (name, template, whole)
    for name in ("cities", "element_symbols", "comparisons")
    for suffix, template, whole in (
        ("conj", "It is the case both that {} and that {}.", all),
        ("disj", "It is the case either that {} or that {}.", any),
    )
}
GENERATED = [*SETS, *COMPOUNDS]
COLUMNS = ["statement", "label", "set", "group", "topic"]
LABELS = {"0": 0, "1": 1, "false": 0, "true": 1}
Contradictions = Literal["refuse", "leave_out"]
Row = tuple[str, int, str, str, str]


def generate(sets: Sequence[str], per_set: int, rng: np.random.Generator) -> pd.DataFrame:
    """Generate statements, half of them true; each entity has as many true as false statements in a set.

    A set and its negation speak of the same entities with the same answers, and so do the conjunctions and disjunctions
    of a set. What a set holds does not depend on the others.

    Parameters
    ----------
    sets : names out of `GENERATED`
    per_set : statements per set, a multiple of 4: two entities swap answers; of 8 for conjunctions and disjunctions
    rng : one integer is drawn from it

    Returns
    -------
    DataFrame with the columns statement, label (1 true, 0 false), set, group (what a split must not part: two cities or
    elements that swap answers, or a pair of numbers; with compound statements the four of them that share some) and
    topic (the family of facts)

    Raises
    ------
    StudyError
        If a set is unknown or named twice, or `per_set` is no such multiple or exceeds what is known.
    """
    table, ties = _generated(sets, per_set, rng)
    return table.assign(group=entities.join(table["group"], ties))


def _generated(
    sets: Sequence[str], per_set: int, rng: np.random.Generator
) -> tuple[pd.DataFrame, set[tuple[str, ...]]]:
    """Generate statements with all entities of a row in `group`, and list those entities that must stay together."""
    _check_sets(sets)
    multiple = 8 if set(sets) & set(COMPOUNDS) else 4
    if per_set < multiple or per_set % multiple:
        what = "conjunctions and disjunctions speak of four" if multiple == 8 else "entities swap answers in twos"
        raise StudyError(f"statements: `per_set` is {per_set}; {what}, so give a multiple of {multiple}")
    root = int(rng.integers(2**63))
    families = {SETS[COMPOUNDS[name][0] if name in COMPOUNDS else name][0] for name in sets}
    facts = {family: FAMILIES[family](per_set // 2, rng_for(root, family)) for family in families}
    rows = [row for name in sets for row in _fill(name, facts)]
    table = pd.DataFrame(rows, columns=COLUMNS)
    return table, {tuple(group.split(entities.SEPARATOR)) for group in table["group"]}


def collect(settings: Mapping[str, Any], seed: int) -> pd.DataFrame:
    """Put the generated sets and the files of one entry of the config together; columns as in `generate`.

    An entity that is in several sets is one in all of them.

    Parameters
    ----------
    settings : `generated` (names), `per_set`, `files` (paths by name of the set), `entity_columns` (by name of the set)
        and `contradictions`
    seed : of the generated sets

    Raises
    ------
    StudyError
        As `generate` and `read_csv`; or if two sets have one name, contradict each other, or have one statement under
        different entities.
    """
    generated, files, how = settings["generated"], settings["files"], settings["contradictions"]
    if both := sorted(set(generated) & set(files)):
        raise StudyError(f"statements: the set '{both[0]}' is both generated and a file; rename the file's set")
    parts, ties = [], set[tuple[str, ...]]()
    if generated:
        table, ties = _generated(generated, settings["per_set"], np.random.default_rng(seed))
        parts.append(table)
    read = {name: _read_set(path, name, settings["entity_columns"].get(name), how) for name, path in files.items()}
    parts += [found for found, _ in read.values()]
    ties |= _negated(read)
    table = _without_contradictions("statements", pd.concat(parts, ignore_index=True), how)
    table["group"] = entities.join(table["group"], ties)
    _check_groups(table)
    return table


def _negated(read: Mapping[str, tuple[pd.DataFrame, bool]]) -> set[tuple[str, ...]]:
    """Tie statements to their negations where no column says what they are about; warn, as that does not make it known."""
    ties = set[tuple[str, ...]]()
    for name in (name for name, (_, known) in read.items() if not known):
        log.warning(
            "%s: no column says what the statements are about, so each counts as an entity of its own, and two about "
            "one thing can part in a split; name columns under `entity_columns` ([statement] if this is right)",
            name,
        )
        table, (plain, _) = read[name][0], read.get(name.removeprefix(NEGATED), (None, False))
        if plain is not None and entities.negates(plain, table):
            ties |= set(zip(plain["group"], table["group"], strict=True))
    return ties


def _check_groups(table: pd.DataFrame) -> None:
    """Refuse a statement that stands under different entities: it could be trained on and tested."""
    groups = table.groupby("statement", sort=False)["group"].unique()
    for statement, found in groups[groups.str.len() > 1].items():
        raise StudyError(
            f"statements: '{_shown(str(statement))}' is there with the entity '{_shown(found[0])}' and with '{_shown(found[1])}', "
            "and a split could train on the one and test the other; correct the entities"
        )


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
            if entities.negates(statements.iloc[rows], statements.iloc[negations]):
                found.append(np.stack([rows, negations], axis=1))
            else:
                log.warning("%s%s does not negate %s row by row: no pairs", NEGATED, name, name)
    return np.concatenate(found)


def _fill(name: str, facts: Mapping[str, Sequence[Fact]]) -> list[Row]:
    if name in COMPOUNDS:
        return _compound(name, facts)
    family, template, negates = SETS[name]
    return [
        (template.format(*words), label, name, entities.SEPARATOR.join(fact.entities), family)
        for fact in facts[family]
        for words, label in ((fact.true, 1 - negates), (fact.false, int(negates)))
    ]


def _compound(name: str, facts: Mapping[str, Sequence[Fact]]) -> list[Row]:
    """Join statements in twos: the entities a, b and c, d that swap answers stand as (a, c), (b, d), (a, d), (b, c).

    Of those four, two get the truths of both parts that make the rarer label (both true, for `and`), and the same two
    once more one of the others in turn. Both cities of a couple get the same truths, so that in either label every city
    and every country stands once.
    """
    plain, template, whole = COMPOUNDS[name]
    family, part, _ = SETS[plain]
    kinds = list(product((1, 0), repeat=2))
    rare = [kind for kind in kinds if sum(whole(kind) == whole(other) for other in kinds) == 1]
    common = [kind for kind in kinds if kind not in rare]
    rows, turn = [], 0
    for a, b, c, d in zip(*[iter(facts[family])] * 4, strict=True):
        group = entities.SEPARATOR.join(dict.fromkeys(entity for fact in (a, b, c, d) for entity in fact.entities))
        for couples in (((a, c), (b, d)), ((a, d), (b, c))):
            for kind, couple in product((rare[0], common[turn % len(common)]), couples):
                clauses = (_clause(part, fact, truth) for fact, truth in zip(couple, kind, strict=True))
                rows.append((template.format(*clauses), int(whole(kind)), name, group, family))
            turn += 1
    return rows


def _clause(template: str, fact: Fact, truth: int) -> str:
    """Return a statement as it stands inside a sentence."""
    statement = template.format(*(fact.true if truth else fact.false)).removesuffix(".")
    return statement[0].lower() + statement[1:]


def _check_sets(sets: Sequence[str]) -> None:
    for name in sets:
        if name not in GENERATED:
            hint = _hint(name, GENERATED)
            raise StudyError(f"statements: there is no set '{name}'{hint}; there are {', '.join(GENERATED)}")
        if list(sets).count(name) > 1:
            raise StudyError(f"statements: the set '{name}' is named twice; name it once")


def read_csv(
    path: str | Path,
    set_name: str,
    entity_columns: Sequence[str] | None = None,
    contradictions: Contradictions = "refuse",
) -> pd.DataFrame:
    """Read statements from a CSV file with a header that has at least `statement` and `label`.

    Parameters
    ----------
    path : UTF-8 file; statements may hold commas and line breaks where they are quoted
    set_name : value of the column set
    entity_columns : the columns that name the entities which a split must not share. Without them they are found by the
        rule of `entities`.
    contradictions : `leave_out` drops statements that are labelled both ways; `refuse` does not read such a file

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
    table, _ = _read_set(path, set_name, entity_columns, contradictions)
    return table.assign(group=entities.join(table["group"], []))


def _read_set(
    path: str | Path, set_name: str, entity_columns: Sequence[str] | None, contradictions: Contradictions
) -> tuple[pd.DataFrame, bool]:
    """Read a file of statements, and say whether it tells what they are about."""
    table = _read_table(Path(path))
    for column in ("statement", "label", *(entity_columns or [])):
        if column not in table:
            hint, found = _hint(column, list(table.columns)), _shown(", ".join(table.columns), 200)
            raise StudyError(f"{path}: no column '{_shown(column)}'{hint}; the file has the columns {found}")
    statement = table["statement"].str.strip()
    label = _labels(path, table["label"])
    group = entities.of_columns(table, entity_columns)
    group = entities.of_forms(statement) if group is None else group
    topic = table["topic"] if "topic" in table else set_name.removeprefix(NEGATED)
    columns = {"statement": statement, "label": label, "set": set_name, "topic": topic}
    result = pd.DataFrame({**columns, "group": entities.of_statements(statement) if group is None else group})[COLUMNS]
    _check_filled(path, result)
    kept = result.drop_duplicates(["statement", "group", "label"], ignore_index=True)
    if len(kept) < len(result):
        log.info("%s: %d repeated statements left out", path, len(result) - len(kept))
    return _without_contradictions(path, kept, contradictions), group is not None


def rows_at(
    sequence_id: NDArray, position: NDArray, lengths: Sequence[int] | NDArray, wanted: int | Literal["last"]
) -> NDArray[np.int64]:
    """Find, for every statement, its stored row at one position.

    Parameters
    ----------
    sequence_id, position : (row,), of the stored rows; a statement's sequence has its own number
    lengths : (statement,), tokens of each
    wanted : the position; a negative one counts from the end, "last" is -1

    Returns
    -------
    integer ndarray of shape (statement,): row numbers

    Raises
    ------
    StudyError
        If a statement has no such token, or its row is not stored.
    """
    place = -1 if wanted == "last" else wanted
    ends = np.asarray(lengths, dtype=np.int64)
    tokens = np.where(place < 0, ends + place, place)
    width = max(int(ends.max(initial=0)), int(np.max(position, initial=0)) + 1, int(tokens.max(initial=0)) + 1)
    stored = np.asarray(sequence_id, dtype=np.int64) * width + position
    order = np.argsort(stored, kind="stable")
    sought = np.arange(len(ends)) * width + tokens
    found = np.searchsorted(stored, sought, sorter=order).clip(max=max(len(stored) - 1, 0))
    absent = (tokens < 0) | (tokens >= ends) | (stored[order[found]] != sought)
    if absent.any():
        first = int(absent.argmax())
        raise StudyError(
            f"probes: position {wanted} of statement {first} is not stored (it has {ends[first]} tokens); choose a position "
            "that every statement has"
        )
    return order[found]


def _read_table(path: Path) -> pd.DataFrame:
    rows = [row for row in _read_rows(path) if row]
    if not rows:
        raise StudyError(f"{path}: the file is empty; it needs a header with the columns statement and label")
    header = [name.strip() for name in rows[0]]
    if twice := [name for i, name in enumerate(header) if name in header[:i]]:
        raise StudyError(f"{path}: two columns are named '{_shown(twice[0])}'; rename one")
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
            raise StudyError(f"{path}: row {number} has the label '{_shown(word)}'; allowed are 0, 1, true and false")
    labels = np.array([LABELS[word.strip().lower()] for word in words], dtype=np.int64)
    if len(set(labels.tolist())) < 2:
        found = ("only true" if labels.any() else "only false") if len(labels) else "no"
        raise StudyError(f"{path}: there are {found} statements; a probe needs true and false ones")
    return labels


def _check_filled(path: str | Path, table: pd.DataFrame) -> None:
    for column, what in (("statement", "an empty statement"), ("group", "no entity in the group column")):
        empty = (table[column] == "").to_numpy()
        if empty.any():
            raise StudyError(f"{path}: row {int(empty.argmax()) + 1} has {what}; fill it in or remove the row")


def _without_contradictions(where: str | Path, table: pd.DataFrame, how: Contradictions) -> pd.DataFrame:
    """Refuse statements that are labelled both ways, or leave them out."""
    both = table.groupby("statement")["label"].transform("nunique") > 1
    if both.any() and how == "refuse":
        statement = _shown(table["statement"][int(both.to_numpy().argmax())])
        remedy = "keep one of them, or set `contradictions: leave_out`"
        raise StudyError(f"{where}: the statement '{statement}' is there both as true and as false; {remedy}")
    if both.any():
        log.warning("%s: %d statements left out that are there both as true and as false", where, both.sum())
    return table[~both].reset_index(drop=True)


def _hint(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name.lower(), known, n=1)
    return f" (did you mean '{_shown(near[0])}'?)" if near else ""


def _shown(text: str, length: int = 60) -> str:
    """Shorten a text for a message; what would break the line, or cannot be seen, is written out."""
    shown = text if len(text) <= length else text[: length - 3] + "..."
    return shown if shown.isprintable() else ascii(shown)[1:-1]
