"""Sparse autoencoders in training: what stays active, and the loss.

The weights are kept one row per latent, and a TopK step touches only the chosen rows: the pre-activations are the one
dense product left.
Source: methods reference, 1.3; Gao et al. (2024) for TopK and AuxK; Bricken et al. (2023) for L1."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional

from actspace.dictionaries.base import L1, SAE, TopK


@dataclass
class Step:
    """One forward pass: scalar loss, reconstruction (row, d_model), which latents fired (latent,), scalar L0."""

    loss: Tensor
    reconstruction: Tensor
    fired: Tensor
    l0: Tensor


def sum_by_latent(indices: Tensor, values: Tensor, rows: Tensor, n_latents: int) -> Tensor:
    """Sum values[n, j] * rows[n] into the latent indices[n, j]: (latent, d_model), with no dense (row, latent) matrix.

    Sorting the entries by latent turns the scatter into one ordered sum per latent, which is fast and the same in every
    run.
    """
    order = indices.flatten().argsort(stable=True)
    starts = torch.bincount(indices.flatten(), minlength=n_latents).cumsum(0).roll(1)
    starts[0] = 0
    weights = values.flatten()[order]
    return functional.embedding_bag(order // indices.shape[1], rows, starts, mode="sum", per_sample_weights=weights)


class ChosenPreActivations(Function):
    """Pre-activations of chosen latents, computed before, with a gradient that touches these latents alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, indices: Tensor, values: Tensor) -> Tensor:
        """Pass on `values` (row, active), the entries `indices` of x @ weight.T + bias.

        Shapes: x (row, d_model), weight (latent, d_model), bias (latent,).
        """
        ctx.save_for_backward(x, weight, indices)
        return values.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of x, weight and bias."""
        x, weight, indices = ctx.saved_tensors
        grad = grad.contiguous()
        grad_x = functional.embedding_bag(indices, weight, per_sample_weights=grad, mode="sum")
        grad_bias = grad.new_zeros(len(weight)).index_add_(0, indices.flatten(), grad.flatten())
        return grad_x, sum_by_latent(indices, grad, x, len(weight)), grad_bias, None, None


class ChosenRows(Function):
    """Sum of the chosen decoder rows times their values, with a gradient that touches these rows alone."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, indices: Tensor) -> Tensor:
        """Sum values (row, active) times the rows `indices` of weight (latent, d_model): (row, d_model)."""
        ctx.save_for_backward(values, weight, indices)
        return functional.embedding_bag(indices, weight, per_sample_weights=values, mode="sum")

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of values and weight."""
        values, weight, indices = ctx.saved_tensors
        grad = grad.contiguous()
        with torch.enable_grad():
            # torch's own kernel for the dot products of grad with the chosen rows; gathering the rows takes ten times
            # as long.
            leaf = values.detach().requires_grad_()
            decoded = functional.embedding_bag(indices, weight.detach(), per_sample_weights=leaf, mode="sum")
            (grad_values,) = torch.autograd.grad(decoded, leaf, grad)
        return grad_values, sum_by_latent(indices, values, grad, len(weight)), None


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

    @abstractmethod
    def step(self, x: Tensor, dead: Tensor, sparsity: float) -> Step:
        """Compute the loss on x (row, d_model).

        `dead` (latent,) marks latents that have not fired for long; `sparsity`, 0 to 1, warms a sparsity penalty up.
        """

    @abstractmethod
    def dictionary(self, tensors: dict[str, Tensor]) -> SAE:
        """Make the dictionary of this family from its tensors."""

    def folded(self, scale: float) -> SAE:
        """Return the dictionary for unscaled activations, of which this module saw `scale` times.

        Only the biases change: relu(s p) = s relu(p), and the decoder, linear in the latents, takes the factor back
        out.
        """
        return self.dictionary(
            {
                "W_enc": self.encoder.detach().T.contiguous(),
                "b_enc": self.b_enc.detach() / scale,
                "W_dec": self.decoder.detach(),
                "b_dec": self.b_dec.detach() / scale,
            }
        )

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
    """The k largest pre-activations, as far as positive; loss ||r||^2 / variance + `aux_coefficient` * AuxK."""

    def __init__(self, *parameters: Any, k: int, k_aux: int, aux_coefficient: float):
        super().__init__(*parameters)
        self.k, self.k_aux, self.aux_coefficient = k, k_aux, aux_coefficient

    def step(self, x: Tensor, dead: Tensor, sparsity: float) -> Step:
        """Compute the loss; see `TrainingSAE.step`. TopK needs no warm-up of sparsity."""
        centred = x - self.b_dec
        with torch.no_grad():
            values, indices = torch.addmm(self.b_enc, centred, self.encoder.T).topk(self.k, sorted=False)
        latents = ChosenPreActivations.apply(centred, self.encoder, self.b_enc, indices, values).relu()
        reconstruction = ChosenRows.apply(latents, self.decoder, indices) + self.b_dec
        loss = (x - reconstruction).square().sum(1).mean() / self.variance
        if self.aux_coefficient and dead.any():
            loss = loss + self.aux_coefficient * self.aux_loss(centred, (x - reconstruction).detach(), dead)
        active = latents.detach() > 0
        fired = torch.zeros_like(dead)
        fired[indices[active]] = True
        return Step(loss, reconstruction.detach(), fired, active.sum(1).float().mean())

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
