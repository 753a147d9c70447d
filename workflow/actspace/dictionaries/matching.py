"""Do two dictionaries hold the same directions, and does a latent of the small one split into several of the large?

Each latent of the one is matched with the latent of the other whose decoder row has the largest cosine with its own. How
large that is by chance is told by as many random directions in place of the other's. Dead latents count.
Source: mean of maximal cosines, Sharkey et al. (2022); splitting, Bricken et al. (2023)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor
from torch.nn.functional import normalize

from actspace.dictionaries.base import PCA, SAE, Dictionary
from actspace.dictionaries.composites import composites
from actspace.dictionaries.description import decoder_rows
from actspace.dictionaries.metrics import nothing_active
from actspace.dictionaries.pairs import pairs
from actspace.seeds import rng_for

ALIKE = 0.7  # cosine from which a match counts
COSINES_AT_ONCE = 2**26


def directions(dictionary: Dictionary) -> Tensor:
    """Return what each latent adds to the reconstruction, at unit length; float32 of shape (latent, d_model).

    Of a centroid that holds the mean activation (nothing else adds it) it is the deviation from the mean of the
    centroids. A row of zeros stays one.
    """
    rows = decoder_rows(dictionary)
    around_zero = isinstance(dictionary, SAE | PCA) or bool(nothing_active(dictionary).any())
    rows = rows if around_zero else rows - rows.mean(0)
    return normalize(rows, dim=1).float()


def best_matches(rows: Tensor, others: Tensor, either_sign: bool = False) -> tuple[Tensor, Tensor]:
    """Find for each unit row (latent, d_model) the other row with the largest cosine: cosine and number, (latent,)."""
    found = []
    for some in rows.split(max(1, COSINES_AT_ONCE // len(others))):
        cosines = some @ others.T
        found.append((cosines.abs() if either_sign else cosines).max(1))
    return torch.cat([best.values for best in found]), torch.cat([best.indices for best in found])


def match(rows: Tensor, others: Tensor, null: Tensor, either_sign: bool = False) -> dict[str, float]:
    """Match unit rows (latent, d_model) with others.

    Parameters
    ----------
    null : Tensor of the shape of `others`
        Random directions.

    Returns
    -------
    `mean_best_cosine` and `share_above_0_7` of the best matches, both again with `random_` for the null;
    `excess_cosine`, by how much the best cosine exceeds that with the null in the mean, and the 95% t-interval of that
    mean over latents, `excess_cosine_low` and `excess_cosine_high` (NaN for a single latent); and for the other's
    latents that have their best match here at a cosine above 0.7: how many there are of each row in the mean
    (`mean_children`) and at most (`max_children`), and the share of rows that have two or more (`share_split`)
    """
    found: dict[str, float] = {}
    best = {prefix: best_matches(rows, some, either_sign)[0] for prefix, some in (("", others), ("random_", null))}
    for prefix, cosine in best.items():
        found[f"{prefix}mean_best_cosine"] = float(cosine.mean())
        found[f"{prefix}share_above_0_7"] = float((cosine > ALIKE).double().mean())
    found |= mean_with_interval("excess_cosine", best[""] - best["random_"])
    cosine, parent = best_matches(others, rows, either_sign)
    children = torch.bincount(parent[cosine > ALIKE], minlength=len(rows)).double()
    counts = {
        "mean_children": children.mean(),
        "max_children": children.max(),
        "share_split": (children > 1).double().mean(),
    }
    return found | {name: float(value) for name, value in counts.items()}


def mean_with_interval(name: str, values: Tensor) -> dict[str, float]:
    """Return the mean of values (latent,) and the ends of its 95% t-interval, as `name`, `name_low` and `name_high`."""
    values = values.double()
    mean, n = float(values.mean()), len(values)
    half = float(stats.t.ppf(0.975, n - 1) * values.std() / n**0.5) if n > 1 else np.nan
    return {name: mean, f"{name}_low": mean - half, f"{name}_high": mean + half}


def split(rows: Tensor, others: Tensor, rng: np.random.Generator) -> dict[str, float]:
    """Rebuild the latents of a larger dictionary from those of a smaller one, as `composites` does.

    Parameters
    ----------
    rows, others : Tensor of shape (latent, d_model)
        Unit rows of the smaller and of the larger dictionary.

    Returns
    -------
    The numbers of `composites` with `children_` before each for latents with a best match above 0.7 in the smaller
    dictionary, with `novel_` for all others, and `n_children` and `n_novel`; rows of zeros count as neither
    """
    others = others[others.norm(dim=1) > 0]
    cosine, parent = best_matches(others, rows)
    found: dict[str, float] = {}
    for kind, chosen in (("children", cosine > ALIKE), ("novel", cosine <= ALIKE)):
        left = composites(others[chosen], rows[parent[chosen]], rows, rng)
        found |= {f"n_{kind}": int(chosen.sum())} | {f"{kind}_{name}": share for name, share in left.items()}
    return found


def match_all(fits: Mapping[str, Dictionary], labels: Mapping[str, Any], seed: int) -> pd.DataFrame:
    """Match all pairs of fits to the same data that `pairs` lists.

    Parameters
    ----------
    fits : dictionaries by the name of the fit
    labels : `capture`, `hook` and `data`

    Returns
    -------
    DataFrame
        capture, hook, data, fit, other, relation, family, other_family, n_latents, n_other and the columns of `match`;
        for pairs that differ in size, the smaller first, also those of `split`
    """
    rows = {name: directions(dictionary) for name, dictionary in fits.items()}
    found = []
    for name, other, relation in pairs(fits):
        shape, rng = rows[other].shape, rng_for(seed, "random directions", name, other)
        null = normalize(torch.from_numpy(rng.standard_normal(shape)).float(), dim=1)
        larger = relation == "size" and len(rows[other]) > len(rows[name])
        either_sign = isinstance(fits[name], PCA) or isinstance(fits[other], PCA)
        found.append(
            {
                **labels,
                **{"fit": name, "other": other, "relation": relation},
                **{"family": fits[name].family, "other_family": fits[other].family},
                **{"n_latents": fits[name].n_latents, "n_other": fits[other].n_latents},
                **match(rows[name], rows[other], null, either_sign),
                **(split(rows[name], rows[other], rng) if larger else {}),
            }
        )
    return pd.DataFrame(found)
