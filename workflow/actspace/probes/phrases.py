"""Phrases made from templates: every combination of some concepts, or one concept at every grade.

Source: Heimersheim's list of short project ideas, which asks both questions and gives "the soft green sofa".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import pandas as pd

TABLEAU = "tableau"
"""Stands for the ten basic colour words that matplotlib names after Tableau."""
PHRASE, GRADE, ADJECTIVE = "phrase", "grade", "adjective"


def fill(concept: Mapping[str, Any]) -> pd.DataFrame:
    """Make all phrases of one entry of `concepts`.

    Parameters
    ----------
    concept : of kind `unions` with `template` and `parts` (words by name, or `tableau`); or of kind `intensity` with
        `template`, `neutral`, `grades` (from weak to strong) and `adjectives`

    Returns
    -------
    DataFrame with the column phrase, and of unions one column per part; of intensities `adjective` and `grade`, 0 for the
    neutral phrase and else the place of the grade from 1 on
    """
    return _unions(concept) if concept["kind"] == "unions" else _intensities(concept)


def words_of(listed: Sequence[str] | str) -> list[str]:
    """Return the words of a part, which may be those of a package."""
    if listed == TABLEAU:
        from matplotlib.colors import TABLEAU_COLORS  # no job but this one needs matplotlib

        return [name.removeprefix("tab:") for name in TABLEAU_COLORS]
    return list(listed)


def _unions(concept: Mapping[str, Any]) -> pd.DataFrame:
    parts = {part: words_of(listed) for part, listed in concept["parts"].items()}
    table = pd.DataFrame(product(*parts.values()), columns=list(parts))
    return table.assign(**{PHRASE: [concept["template"].format(**row) for row in table.to_dict("records")]})


def _intensities(concept: Mapping[str, Any]) -> pd.DataFrame:
    rows = [
        (concept["neutral"].format(adjective=adjective), adjective, 0)
        if grade == 0
        else (concept["template"].format(grade=word, adjective=adjective), adjective, grade)
        for adjective in concept["adjectives"]
        for grade, word in enumerate(["", *concept["grades"]])
    ]
    return pd.DataFrame(rows, columns=[PHRASE, ADJECTIVE, GRADE])
