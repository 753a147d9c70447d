"""Chosen pre-activations: which (row, latent) entries of a batch are in use, and sums that touch these entries alone.

The pre-activations themselves are the one dense product of a training step. Decoding and all gradients are sums over the
entries; a test holds them to plain autograd.
Source: the fused encoder of sparsify (methods reference, 2.4); straight-through estimators after Rajamanoharan et al. (2024)."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional


class Entries:
    """Chosen entries in the order of their rows: `latents` and `rows`, int64 Tensors (entry,).

    Rows may be any bags that are summed apart.
    """

    def __init__(self, latents: Tensor, rows: Tensor, n_rows: int, n_latents: int):
        self.latents, self.rows, self.n_rows, self.n_latents = latents, rows, n_rows, n_latents

    @cached_property
    def row_starts(self) -> Tensor:
        """Number of the first entry of each row."""
        return starts_of(self.rows, self.n_rows)

    @cached_property
    def latent_order(self) -> tuple[Tensor, Tensor]:
        """The entries in the order of their latents, and where each latent starts.

        Sorting turns a scatter into one ordered sum per latent, which is fast and the same in every run.
        """
        return self.latents.argsort(stable=True), starts_of(self.latents, self.n_latents)

    def sum_by_row(self, values: Tensor, weight: Tensor) -> Tensor:
        """Sum values[e] * weight[latents[e]] into the row of each entry: (row, d_model)."""
        return functional.embedding_bag(
            self.latents, weight, self.row_starts, mode="sum", per_sample_weights=values.contiguous()
        )

    def sum_by_latent(self, values: Tensor, x: Tensor) -> Tensor:
        """Sum values[e] * x[rows[e]] into the latent of each entry: (latent, d_model), with no dense (row, latent) matrix."""
        order, starts = self.latent_order
        return functional.embedding_bag(self.rows[order], x, starts, mode="sum", per_sample_weights=values[order])

    def in_groups(self, ends: Tensor) -> tuple[Entries, Tensor]:
        """Bag the entries by group of latents and row, group after group; `ends` (group,) is where each group ends.

        Also returns the order (entry,) that brings values in line with them.
        """
        bags = torch.bucketize(self.latents, ends, right=True) * self.n_rows + self.rows
        order = bags.argsort(stable=True)
        return Entries(self.latents[order], bags[order], len(ends) * self.n_rows, self.n_latents), order


def starts_of(numbers: Tensor, n: int) -> Tensor:
    """Return where each number from 0 to n - 1 starts in the sorted numbers: (n,)."""
    counts = torch.bincount(numbers, minlength=n)
    return counts.cumsum(0) - counts


# --- choosing --------------------------------------------------------------------------------------------------------------------------------


def top_of_rows(p: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k largest entries of each row and their columns, both (row, k), in any order.

    A row is first reduced to the maxima of small groups: the k largest entries lie in the k groups of largest maxima.
    """
    n = p.shape[1]
    size = math.isqrt(n // k)
    if size < 3:
        values, columns = p.topk(k, sorted=False)
        return values, columns
    groups = n // size
    maxima = p[:, : groups * size].unflatten(1, (size, groups)).amax(1)
    best = maxima.topk(k, sorted=False).indices
    members = best[:, None] + groups * torch.arange(size, device=p.device)[:, None]
    left_over = torch.arange(groups * size, n, device=p.device).expand(len(p), -1)
    candidates = torch.cat([members.flatten(1), left_over], dim=1)
    values, places = p.gather(1, candidates).topk(k, sorted=False)
    return values, candidates.gather(1, places)


def smallest_of_top(p: Tensor, count: int) -> Tensor:
    """Return the value of the `count`-th largest entry of p (row, latent), a scalar.

    The `count`-th largest maximum of groups of eight entries is not above it: what is smaller need not be sorted.
    """
    flat = p.flatten()
    count = min(count, len(flat))
    groups = len(flat) // 8
    if groups < count:
        return flat.kthvalue(len(flat) - count + 1).values
    maxima = flat[: 8 * groups].view(8, groups).amax(0)
    contenders = flat[flat >= maxima.kthvalue(groups - count + 1).values]
    return contenders.kthvalue(len(contenders) - count + 1).values


def above(p: Tensor, least: Tensor) -> tuple[Entries, Tensor]:
    """Return the positive entries of p (row, latent) that reach `least` (scalar, or one per latent), and their values."""
    rows, latents = ((p >= least) & (p > 0)).nonzero(as_tuple=True)
    return Entries(latents, rows, *p.shape), p[rows, latents]


# --- gradients -------------------------------------------------------------------------------------------------------------------------------


class ChosenPreActivations(Function):
    """Pre-activations of chosen entries, computed before, with a gradient that touches these entries alone."""

    @staticmethod
    def forward(
        ctx: Any, centred: Tensor, b_dec: Tensor, weight: Tensor, bias: Tensor, entries: Entries, values: Tensor
    ) -> Tensor:
        """Pass on `values` (entry,), taken from centred @ weight.T + bias, where centred (row, d_model) is x - b_dec."""
        ctx.save_for_backward(centred, weight)
        ctx.entries = entries
        return values.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of b_dec, weight and bias; x gets none."""
        centred, weight = ctx.saved_tensors
        grad_bias = grad.new_zeros(len(weight)).index_add_(0, ctx.entries.latents, grad)
        # b_dec enters every row alike, so the sum over rows can come before the product with the weights.
        return None, -(grad_bias @ weight), ctx.entries.sum_by_latent(grad, centred), grad_bias, None, None


class AddGradientOfRows(Function):
    """Pass on what was decoded from detached decoder rows, and give the rows their gradient, the chosen ones alone."""

    @staticmethod
    def forward(ctx: Any, decoded: Tensor, weight: Tensor, entries: Entries, values: Tensor) -> Tensor:
        """Pass on `decoded` (row, d_model)."""
        ctx.save_for_backward(values)
        ctx.entries = entries
        return decoded.view_as(decoded)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of decoded and weight."""
        grad = grad.contiguous()
        (values,) = ctx.saved_tensors
        return grad, ctx.entries.sum_by_latent(values, grad), None, None


def decode(entries: Entries, values: Tensor, weight: Tensor) -> Tensor:
    """Sum values (entry,) times their rows of weight (latent, d_model): (row, d_model), with gradients for both."""
    decoded = entries.sum_by_row(values, weight.detach())
    return AddGradientOfRows.apply(decoded, weight, entries, values.detach())


class Jump(Function):
    """JumpReLU with a straight-through gradient for its threshold: -(theta / bandwidth) 1[|p - theta| < bandwidth / 2]."""

    @staticmethod
    def forward(ctx: Any, p: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        """Return p where it exceeds its threshold, else zero; all of shape (entry,)."""
        ctx.save_for_backward(p, threshold)
        ctx.bandwidth = bandwidth
        return p * (p > threshold)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of p and threshold."""
        p, threshold = ctx.saved_tensors
        near = (p - threshold).abs() < ctx.bandwidth / 2
        return grad * (p > threshold), -grad * near * threshold / ctx.bandwidth, None


class Fires(Function):
    """Whether an entry exceeds its threshold, with the gradient -(1 / bandwidth) 1[|p - theta| < bandwidth / 2]; p gets none."""

    @staticmethod
    def forward(ctx: Any, p: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        """Return 1 where p exceeds its threshold, else 0; all of shape (entry,)."""
        ctx.save_for_backward(p, threshold)
        ctx.bandwidth = bandwidth
        return (p > threshold).to(p)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradient of threshold."""
        p, threshold = ctx.saved_tensors
        return None, -grad * ((p - threshold).abs() < ctx.bandwidth / 2) / ctx.bandwidth, None
