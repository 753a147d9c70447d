"""What a statement speaks of, and splits that hold it out.

One rule: a split holds out entities, wherever they stand. A statement is tested if all its entities are held out, and
trained on if none is; a compound one with entities on both sides is left out of that split. Names are one entity if
they differ only in case, accents, punctuation, "the" and negation, across all sets.

The entities of a statement are, in this order: what the columns hold that the config names; those of a column `group`,
`entity`, `city`, `subject` or `country`, also numbered (`city1`, `city2`); what stands in the blank if every statement
of the file has the form of a published set. Else each statement is an entity by itself, and the run warns; there, a
statement of `x` and its negation, the same row of `neg_x`, are one.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from actspace.errors import StudyError

SEPARATOR = " | "
"""Between the entities of one statement in the column `group`."""
COLUMNS = ("group", "entity", "city", "subject", "country")
NEGATION = frozenset({"not", "does", "do", "did"})

# The statements of Marks & Tegmark (2023) and Bürger et al. (2024), without the full stop; the blanks are entities.
FORMS = {
    "cities": r"the city of (.+?) is (?:not )?in .+",
    "element symbols": r"(.+?) (?:has|does not have) the symbol \w+",
    "animal classes": r"the (.+?) is (?:not )?an? \w+",
    "inventors": r"(.+?) (?:lived|did not live) in .+",
    "translations": r"the Spanish word '(.+?)' (?:means|does not mean) .+",
    "comparisons": r"(.+?) is (?:not )?(?:larger|smaller) than (.+)",
}
SAME = r"(?:it|he/she) .+"
"""The second part of a compound statement about the entity of the first."""
COMPOUND = re.compile(r"It is the case (?:both|either) that (.+?) (?:and|or) that (.+)\.", re.DOTALL)


def key(name: str) -> str:
    """Return what is left of a name without case, accents, punctuation, "the" and negation."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c)).casefold()
    words = re.findall(r"\w+", plain.replace("n't", " not").replace("n\N{RIGHT SINGLE QUOTATION MARK}t", " not"))
    kept = [word for word in words if word not in NEGATION and word != "the"]
    return " ".join(kept or words) or plain


def of_columns(table: pd.DataFrame, columns: Sequence[str] | None = None) -> pd.Series | None:
    """Read entities from the columns named, or from the first known one that exists; None where there is none."""
    if columns is None:
        numbered = {name: [c for c in table if re.fullmatch(rf"{name}\d*", c)] for name in COLUMNS}
        columns = next((found for found in numbered.values() if found), None)
    if not columns:
        return None
    cells = [table[column].str.strip() for column in columns]
    return pd.Series([_joined(row) if all(row) else "" for row in zip(*cells, strict=True)], index=table.index)


def of_forms(statements: pd.Series) -> pd.Series | None:
    """Read entities from statements that all have one published form, plain or compound; None if one has another."""
    for form in FORMS.values():
        found = [_blanks(statement, re.compile(form, re.IGNORECASE | re.DOTALL)) for statement in statements]
        if all(found):
            return pd.Series([_joined(names) for names in found], index=statements.index)
    return None


def of_statements(statements: pd.Series) -> pd.Series:
    """Take each statement for an entity; of a compound one, both parts."""
    parts = (parts_of(statement) for statement in statements)
    return pd.Series([_joined(part.replace(SEPARATOR, " ") for part in found) for found in parts], statements.index)


def parts_of(statement: str) -> tuple[str, ...]:
    """Return the two parts of a compound statement, or any other statement whole."""
    found = COMPOUND.fullmatch(statement)
    return found.groups() if found else (statement,)


def _blanks(statement: str, form: re.Pattern[str]) -> list[str]:
    """Return the entities of a statement that has a form, none if it has not; two blanks are one entity, in any order."""
    first, *rest = (part.removesuffix(".") for part in parts_of(statement))
    found = []
    for part in [first, *(part for part in rest if not re.fullmatch(SAME, part, re.DOTALL))]:
        match = form.fullmatch(part)
        if match is None:
            return []
        found.append(", ".join(sorted(match.groups(), key=key)))
    return found


