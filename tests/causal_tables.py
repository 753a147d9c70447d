"""Made-up answers of a model to which directions were added, for the tests of claims, report and statistics."""

from __future__ import annotations

import numpy as np
import pandas as pd

from actspace.probes.causal_statistics import summarise

SITE, LATE = "blocks.9.hook_resid_post", "blocks.20.hook_resid_post"
FORCE = {"mass_mean": 0.3, "logistic_regression": 0.12}
NORM = {"mass_mean": 2.0, "logistic_regression": 1.5}


def runs(
    n_entities: int = 12,
    draws: int = 50,
    knows: float = 0.4,
    random: float = 0.03,
    sites: tuple[str, ...] = (SITE, LATE),
) -> pd.DataFrame:
    """Make answers: undisturbed true statements have P(true) - P(false) = knows / 2, give or take; v moves it by its force."""
    rng = np.random.default_rng(0)
    rows = []
    for site in sites:
        forces = [(probe, "probe", 0, FORCE[probe]) for probe in FORCE]
        forces += [
            (probe, "random", d, random * force) for probe in FORCE for d, force in enumerate(rng.normal(size=draws))
        ]
        for row in range(2 * n_entities):
            label = row % 2
            base = (label - 0.5) * knows + 0.02 * rng.normal()
            statement = {"experiment": "truth", "site": site, "row": row, "label": label, "set": "cities"}
            statement |= {"group": f"entity {row // 2}"}
            added = [("none", "none", 0, 0, base)]
            added += [(p, kind, d, sign, base + sign * force) for p, kind, d, force in forces for sign in (1, -1)]
            rows += [
                statement | {"probe": p, "direction": kind, "draw": d, "sign": sign, "norm": NORM.get(p, 0.0) * (sign != 0)}
                | {"p_true": 0.45 + x / 2, "p_false": 0.45 - x / 2}
                for p, kind, d, sign, x in added
            ]  # fmt: skip
    return pd.DataFrame(rows)


def causal_effects(**settings: object) -> pd.DataFrame:
    return summarise(runs(**settings), seed=0, n_boot=200)
