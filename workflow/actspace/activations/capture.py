"""Capture: residual streams at any hook points, in one forward pass that stops after the deepest of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from actspace.hooks import FINAL_HOOK, layer_of
from actspace.models import LanguageModel, to_gauge


class _Deep(Exception):  # noqa: N818
    """Ends a forward pass whose deepest hook point has been read."""


def residuals(model: LanguageModel, token_ids: Tensor, hooks: Sequence[str], gauge: str = "raw") -> dict[str, Tensor]:
    """Read the residual stream at hook points, running no block that lies deeper.

    Parameters
    ----------
    model : the language model
    token_ids : integer Tensor of shape (prompt, token), on the model's device
    hooks : hook points
    gauge : `raw` or `centred`

    Returns
    -------
    dict of hook to Tensor of shape (prompt, token, d_model), in the dtype of the weights
    """
    layers = {hook: layer_of(hook, model.n_layers) for hook in hooks}
    with torch.no_grad(), _reading(model, set(layers.values())) as seen, suppress(_Deep):
        model.hf.base_model(input_ids=token_ids, use_cache=False)
    return {hook: _value(model, hook, seen[layer], gauge) for hook, layer in layers.items()}


def _value(model: LanguageModel, hook: str, residual: Tensor, gauge: str) -> Tensor:
    return model.normalized(residual) if hook == FINAL_HOOK else to_gauge(residual, gauge)


@contextmanager
def _reading(model: LanguageModel, layers: set[int]) -> Iterator[dict[int, Tensor]]:
    """Fill a dict with the residual after each of the given numbers of blocks, while a forward pass runs."""
    seen: dict[int, Tensor] = {}
    deepest = max(layers)

    def keep(layer: int, residual: Tensor) -> None:
        if layer in layers:
            seen[layer] = residual
        if layer == deepest:
            raise _Deep

    def before(layer: int) -> Callable[..., None]:
        return lambda _module, args, kwargs: keep(layer, args[0] if args else kwargs["hidden_states"])

    def after(_module: object, _args: object, output: Tensor | tuple[Tensor, ...]) -> None:
        keep(model.n_layers, output if isinstance(output, Tensor) else output[0])

    handles = [
        block.register_forward_pre_hook(before(layer), with_kwargs=True) for layer, block in enumerate(model.blocks)
    ]
    handles.append(model.blocks[-1].register_forward_hook(after))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def replaced(model: LanguageModel, layer: int, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Replace the residual (prompt, token, d_model) after `layer` blocks by a function of it, in every forward pass inside."""

    def before(
        _module: object, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if args:
            return (change(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": change(kwargs["hidden_states"])}

    def after(_module: object, _args: object, output: Any) -> Any:
        return change(output) if isinstance(output, Tensor) else (change(output[0]), *output[1:])

    last = layer == model.n_layers
    handle = (
        model.blocks[-1].register_forward_hook(after)
        if last
        else model.blocks[layer].register_forward_pre_hook(before, with_kwargs=True)
    )
    try:
        yield
    finally:
        handle.remove()


def batches(lengths: np.ndarray, batch_tokens: int) -> list[np.ndarray]:
    """Group sequences of equal length, so that nothing is padded, into batches of at most `batch_tokens` tokens.

    A batch is a pure function of the lengths (batches can change bits). One sequence may exceed the bound: it is a batch of its own.
    """
    groups = []
    for length in np.unique(lengths):
        members = np.flatnonzero(lengths == length)
        size = max(1, batch_tokens // int(length))
        groups += [members[start : start + size] for start in range(0, len(members), size)]
    return groups


@dataclass(frozen=True)
class Captured:
    """Activations by hook, Tensors (row, d_model) on the CPU in the dtype of the weights; the rows' key columns; the cost in token passes."""

    activations: dict[str, Tensor]
    keys: dict[str, np.ndarray | pa.ChunkedArray]
    token_passes: float


def capture(
    model: LanguageModel, sequences: pa.Table, hooks: Sequence[str], *, positions: str, gauge: str, batch_tokens: int
) -> Captured:
    """Read hook points over sequences, in token order.

    Parameters
    ----------
    model : the language model
    sequences : Table with the columns `sequence_id`, `document_id` and `token_ids` (lists of any lengths)
    hooks : hook points
    positions : `all`, or `last` of each sequence
    gauge : `raw` or `centred`
    batch_tokens : tokens per forward pass
    """
    flat, ends = tokens_of(sequences)
    starts, lengths = ends - np.diff(ends, prepend=0), np.diff(ends, prepend=0)
    # A row is one stored token position; `stored` says which token of all.
    stored = np.arange(len(flat)) if positions == "all" else ends - 1
    sequence = np.repeat(np.arange(len(lengths)), lengths if positions == "all" else 1)
    first = np.searchsorted(sequence, np.arange(len(lengths)))
    dtype = next(model.hf.parameters()).dtype
    activations = {hook: torch.empty((len(stored), model.d_model), dtype=dtype) for hook in hooks}
    for members in batches(lengths, batch_tokens):
        token = starts[members, None] + np.arange(lengths[members[0]])
        row = first[members, None] + np.arange(lengths[members[0]] if positions == "all" else 1)
        for hook, residual in residuals(model, torch.from_numpy(flat[token]).to(model.device), hooks, gauge).items():
            wanted = residual if positions == "all" else residual[:, -1:]
            activations[hook][torch.from_numpy(row.ravel())] = wanted.reshape(-1, model.d_model).cpu()
    keys = {
        "sequence_id": sequences["sequence_id"].to_numpy()[sequence],
        "position": (stored - starts[sequence]).astype(np.int32),
        "document_id": sequences["document_id"].take(sequence),
        "token_id": flat[stored].astype(np.int32),
    }
    depth = max(layer_of(hook, model.n_layers) for hook in hooks) / model.n_layers
    return Captured(activations, keys, len(flat) * depth)


def tokens_of(sequences: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Return all token ids in one int64 array, and where each sequence ends in it."""
    lists = sequences["token_ids"].combine_chunks()
    return lists.flatten().to_numpy().astype(np.int64), np.cumsum(lists.value_lengths().to_numpy())
