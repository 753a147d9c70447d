"""Capture: residual streams at any hook points, in one forward pass that stops after the deepest of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from actspace.activations.store import Stored, to_stored
from actspace.errors import StudyError
from actspace.hooks import FINAL_HOOK, layer_of
from actspace.models import LanguageModel, to_gauge

SORTED_BATCHES = 8

Positions = Literal["all", "last"] | Sequence[int] | Mapping[str, int]


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
    """Group sequences of similar length into batches of at most `batch_tokens` tokens, padding included.

    A batch is a pure function of the lengths (batches can change bits). One sequence may exceed the bound: it is a batch of its own.
    """
    order, groups, first = np.argsort(lengths, kind="stable"), [], 0
    while first < len(order):
        padded = lengths[order[first:]] * np.arange(1, len(order) - first + 1)
        n = max(1, int(np.searchsorted(padded, batch_tokens, side="right")))
        groups.append(order[first : first + n])
        first += n
    return groups


@dataclass(frozen=True)
class Chunk:
    """Rows of consecutive sequences at every hook, in token order, on the CPU once `ready` has returned.

    `keys` are their columns, `tokens` the number of tokens that the model read for them, `batch_tokens` the most it read at once.
    """

    stored: dict[str, Stored]
    keys: dict[str, np.ndarray | pa.ChunkedArray]
    tokens: int
    batch_tokens: int
    ready: Callable[[], None]


def chunks(
    model: LanguageModel,
    sequences: Iterable[pa.Table],
    hooks: Sequence[str],
    *,
    positions: Positions,
    storage: str,
    gauge: str,
    batch_tokens: int,
) -> Iterator[Chunk]:
    """Read hook points over sequences, in token order, a few batches at a time.

    Shorter sequences of a batch are padded on the right, where causal attention does not look. On a GPU that runs out of memory, batches
    are halved from then on.

    Parameters
    ----------
    model : the language model
    sequences : Tables with the columns `sequence_id`, `document_id` and `token_ids` (lists of any lengths)
    hooks : hook points
    positions : `all`, `last` of each sequence, a list of positions (negative ones count from the end), or {"every": n}
    storage : stored precision
    gauge : `raw` or `centred`
    batch_tokens : tokens per forward pass

    Raises
    ------
    StudyError
        If the device has no memory for a single sequence, or no sequence has any of the positions.
    """
    bound, found = batch_tokens, False
    for part in _portions(sequences, batch_tokens):
        flat, ends = tokens_of(part)
        lengths = np.diff(ends, prepend=0)
        rows = _Rows.of(lengths, positions)
        if not len(rows.sequence):
            continue
        host, bound = _read_portion(model, flat, lengths, rows, hooks, storage, gauge, bound)
        token = (ends - lengths)[rows.sequence] + rows.position
        keys = {
            "sequence_id": part["sequence_id"].to_numpy()[rows.sequence],
            "position": rows.position.astype(np.int32),
            "document_id": part["document_id"].take(rows.sequence),
            "token_id": flat[token].astype(np.int32),
        }
        found = True
        yield Chunk(host, keys, len(flat), bound, _arrival(model.device))
    if not found:
        raise StudyError(f"captures: `positions` is {positions}, and no sequence has any of them; change it")


def _portions(sequences: Iterable[pa.Table], batch_tokens: int) -> Iterator[pa.Table]:
    """Divide sequences into portions whose rows are in memory together: a batch, or a few of them where lengths differ and are sorted."""
    for table in sequences:
        lengths = np.diff(tokens_of(table)[1], prepend=0)
        alike = len(lengths) > 0 and lengths.min() == lengths.max()
        bounds = np.cumsum(lengths) - lengths
        size = max(1, batch_tokens // int(lengths[0])) * int(lengths[0]) if alike else SORTED_BATCHES * batch_tokens
        starts = np.flatnonzero(np.diff(bounds // size, prepend=-1)) if len(lengths) else np.array([], int)
        for first, last in pairwise([*starts.tolist(), len(lengths)]):
            yield table.slice(first, last - first)


class _Rows(NamedTuple):
    """Stored rows, in token order: the sequence and position of each; `first` row and `counts` of rows of each sequence."""

    sequence: np.ndarray
    position: np.ndarray
    first: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, lengths: np.ndarray, positions: Positions) -> _Rows:
        if positions == "all" or isinstance(positions, Mapping):
            step = positions["every"] if isinstance(positions, Mapping) else 1
            count = -(-lengths // step)
            position = step * _counting(count)
        else:
            wanted = np.array([-1] if positions == "last" else positions)
            place = np.sort(np.where(wanted < 0, lengths[:, None] + wanted, wanted), axis=1)
            exists = (place >= 0) & (place < lengths[:, None])
            exists[:, 1:] &= place[:, 1:] != place[:, :-1]
            count, position = exists.sum(1), place[exists]
        sequence = np.repeat(np.arange(len(lengths)), count)
        return cls(sequence, position, np.cumsum(count) - count, count)

    def of_sequences(self, members: np.ndarray) -> np.ndarray:
        """Number the rows of some sequences, one sequence after the other."""
        counts = self.counts[members]
        return np.repeat(self.first[members], counts) + _counting(counts)


def _counting(counts: np.ndarray) -> np.ndarray:
    """Count 0, 1, ... up to each of the counts in turn."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)


