"""Sparse autoencoders in training: what stays active, and the loss.

The weights are kept one row per latent, and but for L1, which starts with half of its latents active, a step touches only
the chosen rows.
Source: methods reference, 1.3; Gao et al. (2024) for TopK and AuxK; Bussmann et al. (2024, 2025) for BatchTopK and
Matryoshka; Rajamanoharan et al. (2024) for JumpReLU; Bricken et al. (2023) for L1."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from actspace.dictionaries.base import L1, SAE, BatchTopK, JumpReLU, Matryoshka, TopK
from actspace.dictionaries.sae.sparse import (
    ChosenPreActivations,
    Entries,
    Fires,
    Jump,
    above,
    decode,
    smallest_of_top,
    top_of_rows,
)


@dataclass
class Step:
    """One forward pass: scalar loss, reconstruction (row, d_model), which latents fired (latent,), scalar L0."""

    loss: Tensor
    reconstruction: Tensor
    fired: Tensor
    l0: Tensor


class TrainingSAE(nn.Module, ABC):
    """Parameters of a sparse autoencoder in training, on activations of mean norm sqrt(d_model).

    `encoder` and `decoder` have the shape (latent, d_model); decoder rows have unit norm. `variance` is the summed
    variance of the data over dimensions.
    """

    def __init__(self, b_dec: Tensor, n_latents: int, variance: float, generator: torch.Generator):
        super().__init__()
        directions = torch.randn(n_latents, len(b_dec), generator=generator).to(b_dec)
        self.decoder = nn.Parameter(functional.normalize(directions, dim=1))
        self.encoder = nn.Parameter(self.decoder.detach().clone())
        self.b_enc = nn.Parameter(b_dec.new_zeros(n_latents))
        self.b_dec = nn.Parameter(b_dec.clone())
        self.variance = variance
        self.scores: Tensor | None = None

    @abstractmethod
    def step(self, x: Tensor, dead: Tensor, sparsity: float) -> Step:
        """Compute the loss on x (row, d_model).

        `dead` (latent,) marks latents that have not fired for long; `sparsity`, 0 to 1, warms a sparsity penalty up.
        """

    @abstractmethod
    def dictionary(self, tensors: dict[str, Tensor]) -> SAE:
        """Make the dictionary of this family from its tensors."""

    def tensors(self, scale: float) -> dict[str, Tensor]:
        """Return the dictionary's tensors for unscaled activations, of which this module saw `scale` times."""
        return {
            "W_enc": self.encoder.detach().T.contiguous(),
            "b_enc": self.b_enc.detach() / scale,
            "W_dec": self.decoder.detach(),
            "b_dec": self.b_dec.detach() / scale,
        }

    def folded(self, scale: float) -> SAE:
        """Return the dictionary for unscaled activations, of which this module saw `scale` times.

        Only biases and thresholds change: relu(s p) = s relu(p), and the decoder, linear in the latents, takes the
        factor back out.
        """
        return self.dictionary(self.tensors(scale))

    def start(self, sample: Tensor) -> None:
        """Set what depends on a sample (row, d_model) of the scaled data; nothing, but for JumpReLU."""

    def calibrate(self, batches: Iterable[Tensor]) -> None:
        """Set what depends on the final weights, from batches (row, d_model) of the scaled data; nothing, but for BatchTopK."""

    def pre_activations(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return x - b_dec (row, d_model) and all pre-activations (row, latent), without a gradient.

        The next call overwrites the pre-activations.
        """
        shape = (len(x), len(self.encoder))
        if self.scores is None or self.scores.shape != shape or self.scores.dtype != x.dtype:
            # Kept from step to step: getting so much fresh memory takes as long as half of the product.
            self.scores = x.new_empty(shape)
        with torch.no_grad():
            centred = x - self.b_dec
            return centred, torch.addmm(self.b_enc, centred, self.encoder.T, out=self.scores)

    def chosen(self, centred: Tensor, entries: Entries, values: Tensor) -> Tensor:
        """Give the pre-activations `values` of chosen entries their gradient."""
        return ChosenPreActivations.apply(centred, self.b_dec, self.encoder, self.b_enc, entries, values)

    @torch.no_grad()
    def drop_parallel_gradient(self) -> None:
        """Remove the part of the decoder's gradient that would only change the rows' lengths, before Adam sees it."""
        grad = self.decoder.grad
        if grad is not None:
            grad -= (grad * self.decoder).sum(1, keepdim=True) * self.decoder

    @torch.no_grad()
    def renormalise(self) -> None:
        """Give the decoder rows unit norm again."""
        self.decoder.div_(self.decoder.norm(dim=1, keepdim=True))


class TrainingTopK(TrainingSAE):
    """The k largest pre-activations of a row, as far as positive; loss ||r||^2 / variance + `aux_coefficient` * AuxK.

    With several `widths`, the loss is the mean over the reconstructions by the first so many latents.
    """

    def __init__(self, *parameters: Any, k: int, k_aux: int, aux_coefficient: float):
        super().__init__(*parameters)
        self.k, self.k_aux, self.aux_coefficient = k, k_aux, aux_coefficient
        self.widths: tuple[int, ...] = (len(self.decoder),)

    def choose(self, p: Tensor) -> tuple[Entries, Tensor]:
        """Return the entries of p (row, latent) that stay active, and their pre-activations."""
        values, latents = top_of_rows(p, self.k)
        rows = torch.arange(len(p), device=p.device).repeat_interleave(self.k)
        return Entries(latents.flatten(), rows, *p.shape), values.flatten()

    def step(self, x: Tensor, dead: Tensor, sparsity: float) -> Step:
        """Compute the loss; see `TrainingSAE.step`. TopK needs no warm-up of sparsity."""
        centred, p = self.pre_activations(x)
        entries, values = self.choose(p)
        latents = self.chosen(centred, entries, values).relu()
        reconstructions = self.reconstructions(entries, latents)
        loss = (x - reconstructions).square().sum(2).mean() / self.variance
        reconstruction = reconstructions[-1].detach()
        if self.aux_coefficient and dead.any():
            loss = loss + self.aux_coefficient * self.aux_loss(x - self.b_dec, x - reconstruction, dead)
        return Step(loss, reconstruction, *activity(entries, latents.detach() > 0))

    def reconstructions(self, entries: Entries, latents: Tensor) -> Tensor:
        """Decode with the first so many latents, for each width: (width, row, d_model)."""
        if len(self.widths) == 1:
            return (decode(entries, latents, self.decoder) + self.b_dec)[None]
        groups, order = entries.in_groups(torch.tensor(self.widths, device=latents.device))
        parts = decode(groups, latents[order], self.decoder)
        return parts.unflatten(0, (len(self.widths), entries.n_rows)).cumsum(0) + self.b_dec

    def aux_loss(self, centred: Tensor, residual: Tensor, dead: Tensor) -> Tensor:
        """Let the k_aux strongest dead latents explain the residual (row, d_model); return the fraction left over.

        Without b_dec, which the main reconstruction has spent. The product is dense, but over the dead latents alone.
        """
        alive_again = torch.addmm(self.b_enc[dead], centred, self.encoder[dead].T).relu()
        if alive_again.shape[1] > self.k_aux:
            values, indices = alive_again.topk(self.k_aux, sorted=False)
            alive_again = torch.zeros_like(alive_again).scatter(1, indices, values)
        error = (residual - alive_again @ self.decoder[dead]).square().sum()
        return error / (residual - residual.mean(0)).square().sum().clamp_min(torch.finfo(residual.dtype).tiny)

    def dictionary(self, tensors: dict[str, Tensor]) -> SAE:
        """Make a TopK dictionary."""
        return TopK(tensors, k=self.k)


class TrainingBatchTopK(TrainingTopK):
    """The k largest pre-activations per row on average: those that are among the k * row largest of the batch.

    The dictionary knows no batch: it keeps what exceeds `threshold`, the mean over batches of the smallest active value
    (Bussmann et al., 2024). It is measured once, with the final weights: a running mean kept in training, as SAELens and
    dictionary_learning have it, remembers the larger values of weights long gone, so that fewer than k stay active.
    """

    threshold: Tensor

    def __init__(self, *parameters: Any, **settings: Any):
        super().__init__(*parameters, **settings)
        self.register_buffer("threshold", self.b_enc.new_zeros(()))

    def choose(self, p: Tensor) -> tuple[Entries, Tensor]:
        """Return the entries of p (row, latent) that stay active, and their pre-activations."""
        return above(p, smallest_of_top(p, self.k * len(p)))

    @torch.no_grad()
    def calibrate(self, batches: Iterable[Tensor]) -> None:
        """Set the threshold; see `TrainingSAE.calibrate`. Where fewer than k * row are positive, all of them are active."""
        smallest = [smallest_of_top(self.pre_activations(x)[1], self.k * len(x)).clamp_min(0) for x in batches]
        self.threshold.copy_(torch.stack(smallest).mean())

    def tensors(self, scale: float) -> dict[str, Tensor]:
        """Return the dictionary's tensors; see `TrainingSAE.tensors`."""
        return super().tensors(scale) | {"threshold": (self.threshold / scale).expand(len(self.decoder)).contiguous()}

    def dictionary(self, tensors: dict[str, Tensor]) -> SAE:
        """Make a BatchTopK dictionary."""
        return BatchTopK(tensors, k=self.k)


class TrainingMatryoshka(TrainingBatchTopK):
    """BatchTopK whose loss is the mean over the reconstructions by nested prefixes of the latents."""

    def __init__(self, *parameters: Any, widths: tuple[int, ...], **settings: Any):
        super().__init__(*parameters, **settings)
        self.widths = widths

    def dictionary(self, tensors: dict[str, Tensor]) -> SAE:
        """Make a Matryoshka dictionary."""
        return Matryoshka(tensors, k=self.k, widths=list(self.widths))


class TrainingJumpReLU(TrainingSAE):
    """Pre-activations above a threshold of each latent; loss ||r||^2 / variance + `coefficient` * (L0 / `l0` - 1)^2.

    Thresholds learn through straight-through estimators of the given bandwidth. They start, all alike, where the wanted
    number of latents fires, so that a short run need not spend its steps on getting there.
    The penalty steers, it sets nothing. Learning makes pre-activations smaller, and L0 falls below `l0` at first; Adam
    moves a threshold by about the learning rate per step at most, so that L0 stays there if all learning rates together
    are less than what the thresholds have to fall. A longer warm-up, or none, changes nothing in that. With time enough
    L0 settles a few percent above `l0`, where what one more latent explains outweighs the penalty.
    """

    def __init__(self, *parameters: Any, l0: float, coefficient: float, bandwidth: float):
        super().__init__(*parameters)
        self.l0, self.coefficient, self.bandwidth = l0, coefficient, bandwidth
        self.threshold = nn.Parameter(self.b_enc.detach().clone())

    @torch.no_grad()
    def start(self, sample: Tensor) -> None:
        """Set the thresholds so that `l0` latents fire on average in the sample (row, d_model)."""
        _, p = self.pre_activations(sample)
        self.threshold.fill_(smallest_of_top(p, round(self.l0 * len(p))).clamp_min(0))

    def step(self, x: Tensor, dead: Tensor, sparsity: float) -> Step:
        """Compute the loss; see `TrainingSAE.step`. Dead latents get no help."""
        centred, p = self.pre_activations(x)
        entries, values = above(p, self.threshold.detach() - self.bandwidth / 2)
        reached = self.chosen(centred, entries, values)
        thresholds = self.threshold[entries.latents]
        reconstruction = decode(entries, Jump.apply(reached, thresholds, self.bandwidth), self.decoder) + self.b_dec
        l0 = Fires.apply(reached.detach(), thresholds, self.bandwidth).sum() / len(x)
        loss = (x - reconstruction).square().sum(1).mean() / self.variance
        loss = loss + sparsity * self.coefficient * (l0 / self.l0 - 1).square()
        return Step(loss, reconstruction.detach(), *activity(entries, values > thresholds.detach()))

    def renormalise(self) -> None:
        """Give the decoder rows unit norm again; no threshold falls below zero."""
        super().renormalise()
        self.threshold.data.clamp_(min=0)

    def tensors(self, scale: float) -> dict[str, Tensor]:
        """Return the dictionary's tensors; see `TrainingSAE.tensors`."""
        return super().tensors(scale) | {"threshold": self.threshold.detach() / scale}

    def dictionary(self, tensors: dict[str, Tensor]) -> SAE:
        """Make a JumpReLU dictionary."""
        return JumpReLU(tensors)


class TrainingL1(TrainingSAE):
    """All positive pre-activations; loss ||r||^2 + `l1_coefficient` * sum_i f_i, with decoder rows of unit norm."""

    def __init__(self, *parameters: Any, l1_coefficient: float):
        super().__init__(*parameters)
        self.l1_coefficient = l1_coefficient

    def step(self, x: Tensor, dead: Tensor, sparsity: float) -> Step:
        """Compute the loss; see `TrainingSAE.step`. Dead latents get no help."""
        latents = torch.addmm(self.b_enc, x - self.b_dec, self.encoder.T).relu()
        reconstruction = latents @ self.decoder + self.b_dec
        penalty = sparsity * self.l1_coefficient * latents.sum(1).mean()
        active = latents.detach() > 0
        loss = (x - reconstruction).square().sum(1).mean() + penalty
        return Step(loss, reconstruction.detach(), active.any(0), active.sum(1).float().mean())

    def dictionary(self, tensors: dict[str, Tensor]) -> SAE:
        """Make an L1 dictionary."""
        return L1(tensors)


def activity(entries: Entries, active: Tensor) -> tuple[Tensor, Tensor]:
    """Return which latents are active somewhere (latent,), and the mean number of them per row."""
    counts = torch.bincount(entries.latents[active], minlength=entries.n_latents)
    return counts > 0, counts.sum() / entries.n_rows
