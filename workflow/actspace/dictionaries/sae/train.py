"""Train a sparse autoencoder on activations in memory: one loop for every architecture.

Source: methods reference, 1.3; learning rate, AuxK and the geometric median as in Gao et al. (2024)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, fields
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from actspace.dictionaries.base import SAE, check_finite
from actspace.dictionaries.sae.architectures import Step, TrainingL1, TrainingSAE, TrainingTopK
from actspace.errors import StudyError

MEDIAN_ROWS = 8192
HIGHEST_LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Settings:
    """Settings of one training run. What is None follows the published rule in its comment."""

    architecture: str  # topk or l1
    n_latents: int
    vectors: int  # trained on in all, rounded up to whole batches; more than there are rows makes several epochs
    batch_size: int
    k: int = 0  # topk: active latents per row
    l1_coefficient: float = 0.0  # l1: weight of sum f against ||r||^2, for activations of mean norm sqrt(d_model)
    learning_rate: float | None = None  # 2e-4 / sqrt(n_latents / 2**14), at most 1e-3
    warmup_fraction: float = 0.05  # of the steps, for the learning rate
    sparsity_warmup_fraction: float = 0.05  # of the steps, for the L1 penalty
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

    def ramp(self, step: int, fraction: float) -> float:
        """Rise linearly to 1 over the first `fraction` of the steps."""
        return min(1.0, (step + 1) / max(1.0, fraction * self.steps))

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate of a step, from 0."""
        falling = min(1.0, (self.steps - step) / max(1.0, self.decay_fraction * self.steps))
        return self.peak_learning_rate * self.ramp(step, self.warmup_fraction) * falling


def train(
    x: Tensor,
    settings: dict[str, Any],
    seed: int,
    device: str | torch.device = "cpu",
    progress: Callable[[int], None] = lambda _vectors: None,
) -> tuple[SAE, pd.DataFrame]:
    """Train a sparse autoencoder.

    Parameters
    ----------
    x : float Tensor of shape (row, d_model)
        Stays where it is; batches of it go to the device. Epochs are seeded permutations of the rows.
    settings
        The fields of `Settings`.
    seed
        Of the initial weights and of the order of the rows. On one CPU, the same seed gives the same weights.
    device
        Where to train.
    progress
        Told how many vectors each step has trained on.

    Returns
    -------
    dictionary
        On the CPU, for activations in the units of x.
    curve : DataFrame with the columns step, vectors, loss, fvu_pooled, l0, fraction_dead
        About `curve_points` batches; `fvu_pooled` is definition A on that batch, `vectors` counts those seen so far.

    Raises
    ------
    StudyError
        If a setting is unknown, absent or impossible, rows are too few, all alike or not finite, or the loss diverges.
    """
    chosen = check_settings(settings)
    check_finite(x, "SAE data")
    generator = torch.Generator().manual_seed(seed)
    scale, variance = scaling(x)
    model = build(chosen, x, scale, variance, generator, device)
    curve = run(model, x, scale, chosen, generator, progress)
    return model.folded(scale).cpu(), curve


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
    if chosen.architecture not in ("topk", "l1"):
        raise StudyError(f"sae: unknown architecture '{chosen.architecture}'; choose topk or l1")
    if chosen.architecture == "topk" and not 1 <= chosen.k <= chosen.n_latents:
        raise StudyError(f"sae: k is {chosen.k}, but must lie between 1 and the number of latents, {chosen.n_latents}")
    if chosen.architecture == "l1" and chosen.l1_coefficient <= 0:
        raise StudyError(f"sae: l1_coefficient is {chosen.l1_coefficient}; an l1 autoencoder needs a positive one")
    return chosen


def build(
    settings: Settings, x: Tensor, scale: float, variance: float, generator: torch.Generator, device: str | torch.device
) -> TrainingSAE:
    """Make the untrained module; b_dec starts at the geometric median of a sample of the scaled rows."""
    sample = x[torch.randperm(len(x), generator=generator)[:MEDIAN_ROWS].to(x.device)]
    b_dec = geometric_median(scale * sample.to(device, torch.float32))
    parameters = (b_dec, settings.n_latents, variance, generator)
    if settings.architecture == "l1":
        return TrainingL1(*parameters, l1_coefficient=settings.l1_coefficient)
    k_aux = settings.k_aux or max(1, x.shape[1] // 2)
    return TrainingTopK(*parameters, k=settings.k, k_aux=k_aux, aux_coefficient=settings.aux_coefficient)


def run(
    model: TrainingSAE,
    x: Tensor,
    scale: float,
    settings: Settings,
    generator: torch.Generator,
    progress: Callable[[int], None] = lambda _vectors: None,
) -> pd.DataFrame:
    """Train a module in place on the rows of x times `scale`, and return the training curve."""
    device = model.b_dec.device
    optimizer = torch.optim.Adam(model.parameters(), fused=device.type == "cuda")
    silent = torch.zeros(settings.n_latents, dtype=torch.int64, device=device)  # vectors since each latent fired
    every = max(1, settings.steps // settings.curve_points)
    curve = []
    for step, indices in zip(range(settings.steps), batches(len(x), settings.batch_size, generator), strict=False):
        batch = scale * x[indices.to(x.device)].to(device, torch.float32)
        dead = silent >= settings.dead_after
        result = model.step(batch, dead, settings.ramp(step, settings.sparsity_warmup_fraction))
        update(model, optimizer, result.loss, settings.learning_rate_at(step))
        silent = torch.where(result.fired, 0, silent + len(batch))
        progress(len(batch))
        if step % every == 0 or step == settings.steps - 1:
            curve.append({"step": step, "vectors": (step + 1) * len(batch), **observe(batch, result, dead, step)})
    return pd.DataFrame(curve)


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


def batches(n_rows: int, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield row indices (batch_size,) without end: permutations of all rows, one after the other, cut into batches."""
    rest = torch.empty(0, dtype=torch.int64)
    while True:
        while len(rest) < batch_size:
            rest = torch.cat([rest, torch.randperm(n_rows, generator=generator)])
        yield rest[:batch_size]
        rest = rest[batch_size:]


def scaling(x: Tensor) -> tuple[float, float]:
    """Return the factor that gives rows a mean norm of sqrt(d_model), and the summed variance of rows so scaled."""
    if len(x) < 2:
        raise StudyError(f"sae: {len(x)} rows to train on; read more activations")
    rows = x.split(4096)
    norm = sum(float(part.double().norm(dim=1).sum()) for part in rows) / len(x)
    shift = x[0].double()
    mean = sum((part.double() - shift).sum(0) for part in rows) / len(x) + shift
    variance = sum(float((part.double() - mean).square().sum()) for part in rows) / len(x)
    if not variance > 0:
        raise StudyError(f"sae: all {len(x)} rows are alike; there is nothing to learn")
    scale = math.sqrt(x.shape[1]) / norm
    return scale, variance * scale**2


def geometric_median(x: Tensor, iterations: int = 100, tolerance: float = 1e-5) -> Tensor:
    """Return the point (d_model,) of least summed distance to the rows (row, d_model), by Weiszfeld's iteration."""
    median = x.mean(0)
    for _ in range(iterations):
        # A row at the median itself would get infinite weight.
        weights = 1 / (x - median).norm(dim=1).clamp_min(1e-6)
        previous, median = median, (weights[:, None] * x).sum(0) / weights.sum()
        if (median - previous).norm() <= tolerance * median.norm():
            break
    return median
