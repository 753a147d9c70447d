"""Where sweeps from real activations start: prompts in batches, each with its base, its reference and its draws.

Sensitivity optima and planes share this; experiments with other bases and paths have their own loop in `experiment`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from numpy.typing import NDArray
from torch import Tensor

from actspace.models import to_gauge
from actspace.perturbations.curves import Sweep
from actspace.perturbations.directions import Targets, draw_targets
from actspace.perturbations.engine import Engine, Prompts, Reference
from actspace.perturbations.paths import PATHS
from actspace.perturbations.setting import Setting

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


def starts(setting: Setting, n_prompts: int, draws: int, seed: int, rows: int) -> Iterator[Start]:
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
    engine, known = setting.engine, setting.activations
    for numbers in known.batches(n_prompts, max(1, engine.rows_per_launch // rows)):
        prompts = engine.prepare(known.token_ids[torch.from_numpy(numbers)])
        bases = to_gauge(torch.from_numpy(known.real[numbers]), engine.gauge)
        documents = known.documents[numbers]
        targets = draw_targets(known.pool, known.gaussian, documents, draws, engine.gauge, seed, int(numbers[0]))
        yield Start(engine, numbers, prompts, engine.reference(prompts, bases.to(engine.model.device)), bases, targets)