def _read_portion(
    model: LanguageModel,
    flat: np.ndarray,
    lengths: np.ndarray,
    rows: _Rows,
    hooks: Sequence[str],
    storage: str,
    gauge: str,
    bound: int,
) -> tuple[dict[str, Stored], int]:
    """Read one portion batch by batch; return its rows in token order, and the bound on batches that held."""
    starts = np.cumsum(lengths) - lengths
    found: dict[str, list[Stored]] = {hook: [] for hook in hooks}
    numbers: list[np.ndarray] = []
    todo = deque(batches(lengths, bound))
    while todo:
        members = todo.popleft()
        token_ids = padded(flat, starts[members], lengths[members])
        longest, number = token_ids.shape[1], rows.of_sequences(members)
        slot = np.repeat(np.arange(len(members)), rows.counts[members]) * longest + rows.position[number]
        try:
            read = residuals(model, torch.from_numpy(token_ids).to(model.device), hooks, gauge)
            for hook, residual in read.items():
                wanted = residual.reshape(-1, model.d_model)
                if len(slot) < len(wanted):
                    wanted = wanted[torch.from_numpy(slot).to(model.device)]
                found[hook].append(to_stored(wanted, storage))
        except torch.OutOfMemoryError:
            if len(members) == 1:
                raise StudyError(
                    f"the device has no memory for one sequence of {longest} tokens; shorten `tokens.length` or set a smaller `model.dtype`"
                ) from None
            for hook in hooks:
                del found[hook][len(numbers) :]
            half = len(members) // 2
            bound = half * longest
            todo.extendleft([members[half:], members[:half]])
        else:
            numbers.append(number)
    back = np.argsort(np.concatenate(numbers))
    in_order = np.array_equal(back, np.arange(len(back)))
    return {hook: _to_host(parts, None if in_order else back) for hook, parts in found.items()}, bound


def _to_host(parts: Sequence[Stored], order: np.ndarray | None) -> Stored:
    """Put batches together in token order and copy them to the CPU, without waiting for the copy."""
    columns = (parts[0][i] if len(parts) == 1 else torch.cat([part[i] for part in parts]) for i in range(3))
    if order is not None:
        index = torch.from_numpy(order).to(parts[0].x.device)
        columns = (column[index] for column in columns)
    return Stored(*map(_pinned_copy, columns))


def _pinned_copy(x: Tensor) -> Tensor:
    return (
        x if x.device.type == "cpu" else torch.empty_like(x, device="cpu", pin_memory=True).copy_(x, non_blocking=True)
    )


def _arrival(device: torch.device) -> Callable[[], None]:
    """Return a function that waits until all copies begun so far have arrived."""
    if device.type == "cpu":
        return lambda: None
    event = torch.cuda.Event()
    event.record()
    return event.synchronize


def cost(model: LanguageModel, hook: str, tokens: int) -> float:
    """Return what reading a hook costs, in token passes through the whole model; earlier hooks come with it."""
    return tokens * layer_of(hook, model.n_layers) / model.n_layers


def padded(flat: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Put sequences under each other, (sequence, longest length); any token fills the shorter ones up on the right, where nothing looks."""
    return flat[np.minimum(starts[:, None] + np.arange(lengths.max()), len(flat) - 1)]


def tokens_of(sequences: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Return all token ids in one int64 array, and where each sequence ends in it."""
    lists = sequences["token_ids"].combine_chunks()
    return lists.flatten().to_numpy().astype(np.int64), np.cumsum(lists.value_lengths().to_numpy())
