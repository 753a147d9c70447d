"""Attention of many perturbed last positions to one shared prefix, for transformers' attention interface.

The prefix's keys and values are never copied per row: all rows of a prompt are queries to one and the same block of
keys, and each row has besides just its own key."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

NAME = "actspace_shared_prefix"
Prefix = Sequence[tuple[Tensor, Tensor]]


class UnsupportedAttentionError(RuntimeError):
    """The attention of a model does something that the shared prefix does not reproduce."""


def shared_prefix_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    shared_prefix: Prefix | None = None,
    **features: Any,
) -> tuple[Tensor, None]:
    """Let every row attend to its prompt's prefix and to itself, and to no other row.

    Parameters
    ----------
    query : Tensor of shape (prompt, head, row, d_head)
        Each row stands at the last position of its prompt.
    key, value : Tensor of shape (prompt, kv_head, row, d_head)
        The rows' own; several heads share one of them in grouped-query attention.
    shared_prefix : for every layer, keys and values of shape (prompt, kv_head, token, d_head)
        `token` may be 0.

    Returns
    -------
    Tensor of shape (prompt, row, head, d_head), and None for the attention weights

    Raises
    ------
    UnsupportedAttentionError
        If the prefix did not arrive, or the model asks for a feature that is not reproduced here.
    """
    if shared_prefix is None:
        raise UnsupportedAttentionError("its blocks do not hand keyword arguments on to attention")
    prefix_keys, prefix_values = shared_prefix[int(module.layer_idx)]  # type: ignore[arg-type]
    n_prefix = prefix_keys.shape[2]
    _refuse_features(features, n_prefix + 1, dropout)
    prompts, heads, rows, d_head = query.shape
    kv_heads = key.shape[1]
    group = heads // kv_heads
    scale = d_head**-0.5 if scaling is None else scaling
    q = query.reshape(prompts, kv_heads, group, rows, d_head) * scale
    to_prefix = q.flatten(2, 3) @ prefix_keys.transpose(-1, -2)  # (prompt, kv_head, group * row, token)
    to_itself = (q * key[:, :, None]).sum(-1).reshape(prompts, kv_heads, group * rows, 1)
    weights = torch.cat([to_prefix, to_itself], -1).softmax(-1, dtype=torch.float32).to(query.dtype)
    from_prefix = weights[..., :n_prefix] @ prefix_values
    from_itself = weights[..., n_prefix:].reshape(prompts, kv_heads, group, rows, 1) * value[:, :, None]
    mixed = from_prefix.reshape(prompts, kv_heads, group, rows, -1) + from_itself
    return mixed.reshape(prompts, heads, rows, -1).transpose(1, 2), None


def _refuse_features(features: dict[str, Any], context: int, dropout: float) -> None:
    """Raise where attention is more than a softmax over all positions up to the last one."""
    window = features.get("sliding_window")
    if window is not None and window <= context:
        raise UnsupportedAttentionError(f"its sliding window of {window} is no longer than the prompt")
    present = [name for name in ("softcap", "s_aux", "position_bias") if features.get(name) is not None]
    if present or dropout:
        raise UnsupportedAttentionError(f"its attention uses {', '.join(present) or 'dropout'}")


@contextmanager
def shared_prefix(hf: PreTrainedModel) -> Iterator[None]:
    """Use `shared_prefix_attention` in the model inside this context, and the attention it had before afterwards."""
    AttentionInterface.register(NAME, shared_prefix_attention)
    before = hf.config._attn_implementation
    try:
        hf.set_attn_implementation(NAME)
        if hf.config._attn_implementation != NAME:
            raise UnsupportedAttentionError("its attention cannot be replaced")
        yield
    finally:
        hf.set_attn_implementation(before)
