"""What experiments that perturb have in common: the engine at a site, prompts with their activations, and real activations to draw from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from actspace import models, shards, tokens
from actspace.activations import moments, store
from actspace.activations.moments import Sums
from actspace.errors import StudyError
from actspace.perturbations import fitted
from actspace.perturbations.bases import NOTHING_FITTED, Gaussian, fit_gaussian
from actspace.perturbations.directions import Pool
from actspace.perturbations.engine import Engine
from actspace.perturbations.families import CLUSTERS, DICTIONARY, PROBE
from actspace.perturbations.fitted import Fitted


@dataclass(frozen=True)
class Activations:
    """Prompts, their activations at the site, and others like them; float64, all in the engine's gauge."""

    token_ids: Tensor
    """(prompt, token), int: prompts of one length; the last position is perturbed."""
    documents: NDArray
    """(prompt,): the document that each prompt comes from."""
    real: NDArray
    """(prompt, d_model): activation at the site, at the last position of each prompt."""
    pool: Pool
    """Real activations to draw targets from, at the same position."""

    def batches(self, n_prompts: int, size: int) -> Iterator[NDArray]:
        """Yield the numbers of the first prompts, `size` at a time.

        Raises
        ------
        StudyError
            If there are fewer than `n_prompts`.
        """
        if (available := len(self.token_ids)) < n_prompts:
            raise StudyError(f"prompts: {n_prompts} asked for and {available} at hand; lower it or use more text")
        for first in range(0, n_prompts, size):
            yield np.arange(first, min(first + size, n_prompts))

    @cached_property
    def moments(self) -> Sums:
        """Mean and scatter of the pool."""
        return Sums.of(torch.from_numpy(self.pool.activations))

    @property
    def mean(self) -> NDArray:
        """Mean of the pool, (d_model,)."""
        return self.moments.mean.numpy()

    @cached_property
    def gaussian(self) -> Gaussian:
        """The normal distribution with the pool's mean and covariance."""
        return fit_gaussian(self.mean, (self.moments.scatter / self.moments.count).numpy())

    @cached_property
    def mean_norm(self) -> float:
        """Mean L2 norm of the pool."""
        return float(np.linalg.norm(self.pool.activations, axis=1).mean())

    @property
    def typical_distance(self) -> float:
        """Root mean square distance of two rows of the pool: sqrt(2 tr Sigma)."""
        return float((2 * self.moments.scatter.trace() / self.moments.count).sqrt())


@dataclass(frozen=True)
class Setting:
    """An engine at one site, and what it perturbs."""

    engine: Engine
    activations: Activations
    fitted: Fitted = NOTHING_FITTED
    """Dictionaries and probes, for bases and directions that are made from them."""


def load(inputs: Any, cfg: Mapping[str, Any], device: str) -> Setting:
    """Load the model and the activations of an experiment at one site.

    Parameters
    ----------
    inputs : named inputs of the job
        `weights` (only of a converted model); `tokens` and `bases`, the held-out sequences and their activations at the
        site; `pool`, the training activations at the site: lists of files. `moments` of the capture there, which say from
        what norm on rows are left out of the pool. For experiments that use them, `dictionary`, `clusters` and `probe`:
        lists whose first file is the one to read.
    cfg : mapping
        `model`, `site`, `read`, `position` ("last" or a number), `n_prompts` (at most; whoever uses them asks for as many
        as it needs), `rows_per_launch`, `jensen_shannon`.

    Raises
    ------
    StudyError
        If a file or the model cannot be used.
    """
    settings = cfg["model"]
    folder = models.locate(settings["source"], inputs.get("weights"), settings["trust_remote_code"])
    model = models.load(folder, settings, device)
    engine = Engine(
        model,
        cfg["site"],
        cfg["read"],
        settings["gauge"],
        cfg["rows_per_launch"],
        jensen_shannon=cfg.get("jensen_shannon", False),
    )
    numbers, prompts = tokens.chosen(shards.expand(inputs.tokens), cfg["n_prompts"])
    token_ids = np.stack(prompts["token_ids"].to_numpy())
    position = token_ids.shape[1] - 1 if cfg["position"] == "last" else cfg["position"]
    # Rows of one position stand in the order of the sequences, so one choice serves tokens and activations.
    bases = store.Activations(inputs.bases, positions=[position]).pick(numbers)
    pool = store.read_some(inputs.pool, positions=[position], max_norm=moments.load(inputs.moments).max_norm)
    activations = Activations(
        token_ids=torch.from_numpy(token_ids[:, : position + 1]),
        documents=bases.column("document_id"),
        real=bases.x.double().numpy(),
        pool=Pool(pool.x.double().numpy(), pool.column("document_id")),
    )
    fits = {key: inputs.get(key)[0] for key in (DICTIONARY, CLUSTERS, PROBE) if inputs.get(key)}
    known = fitted.load(cfg["site"], activations.pool.activations, **fits, device=model.device)
    return Setting(engine, activations, known)
