"""Regions of activation space: walk from one activation to another, and see where the output goes over.

The outputs of undisturbed prompts are clustered, and every step of every path belongs to the region of its nearest
centre. If regions are plateaus, the output moves fast where a path goes from one region to the next, and hardly
anywhere else.

Sources: Janiak et al. (2024) for the interpolation and the normalised derivative; Shinkle (2025) for the relative
distance; clusters of outputs are an idea of Heimersheim's list of projects (LessWrong, 2024), and the statistics at
changes of region are ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from actspace.dictionaries import kmeans
from actspace.dictionaries.base import Dictionary
from actspace.errors import StudyError
from actspace.perturbations.engine import Engine
from actspace.perturbations.experiment import ELEMENTS_PER_BATCH
from actspace.perturbations.setting import Setting
from actspace.seeds import rng_for, seed_for

TOLERANCE, MOST_ITERATIONS = 1e-6, 300
LABELS = ["experiment", "site", "weights"]


@dataclass(frozen=True)
class Walks:
    """Paths from some base prompts to others, (prompt, pair) of them."""

    numbers: NDArray[np.int64]
    """(prompt,): the bases"""
    others: NDArray[np.int64]
    """(prompt, pair): the prompts whose activations the paths end at"""
    vectors: Tensor
    """(prompt, pair, step, d_model), float64, on the CPU"""


def draw_others(real: NDArray, documents: NDArray, pairs: int, seed: int) -> NDArray[np.int64]:
    """Draw for each prompt the others to walk to: of other documents, with other activations, none twice.

    Parameters
    ----------
    real : array of shape (prompt, d_model)
    documents : array of shape (prompt,)

    Returns
    -------
    int64 array of shape (prompt, pair)

    Raises
    ------
    StudyError
        If a prompt has fewer such others than `pairs`.
    """
    drawn = np.empty((len(real), pairs), np.int64)
    for number, (activation, document) in enumerate(zip(real, documents, strict=True)):
        others = np.flatnonzero((documents != document) & (real != activation).any(1))
        if len(others) < pairs:
            raise StudyError(
                f"regions: prompt {number} has {len(others)} prompts of other documents with another activation at this "
                f"site; lower `pairs` from {pairs}, or raise `prompts`"
            )
        drawn[number] = rng_for(seed, "regions", "others", number).choice(others, pairs, replace=False)
    return drawn


def cluster_outputs(late: NDArray, n_clusters: int, seed: int) -> Dictionary:
    """Cluster the outputs of undisturbed prompts, (prompt, d_model): the best k-means of ten."""
    fits = [
        kmeans.fit(late, n_clusters, seed_for(seed, "regions", "clusters", start), TOLERANCE, MOST_ITERATIONS)
        for start in range(10)
    ]
    return min(fits, key=lambda found: found.inertia).dictionary


def run_regions(
    setting: Setting,
    cfg: Mapping[str, Any],
    seed: int,
    cells: Dictionary | None = None,
    progress: Callable[[int], None] = lambda _paths: None,
) -> pd.DataFrame:
    """Walk from the activation of each prompt to those of others, in the prompt's own context.

    Parameters
    ----------
    cfg : mapping
        `experiment` and `weights` (labels); `n_prompts` (the first ones; their outputs are clustered); `pairs` (others
        per prompt); `steps` (points on a path, with both ends); `clusters` (regions).
    seed : int
        Of this study's regions: the same at every site, so that paths of all sites join the same prompts.
    cells : Dictionary or None
        A k-means dictionary of the site, whose cells the points of the paths are assigned to.
    progress : callable
        Told how many paths are done.

    Returns
    -------
    DataFrame
        experiment, site, weights, read_hook, prompt, other, step, fraction, l2_from_base (in the units of the late
        residual), relative_distance (from the base's output, over the sum of distances from the outputs at both ends),
        slope (of l2_from_base over its value at the end, per fraction of the path; NaN at step 0), speed (the same for
        the length of the output's trajectory: never negative), region, changed (against the step before), cell and
        cell_changed (NA without `cells`).

    Raises
    ------
    StudyError
        If there are too few prompts or others, or two ends of a path give the same output.
    """
    engine, known, n = setting.engine, setting.activations, cfg["n_prompts"]
    (numbers,) = known.batches(n, n)
    token_ids, real = known.token_ids[numbers], known.real[numbers]
    others = draw_others(real, known.documents[numbers], cfg["pairs"], seed)
    regions = cluster_outputs(undisturbed(engine, token_ids, real), cfg["clusters"], seed)
    tables = []
    for walks in _batches(setting, others, cfg["steps"]):
        prompts = engine.prepare(token_ids[torch.from_numpy(walks.numbers)])
        late = engine.outputs(prompts, walks.vectors.flatten(1, 2)).cpu().reshape(walks.vectors.shape)
        tables.append(_table(walks, late, regions, cells))
        progress(walks.others.size)
    labels = {"experiment": cfg["experiment"], "site": engine.site, "weights": cfg["weights"]}
    table = pd.concat(tables, ignore_index=True).assign(**labels, read_hook=engine.read_hook)
    table = table[[*LABELS, "read_hook", *(name for name in table if name not in (*LABELS, "read_hook"))]]
    return table.astype(dict.fromkeys([*LABELS, "read_hook"], "category"))


def undisturbed(engine: Engine, token_ids: Tensor, real: NDArray) -> NDArray[np.float64]:
    """Return what the read-out hook sees of prompts as they are, (prompt, d_model)."""
    bases = torch.from_numpy(real)[:, None]
    ids, vectors = token_ids.split(engine.rows_per_launch), bases.split(engine.rows_per_launch)
    parts = [engine.outputs(engine.prepare(some), x)[:, 0].cpu() for some, x in zip(ids, vectors, strict=True)]
    return torch.cat(parts).numpy()


def _batches(setting: Setting, others: NDArray, steps: int) -> Iterator[Walks]:
    """Yield the paths of as many prompts at a time as memory is meant for."""
    real, fractions = setting.activations.real, torch.linspace(0, 1, steps, dtype=torch.float64)
    budget = ELEMENTS_PER_BATCH.get(setting.engine.model.device.type, ELEMENTS_PER_BATCH["cpu"])
    batch = max(1, budget // (others.shape[1] * steps * real.shape[1]))
    for numbers in setting.activations.batches(len(others), batch):
        start, end = torch.from_numpy(real[numbers])[:, None], torch.from_numpy(real[others[numbers]])
        # lerp, because it is exact at both ends: the path ends at the other activation itself.
        yield Walks(numbers, others[numbers], torch.lerp(start[:, :, None], end[:, :, None], fractions[:, None]))


def _table(walks: Walks, late: Tensor, regions: Dictionary, cells: Dictionary | None) -> pd.DataFrame:
    """Lay paths and their outputs, both (prompt, pair, step, d_model), out in one row for each step."""
    prompts, pairs, steps, _ = late.shape
    index = [np.repeat(walks.numbers, pairs * steps), np.repeat(walks.others.ravel(), steps)]
    region = _assigned(regions, late)
    cell = None if cells is None else _assigned(cells, walks.vectors)
    values = output_curves(late) | {"region": region, "changed": _changed(region)}
    missing = np.full(region.shape, pd.NA)
    values |= {"cell": missing if cell is None else cell, "cell_changed": missing if cell is None else _changed(cell)}
    table = pd.DataFrame({"prompt": index[0], "other": index[1], "step": np.tile(np.arange(steps), prompts * pairs)})
    table["fraction"] = np.tile(np.linspace(0, 1, steps), prompts * pairs)
    table = table.assign(**{name: value.ravel() for name, value in values.items()})
    return table.astype({"cell": "Int64", "cell_changed": "boolean"})


def output_curves(late: Tensor) -> dict[str, NDArray[np.float64]]:
    """Describe how the output moves along evenly spaced paths.

    Parameters
    ----------
    late : float64 Tensor of shape (..., step, d_model)

    Returns
    -------
    dict of float64 arrays of shape (..., step)
        l2_from_base, relative_distance, slope and speed, as in `run_regions`. The mean slope of a path is 1.

    Raises
    ------
    StudyError
        If the ends of a path give the same output.
    """
    from_base, from_end = ((late - end).norm(dim=-1) for end in (late[..., :1, :], late[..., -1:, :]))
    apart = from_base[..., -1:]
    if (apart == 0).any():
        raise StudyError("regions: the two ends of a path give the same output; is `read` after every `site`?")
    rate = (late.shape[-2] - 1) / apart
    unknown = torch.full_like(apart, torch.nan)
    curves = {
        "l2_from_base": from_base,
        "relative_distance": from_base / (from_base + from_end),
        "slope": torch.cat([unknown, from_base.diff(dim=-1) * rate], -1),
        "speed": torch.cat([unknown, late.diff(dim=-2).norm(dim=-1) * rate], -1),
    }
    return {name: value.numpy() for name, value in curves.items()}


def _assigned(dictionary: Dictionary, x: Tensor) -> NDArray[np.int64]:
    """Return the number of the centroid nearest to each vector (..., d_model), of shape (...)."""
    return dictionary.encode(x.reshape(-1, x.shape[-1])).indices.reshape(x.shape[:-1]).numpy()


def _changed(region: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Say where the region differs from that of the step before, (..., step); never at step 0."""
    return np.concatenate([np.zeros_like(region[..., :1], bool), np.diff(region, axis=-1) != 0], -1)
