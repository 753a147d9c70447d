"""Where sweeps from real activations start: prompts in batches, each with its base, its reference and its draws.

Sensitivity optima and planes share this; experiments with other bases and paths have their own loop in `experiment`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from actspace.errors import StudyError
from actspace.models import to_gauge
from actspace.perturbations.bases import Gaussian, fit_gaussian
from actspace.perturbations.curves import Sweep
from actspace.perturbations.directions import Pool, Targets, draw_targets
from actspace.perturbations.engine import Engine, Prompts, Reference
from actspace.perturbations.experiment import Activations
from actspace.perturbations.paths import PATHS

SPHERE = PATHS["sphere"]


@dataclass(frozen=True)
class Start:
    """Some prompts whose real activations are perturbed."""

    engine: Engine
    numbers: NDArray
    """(prompt,): the prompts' numbers, on which their draws depend."""
    prompts: Prompts
    reference: Reference
    bases: Tensor
    """(prompt, d_model), float64, on the CPU, in the engine's gauge"""
    targets: Targets
    gaussian: Gaussian

    def crossings(self, directions: Tensor, steps: int, threshold_nats: float) -> Tensor:
        """Find the angles at which directions first cross a threshold on the sphere.

        Parameters
        ----------
        directions : float64 Tensor of shape (prompt, ..., d_model)
        steps : int
            Positions on the path from 0 to 180 degrees, with both ends.

        Returns
        -------
        float64 Tensor of shape (prompt, ...), on the CPU, in degrees; +inf where the threshold is not crossed
        """
        device = self.engine.model.device
        rows = to_gauge(directions, self.engine.gauge).flatten(1, -2).to(device)
        grid = SPHERE.grid(steps).to(device)
        sweep = Sweep(self.engine, self.prompts, self.reference, self.bases.to(device), rows, SPHERE, grid)
        return sweep.crossings_alone(threshold_nats).cpu().reshape(directions.shape[:-1])


def starts(
    engine: Engine, activations: Activations, n_prompts: int, draws: int, seed: int, rows: int
) -> Iterator[Start]:
    """Prepare the first prompts, as many together as fill a launch.

    Parameters
    ----------
    draws : int
        Targets to draw for each prompt. They depend on the seed and the prompt's number, not on the batch.
    rows : int
        Perturbed vectors of one prompt that will run at once.

    Raises
    ------
    StudyError
        If there are too few prompts, or too few documents to draw targets from.
    """
    if (available := len(activations.token_ids)) < n_prompts:
        raise StudyError(f"prompts: {n_prompts} asked for and {available} at hand; lower it or use more text")
    gaussian = fit_gaussian(activations.mean, activations.covariance)
    pool = Pool(np.asarray(activations.pool, np.float64), activations.pool_documents)
    together = max(1, engine.rows_per_launch // rows)
    for first in range(0, n_prompts, together):
        numbers = np.arange(first, min(first + together, n_prompts))
        prompts = engine.prepare(activations.token_ids[torch.from_numpy(numbers)])
        bases = to_gauge(torch.from_numpy(np.asarray(activations.real[numbers], np.float64)), engine.gauge)
        targets = draw_targets(pool, gaussian, activations.documents[numbers], draws, engine.gauge, seed, first)
        reference = engine.reference(prompts, bases.to(engine.model.device))
        yield Start(engine, numbers, prompts, reference, bases, targets, gaussian)
