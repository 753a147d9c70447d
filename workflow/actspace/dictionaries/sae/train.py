"""Train a sparse autoencoder: one loop for every architecture, on rows in memory or streamed from the cache.

Source: methods reference, 1.3; learning rate, AuxK and the geometric median as in Gao et al. (2024)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from actspace.activations.store import Activations
from actspace.dictionaries.base import SAE
from actspace.dictionaries.sae import checkpoint as checkpoints
from actspace.dictionaries.sae.architectures import (
    Step,
    TrainingBatchTopK,
    TrainingJumpReLU,
    TrainingL1,
    TrainingMatryoshka,
    TrainingSAE,
    TrainingTopK,
)
from actspace.dictionaries.sae.checkpoint import Checkpoint
from actspace.dictionaries.sae.rows import InMemory, Scaling, Streamed, endless, median_of_sample, scaling
from actspace.errors import StudyError
from actspace.seeds import seed_for

ARCHITECTURES = ("topk", "batch_topk", "matryoshka", "jumprelu", "l1")
PREFIXES = (1 / 32, 3 / 32, 7 / 32, 15 / 32, 1.0)  # of the latents; groups as in dictionary_learning
HIGHEST_LEARNING_RATE = 1e-3
CALIBRATION_ROWS = 2**14  # at most, for the threshold of batch methods: L0 to 1%, even if it varied by its size


@dataclass(frozen=True)
class Settings:
    """Settings of one training run. What is None follows the published rule in its comment."""

    architecture: str  # one of ARCHITECTURES
    n_latents: int
    vectors: int  # trained on in all, rounded up to whole batches; more than there are rows makes several epochs
    batch_size: int
    k: int = 0  # topk, batch_topk, matryoshka: active latents per row
    prefixes: tuple[float, ...] = (
        PREFIXES  # matryoshka: rising shares of the latents, each of which reconstructs; ends in 1
    )
    l0: float = 0.0  # jumprelu: wanted active latents per row
    l0_coefficient: float = 1.0  # jumprelu: weight of (L0 / l0 - 1)^2 against ||r||^2 / variance
    bandwidth: float = 0.05  # jumprelu: of the straight-through estimators, for activations of mean norm sqrt(d_model)
    l1_coefficient: float = 0.0  # l1: weight of sum f against ||r||^2, for activations of mean norm sqrt(d_model)
    learning_rate: float | None = None  # 2e-4 / sqrt(n_latents / 2**14), at most 1e-3
    warmup_fraction: float = 0.05  # of the steps, for the learning rate
    sparsity_warmup_fraction: float = 0.05  # of the steps, for a sparsity penalty
    decay_fraction: float = 0.2  # of the steps, at the end, in which the learning rate falls linearly to zero
    aux_coefficient: float = 1 / 32
    k_aux: int | None = None  # d_model / 2
    dead_after_vectors: int | None = None  # a tenth of `vectors`, at most 10 million
    curve_points: int = 100

    @property
    def steps(self) -> int:
        """Number of optimizer steps."""
        return math.ceil(self.vectors / self.batch_size)

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate between warm-up and decay."""
        return self.learning_rate or min(2e-4 / math.sqrt(self.n_latents / 2**14), HIGHEST_LEARNING_RATE)

    @property
    def dead_after(self) -> int:
        """Vectors after which a latent that did not fire counts as dead."""
        return self.dead_after_vectors or min(max(1, self.vectors // 10), 10_000_000)

    @property
    def widths(self) -> tuple[int, ...]:
        """Numbers of latents in the nested prefixes of a Matryoshka SAE."""
        return tuple(sorted({max(1, round(share * self.n_latents)) for share in self.prefixes}))

    def ramp(self, step: int, fraction: float) -> float:
        """Rise linearly to 1 over the first `fraction` of the steps."""
        return min(1.0, (step + 1) / max(1.0, fraction * self.steps))

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate of a step, from 0."""
        falling = min(1.0, (self.steps - step) / max(1.0, self.decay_fraction * self.steps))
        return self.peak_learning_rate * self.ramp(step, self.warmup_fraction) * falling


def train(
    data: Tensor | Activations,
    settings: dict[str, Any],
    seed: int,
    device: str | torch.device = "cpu",
    progress: Callable[[int], None] = lambda _vectors: None,
    checkpoint: Checkpoint | None = None,
) -> tuple[SAE, pd.DataFrame]:
    """Train a sparse autoencoder.

    Parameters
    ----------
    data : float Tensor of shape (row, d_model), or cached activations
        A Tensor stays where it is; cached activations are streamed, in bounded memory. Batches go to the device. Every
        epoch visits all rows, in an order of its own.
    settings
        The fields of `Settings`.
    seed
        Of the initial weights and of the order of the rows. On one CPU, the same seed gives the same weights.
    device
        Where to train.
    progress
        Told how many vectors each step has trained on.
    checkpoint
        Where to save the state of training, and to go on from if it is there; the weights are the same as without a
        break. The caller removes it.

    Returns
    -------
    dictionary
        On the CPU, for activations in the units of the data.
    curve : DataFrame with the columns step, vectors, loss, fvu_pooled, l0, fraction_dead
        About `curve_points` batches; `fvu_pooled` is definition A on that batch, `vectors` counts those seen so far.

    Raises
    ------
    StudyError
        If a setting is unknown, absent or impossible, rows are too few, all alike or not finite, or the loss diverges.
    """
    chosen = check_settings(settings)
    rows = Streamed(data) if isinstance(data, Activations) else InMemory(data)
    training = resumed(chosen, seed, device, checkpoint) if checkpoint else None
    if training is None:
        measured = scaling(rows)
        b_dec, sample = median_of_sample(rows, seed, measured.factor, device)
        training = Training(build(chosen, b_dec, measured.variance, seed), chosen, measured)
        training.model.start(sample)
    batches = endless(rows, training.scaling.n_rows, chosen.batch_size, seed, start=training.done)
    progress(training.done * chosen.batch_size)
    while training.done < chosen.steps:
        training.step(next(batches))
        progress(chosen.batch_size)
        if checkpoint and checkpoint.due():
            training.save(checkpoint)
    training.calibrate(batches)
    return training.model.folded(training.scaling.factor).cpu(), pd.DataFrame(training.curve)


def check_settings(settings: dict[str, Any]) -> Settings:
    """Return the settings, or raise a StudyError that names the wrong one."""
    known = [field.name for field in fields(Settings)]
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise StudyError(f"sae: unknown setting '{unknown[0]}'; there are {', '.join(known)}")
    absent = [field.name for field in fields(Settings) if field.default is MISSING and field.name not in settings]
    if absent:
        raise StudyError(f"sae: the setting '{absent[0]}' is missing")
    chosen = Settings(**settings)
    check_architecture(chosen)
    return chosen


def check_architecture(chosen: Settings) -> None:
    """Raise a StudyError if a setting that the architecture needs is impossible."""
    name, n = chosen.architecture, chosen.n_latents
    if name not in ARCHITECTURES:
        raise StudyError(f"sae: unknown architecture '{name}'; choose {', '.join(ARCHITECTURES)}")
    if name in ("topk", "batch_topk", "matryoshka") and not 1 <= chosen.k <= n:
        raise StudyError(f"sae: k is {chosen.k}, but must lie between 1 and the number of latents, {n}")
    if name == "jumprelu" and not 0 < chosen.l0 <= n:
        raise StudyError(f"sae: l0 is {chosen.l0}, but must lie between 0 and the number of latents, {n}")
    if name == "matryoshka" and not (min(chosen.prefixes, default=0) > 0 and max(chosen.prefixes) == 1):
        raise StudyError(f"sae: prefixes are {chosen.prefixes}, but must lie between 0 and 1, the largest 1")
    if name == "l1" and chosen.l1_coefficient <= 0:
        raise StudyError(f"sae: l1_coefficient is {chosen.l1_coefficient}; an l1 autoencoder needs a positive one")


def build(settings: Settings, b_dec: Tensor, variance: float, seed: int) -> TrainingSAE:
    """Make the untrained module, on the device of b_dec (d_model,)."""
    generator = torch.Generator().manual_seed(seed_for(seed, "weights"))
    parameters = (b_dec, settings.n_latents, variance, generator)
    if settings.architecture == "l1":
        return TrainingL1(*parameters, l1_coefficient=settings.l1_coefficient)
    if settings.architecture == "jumprelu":
        own = {"l0": settings.l0, "coefficient": settings.l0_coefficient, "bandwidth": settings.bandwidth}
        return TrainingJumpReLU(*parameters, **own)
    k_aux = settings.k_aux or max(1, len(b_dec) // 2)
    shared: dict[str, Any] = {"k": settings.k, "k_aux": k_aux, "aux_coefficient": settings.aux_coefficient}
    if settings.architecture == "matryoshka":
        return TrainingMatryoshka(*parameters, widths=settings.widths, **shared)
    return (TrainingTopK if settings.architecture == "topk" else TrainingBatchTopK)(*parameters, **shared)


@dataclass
class Training:
    """A module in training: its optimizer, how long each latent has been silent, and the curve so far."""

    model: TrainingSAE
    settings: Settings
    scaling: Scaling
    done: int = 0  # steps
    curve: list[dict[str, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.optimizer = torch.optim.Adam(self.model.parameters(), fused=True)
        # Vectors since each latent fired.
        self.silent = torch.zeros(self.settings.n_latents, dtype=torch.int64, device=self.model.b_dec.device)

    def step(self, rows: Tensor) -> None:
        """Train on rows (row, d_model) of any floating dtype, on any device."""
        settings, number = self.settings, self.done
        batch = self.scaled(rows)
        dead = self.silent >= settings.dead_after
        result = self.model.step(batch, dead, settings.ramp(number, settings.sparsity_warmup_fraction))
        update(self.model, self.optimizer, result.loss, settings.learning_rate_at(number))
        self.silent = torch.where(result.fired, 0, self.silent + len(batch))
        self.done += 1
        if number % max(1, settings.steps // settings.curve_points) == 0 or self.done == settings.steps:
            seen = {"step": number, "vectors": self.done * len(batch)}
            self.curve.append(seen | observe(batch, result, dead, number))

    def calibrate(self, batches: Iterator[Tensor]) -> None:
        """Let the trained module measure the batches (row, d_model) that follow, an epoch or `CALIBRATION_ROWS` rows."""
        n_batches = math.ceil(min(self.scaling.n_rows, CALIBRATION_ROWS) / self.settings.batch_size)
        self.model.calibrate(self.scaled(rows) for rows in itertools.islice(batches, n_batches))

    def scaled(self, rows: Tensor) -> Tensor:
        """Return rows (row, d_model) as the module takes them."""
        return self.scaling.factor * rows.to(self.model.b_dec)

    def save(self, checkpoint: Checkpoint) -> None:
        """Write all that `resumed` needs."""
        tensors = checkpoints.state_of(self.model, self.optimizer) | {"silent": self.silent}
        checkpoint.save(tensors, {"done": self.done, "curve": self.curve, "scaling": self.scaling._asdict()})


def resumed(settings: Settings, seed: int, device: str | torch.device, checkpoint: Checkpoint) -> Training | None:
    """Return training as it was at its last checkpoint, or None if there is none of the same run."""
    if (found := checkpoint.load()) is None:
        return None
    tensors, facts = found
    measured = Scaling(**facts["scaling"])
    model = build(settings, torch.zeros(measured.d_model, device=device), measured.variance, seed)
    training = Training(model, settings, measured, facts["done"], facts["curve"])
    checkpoints.restore(model, training.optimizer, tensors)
    training.silent = tensors["silent"].to(device)
    return training


def update(model: TrainingSAE, optimizer: torch.optim.Optimizer, loss: Tensor, learning_rate: float) -> None:
    """Take one optimizer step that leaves the decoder rows at unit norm."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    optimizer.zero_grad()
    loss.backward()
    model.drop_parallel_gradient()
    optimizer.step()
    model.renormalise()


def observe(batch: Tensor, result: Step, dead: Tensor, step: int) -> dict[str, float]:
    """Return one point of the training curve; raises StudyError if the loss is not finite."""
    loss = float(result.loss.detach())
    if not math.isfinite(loss):
        raise StudyError(f"sae: the loss is {loss} at step {step}; lower the learning rate")
    error = (batch - result.reconstruction).square().sum() / (batch - batch.mean(0)).square().sum()
    return {
        "loss": loss,
        "fvu_pooled": float(error),
        "l0": float(result.l0),
        "fraction_dead": float(dead.float().mean()),
    }