def _joined(names: Iterable[str]) -> str:
    return SEPARATOR.join(dict.fromkeys(names))


def negates(statements: pd.DataFrame, negations: pd.DataFrame) -> bool:
    """Say whether a set negates another row by row: opposite labels, and nine in ten end in the same word."""
    if len(statements) != len(negations):
        return False
    ends, others = (table["statement"].str.split().str[-1].to_numpy() for table in (statements, negations))
    opposite = statements["label"].to_numpy() != negations["label"].to_numpy()
    return bool(opposite.all() and (ends == others).mean() >= 0.9)


def join(groups: Sequence[str], ties: Iterable[Sequence[str]]) -> list[str]:
    """Give each entity one name, and those that must stay together one in common.

    Parameters
    ----------
    groups : entities of each row, between separators
    ties : entities that no split may part

    Returns
    -------
    list of str, one per row: the names of its entities in alphabetical order, between separators. An entity is named as
    where it is first met, tied ones by their names with commas.
    """
    spelled: dict[str, str] = {}
    for name in (name for group in groups for name in group.split(SEPARATOR)):
        spelled.setdefault(key(name), name)
    together = {entity: {entity} for entity in spelled}
    for tie in ties:
        merged = set[str]().union(*(together.setdefault(key(name), {key(name)}) for name in tie))
        spelled |= {key(name): name for name in tie if key(name) not in spelled}
        together |= dict.fromkeys(merged, merged)
    name_of = {entity: ", ".join(sorted(spelled[one] for one in tied)) for entity, tied in together.items()}
    return [SEPARATOR.join(sorted({name_of[key(name)] for name in group.split(SEPARATOR)})) for group in groups]


def sides(
    groups: Sequence[str] | NDArray, test_fraction: float, seed: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Hold out entities: a row is tested if all its entities are held out, trained on if none is, else left out.

    Parameters
    ----------
    groups : the entities of each row, between separators; equal names are one entity, also across sets
    test_fraction : share of the entities to hold out
    seed : of the choice, which does not depend on the order of rows

    Returns
    -------
    two bool ndarrays of shape (row,), true for training and for test rows; where each row has one entity, every row is
    in one of them

    Raises
    ------
    StudyError
        If there are fewer than two entities, or the fraction is not between 0 and 1.
    """
    if not 0 < test_fraction < 1:
        raise StudyError(f"probes: `test_fraction` is {test_fraction}; it must lie between 0 and 1")
    names = names_in(groups)
    if len(names) < 2:
        raise StudyError(f"probes: a split by entity needs two entities or more, found {len(names)}; add statements")
    n_test = min(max(round(test_fraction * len(names)), 1), len(names) - 1)
    return _parted(groups, np.random.default_rng(seed).choice(names, n_test, replace=False))


def folds(groups: Sequence[str] | NDArray, n: int, seed: int) -> list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """Hold out each entity once, in n parts of about equal size; rows follow as in `sides`.

    A compound row is tested where all its entities are held out together, and in no fold if they never are.
    """
    names = np.random.default_rng(seed).permutation(names_in(groups))
    return [_parted(groups, part) for part in np.array_split(names, n)]


def names_in(groups: Sequence[str] | NDArray) -> NDArray:
    """Return the names of all entities in alphabetical order."""
    return np.unique([name for kind in np.unique(np.asarray(groups, dtype=str)) for name in kind.split(SEPARATOR)])


def _parted(groups: Sequence[str] | NDArray, held_out: NDArray) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Say which rows have none of some entities, and which have no others."""
    kinds, number = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    entities, names = [kind.split(SEPARATOR) for kind in kinds.tolist()], set(held_out.tolist())
    train = np.array([names.isdisjoint(found) for found in entities])
    test = np.array([names.issuperset(found) for found in entities])
    return train[number], test[number]
