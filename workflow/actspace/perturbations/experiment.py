"""One perturbation experiment, from draws to tables: bases x directions x paths at the site of an engine.

Source: Heimersheim (2024), with the mixtures of Lee & Heimersheim (2024)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from actspace.models import to_gauge
from actspace.perturbations.bases import base_activations
from actspace.perturbations.curves import Sweep
from actspace.perturbations.directions import cosine_minus_deviation, directions, draw_targets
from actspace.perturbations.engine import Readout
from actspace.perturbations.local import local_linear
from actspace.perturbations.paths import Path, path_of
from actspace.perturbations.setting import Setting

ELEMENTS_PER_BATCH = {"cpu": 2**23, "cuda": 2**26}
"""Numbers in the perturbed vectors of one batch of prompts, at most: 64 MB of float64 on a CPU, 512 MB on a GPU."""
LABELS = ["experiment", "site", "weights", "base", "direction", "path"]


def n_curves(cfg: Mapping[str, Any]) -> int:
    """Count the curves of an experiment."""
    return cfg["n_prompts"] * cfg["draws"] * math.prod(len(cfg[axis]) for axis in ("bases", "directions", "paths"))


def run_experiment(
    setting: Setting,
    cfg: Mapping[str, Any],
    seed: int,
    progress: Callable[[int], None] = lambda _curves: None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Perturb the first prompts' activations from every base, into every family of directions, along every path.

    The same draws serve all bases, families and paths of a prompt; they depend on the seed and its number alone.

    Parameters
    ----------
    cfg : mapping
        `experiment` and `weights` (labels); `bases`, `directions`, `paths` (lists of names); `n_prompts`; `draws`
        (directions per prompt and family); `steps` (positions on a path, with both ends); `length` (end of the absolute
        path, None for twice the typical distance of two activations); `thresholds_nats` (list).
    seed : int
        Of this experiment. Two experiments with one seed share their draws prompt by prompt.
    progress : callable
        Told how many curves are done.

    Returns
    -------
    curves : DataFrame
        One row per position: experiment, site, weights, base, direction, path, read_hook, prompt, draw, step, position
        (the path's own: degrees, base norms, units of the activations, or fraction of the way), angle_deg, distance,
        relative_distance, kl_base_pert_nats, js_nats (NaN unless measured), top_token_changed, l2_late, cosine_late,
        local_sqrt_2kl, local_l2 (what the local metric at the base predicts there).
    thresholds : DataFrame
        One row per curve and threshold: experiment, site, weights, base, direction, path, prompt, draw, threshold_nats, crossing,
        end, cosine_minus_deviation. Crossing and end are positions on the path; a crossing is +inf where the curve
        stays under the threshold.

    Raises
    ------
    StudyError
        If there are too few prompts or documents, a grid is too coarse, or a direction has no path.
    """
    engine = setting.engine
    paths = [path_of(name, cfg["length"] or 2 * setting.activations.typical_distance) for name in cfg["paths"]]
    for path in paths:
        path.grid(cfg["steps"])
    per_prompt = len(cfg["directions"]) * cfg["draws"] * cfg["steps"] * engine.model.d_model
    batch = max(1, ELEMENTS_PER_BATCH.get(engine.model.device.type, ELEMENTS_PER_BATCH["cpu"]) // per_prompt)
    curves, thresholds = [], []
    for numbers in setting.activations.batches(cfg["n_prompts"], batch):
        for base, sweep in _sweeps(setting, cfg, paths, numbers, seed):
            labels = {"experiment": cfg["experiment"], "weights": cfg["weights"], "base": base, "path": sweep.path.name}
            rows = _rows(cfg["directions"], numbers, cfg["draws"]).assign(**labels, site=engine.site)
            readout = sweep.along_grid()
            curves.append(_curve_table(rows, sweep, readout))
            for threshold in cfg["thresholds_nats"]:
                crossings = sweep.first_crossings(readout.kl_base_pert_nats, threshold)
                thresholds.append(_threshold_table(rows, sweep, crossings, threshold, setting.activations.mean))
            progress(len(rows))
    return _joined(curves), _joined(thresholds)


def _sweeps(
    setting: Setting, cfg: Mapping[str, Any], paths: Sequence[Path], numbers: NDArray, seed: int
) -> Iterator[tuple[str, Sweep]]:
    """Yield one sweep per base and path for some prompts; all families stand side by side on its row axis."""
    engine, known = setting.engine, setting.activations
    gauge, device, first = engine.gauge, engine.model.device, int(numbers[0])
    documents = known.documents[numbers]
    targets = draw_targets(known.pool, known.gaussian, documents, cfg["draws"], gauge, seed, first, setting.fitted)
    prompts = engine.prepare(known.token_ids[torch.from_numpy(numbers)])
    for name in cfg["bases"]:
        drawn = base_activations(
            name, known.real[numbers], known.gaussian, known.mean_norm, gauge, seed, first, setting.fitted
        )
        bases = to_gauge(torch.from_numpy(drawn), gauge)
        families = [to_gauge(directions(family, targets, bases), gauge) for family in cfg["directions"]]
        bases, stacked = bases.to(device), torch.cat(families, 1).to(device)
        reference = engine.reference(prompts, bases)
        for path in paths:
            yield name, Sweep(engine, prompts, reference, bases, stacked, path, path.grid(cfg["steps"]).to(device))


def _rows(families: Sequence[str], numbers: NDArray, draws: int) -> pd.DataFrame:
    """Name the rows of a sweep, (prompt, family and draw) in this order."""
    index = pd.MultiIndex.from_product([numbers, families, range(draws)], names=["prompt", "direction", "draw"])
    return index.to_frame(index=False)


def _curve_table(rows: pd.DataFrame, sweep: Sweep, readout: Readout) -> pd.DataFrame:
    """Lay a sweep out, one row for each position of each curve."""
    angle, relative = sweep.path.coordinates(sweep.bases[:, None], sweep.directions, sweep.grid)
    local_sqrt_2kl, local_l2 = local_linear(sweep)
    steps = len(sweep.grid)
    values = {
        "position": sweep.grid.expand(angle.shape),
        "angle_deg": angle,
        "distance": relative * sweep.bases.norm(dim=-1)[:, None, None],
        "relative_distance": relative,
        **{field.name: getattr(readout, field.name) for field in fields(readout)},
        "local_sqrt_2kl": local_sqrt_2kl,
        "local_l2": local_l2,
    }
    table = rows.loc[rows.index.repeat(steps), [*LABELS, "prompt", "draw"]].reset_index(drop=True)
    table.insert(len(LABELS), "read_hook", sweep.engine.read_hook)
    table = table.assign(step=np.tile(np.arange(steps), len(rows)))
    return table.assign(**{name: value.cpu().numpy().ravel() for name, value in values.items()})


def _threshold_table(
    rows: pd.DataFrame, sweep: Sweep, crossings: Tensor, threshold_nats: float, mean: NDArray
) -> pd.DataFrame:
    """Lay crossings out, one row for each curve."""
    cosine = cosine_minus_deviation(sweep.path, sweep.bases, sweep.directions, mean)
    return rows[[*LABELS, "prompt", "draw"]].assign(
        threshold_nats=threshold_nats,
        crossing=crossings.cpu().numpy().ravel(),
        end=sweep.path.end,
        cosine_minus_deviation=cosine.cpu().numpy().ravel(),
    )


def _joined(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Put tables under each other; labels become categories, or millions of rows would each hold six strings."""
    table = pd.concat(tables, ignore_index=True)
    return table.astype({name: "category" for name in (*LABELS, "read_hook") if name in table})
