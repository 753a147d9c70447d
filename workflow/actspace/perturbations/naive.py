"""The slow way: a full pass with hooks for every perturbed vector; and what hooks see and record.

Source: activation patching as in Heimersheim (2024). The engine is tested against this, and falls back to it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache

from actspace.hooks import FINAL_HOOK, layer_of
from actspace.models import LanguageModel

Call = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional arguments after the residual, and keyword arguments, of one block."""


@torch.no_grad()
def naive(model: LanguageModel, token_ids: Tensor, vectors: Tensor, site: str, read_hook: str) -> tuple[Tensor, Tensor]:
    """Run one prompt once for each vector, all tokens through all blocks, and replace the last residual at the site.

    The logits are the model's own, from its own head; in half precision alone they are `model.logits`, as the head
    would round them.

    Parameters
    ----------
    token_ids : int Tensor of shape (token,)
    vectors : Tensor of shape (row, d_model), in the dtype of the model

    Returns
    -------
    logits : Tensor of shape (row, vocabulary)
    late : Tensor of shape (row, d_model)
        What `read_hook` sees at the last position, in the raw gauge.
    """

    def replace(hidden: Tensor) -> Tensor:
        return torch.cat([hidden[:, :-1], vectors[:, None]], 1)

    only_last = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.hf.forward).parameters else {}
    with ExitStack() as stack:
        stack.enter_context(hooked(model, site, replace))
        seen, last = (stack.enter_context(hooked(model, hook)) for hook in (read_hook, FINAL_HOOK))
        batch = token_ids.to(model.device).expand(len(vectors), -1)
        if torch.finfo(model.hf.dtype).bits < 32:
            model.hf.base_model(input_ids=batch, use_cache=False)
            logits = model.logits(last[0][:, -1])
        else:
            logits = model.hf(input_ids=batch, use_cache=False, **only_last).logits[:, -1]
    late = seen[0][:, -1]
    return logits, model.normalized(late) if read_hook == FINAL_HOOK else late


@contextmanager
def hooked(model: LanguageModel, hook: str, change: Callable[[Tensor], Tensor] | None = None) -> Iterator[list[Tensor]]:
    """Collect the residual at a hook point as the model runs, changed first where a change is given."""
    seen: list[Tensor] = []
    layer = layer_of(hook, model.n_layers)

    def pre_hook(
        _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        hidden = args[0] if args else kwargs["hidden_states"]
        seen.append(hidden if change is None else change(hidden))
        if change is None:
            return None
        return ((seen[-1], *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": seen[-1]})

    module = model.final_norm if layer == model.n_layers else model.blocks[layer]
    handle = module.register_forward_pre_hook(pre_hook, with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()


@contextmanager
def recorded_calls(blocks: nn.ModuleList) -> Iterator[list[Call]]:
    """Record what each block is called with besides the residual; a cache is left out, the prefix takes its place."""
    calls: list[Call] = []

    def pre_hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        def without_cache(x: Any) -> Any:
            return None if isinstance(x, Cache) else x

        named = {name: without_cache(x) for name, x in kwargs.items() if name != "hidden_states"}
        calls.append((tuple(without_cache(x) for x in args[1:]), named))

    handles = [block.register_forward_pre_hook(pre_hook, with_kwargs=True) for block in blocks]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()
