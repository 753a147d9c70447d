"""Made-up tables of sensitivity optima and planes, whose answers are known."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd

from actspace.perturbations.optima import barycentric
from actspace.perturbations.optima_statistics import CORNERS, KINDS, WEIGHTS, optima_statistics
from actspace.perturbations.plane_statistics import CORNERS as ACTIVATIONS
from actspace.perturbations.plane_statistics import plane_statistics

SETTING = {"site": "blocks.1.hook_resid_pre", "weights": "trained"}
N_PROMPTS = 6


def triangle_rows() -> pd.DataFrame:
    """Make triangles whose first corner is real, and crosses at 30 degrees, or random, at 50; centres never do."""
    points = pd.DataFrame(barycentric(3).numpy(), columns=WEIGHTS)
    parts = []
    for kind, corners, prompt in itertools.product(KINDS, CORNERS, range(N_PROMPTS)):
        first = 30 if corners == "real_and_two_random" else 50
        crossing = 40 + (first - 40) * points["weight_a"] + prompt
        crossing[(points > 0).all(axis=1)] = np.inf
        labels = {"kind": kind, "corners": corners, "prompt": prompt, "draw": 0, "threshold_nats": 0.5}
        parts.append(points.assign(**labels, crossing_deg=crossing, cosine_minus_deviation=0.3))
    return pd.concat(parts, ignore_index=True).assign(experiment="sensitivity_optima", **SETTING)


def subspace_rows() -> pd.DataFrame:
    """Make subspaces in which a step wins from four dimensions on."""
    rows = [
        (kind, family, prompt, dimension, 30.0, 25.0 if dimension >= 4 else 35.0)
        for kind, families in KINDS.items()
        for family, prompt, dimension in itertools.product(families, range(N_PROMPTS), (1, 2, 4))
    ]
    keys = ["kind", "direction", "prompt", "dimension", "crossing_at_direction_deg", "crossing_after_step_deg"]
    table = pd.DataFrame(rows, columns=keys).assign(experiment="sensitivity_optima", draw=0, threshold_nats=0.5)
    return table.assign(**SETTING)


def plane_rows() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Make planes with stairs around three activations."""
    setting = {"experiment": "three_activations", **SETTING, "read_hook": "ln_final.hook_normalized"}
    x, y = (part.ravel() for part in np.meshgrid(np.linspace(-2, 6, 33), np.linspace(-1.5, 4.5, 33)))
    places = np.array([(0.0, 0.0), (4.0, 0.0), (2.0, 3.0)])
    away = np.hypot(x[:, None] - places[:, 0], y[:, None] - places[:, 1]).min(1)
    height = np.clip(away, 0.9, 1.8) - 0.9
    grid = pd.DataFrame({"x": x, "y": y, "kl_base_pert_nats": height, "l2_late": 10 * height})
    corners = pd.DataFrame(places, columns=["x", "y"]).assign(corner=ACTIVATIONS, kl_base_pert_nats=0.0, l2_late=0.0)
    high = grid.assign(kl_base_pert_nats=height**2)
    return (
        pd.concat([part.assign(prompt=i) for i, part in enumerate((grid, high, grid))]).assign(**setting),
        pd.concat([corners.assign(prompt=i) for i in range(3)]).assign(**setting),
    )


def optima_tables() -> dict[str, pd.DataFrame]:
    """Make the tables of a study with one search for optima and one experiment with planes."""
    planes, corners = plane_rows()
    made = {"triangles": triangle_rows(), "subspaces": subspace_rows(), "planes": planes, "plane_corners": corners}
    made["optima_statistics"] = optima_statistics(made["triangles"], made["subspaces"], seed=0, n_boot=50)
    return made | {"plane_statistics": plane_statistics(planes, corners, seed=0, n_boot=50)}
