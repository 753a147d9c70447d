"""Self-checks before a study trusts its hooks: what is read must be what the model computes and what TransformerLens names so.

Bridges have served wrong tensors for some architectures without a word (see the issue trackers); a failed check stops the study."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from actspace.activations.capture import residuals
from actspace.errors import StudyError
from actspace.hooks import FINAL_HOOK
from actspace.models import LanguageModel, to_gauge

TOLERANCE = {"float32": 1e-4, "bfloat16": 1e-1, "float16": 2e-2}


def check(model: LanguageModel, folder: Path, token_ids: Tensor, settings: Mapping[str, Any]) -> pd.DataFrame:
    """Hold the captured residuals to the model's own logits and to the TransformerLens bridge.

    Parameters
    ----------
    model, folder : the model and the folder it came from
    token_ids : integer Tensor of shape (prompt, token), on the model's device
    settings : `dtype`, `gauge` and `trust_remote_code` of the config

    Returns
    -------
    DataFrame with the columns check, relative_deviation (length of the difference, over that of the vector, at the
    worst token), tolerance

    Raises
    ------
    StudyError
        If a deviation exceeds the tolerance of the dtype; the check and the hook are named.
    """
    last = f"blocks.{model.n_layers - 1}.hook_resid_post"
    hooks = [f"blocks.{layer}.hook_resid_{side}" for layer in range(model.n_layers) for side in ("pre", "post")]
    with torch.no_grad():
        logits = model.hf(input_ids=token_ids, use_cache=False).logits
    read = residuals(model, token_ids, [*hooks, FINAL_HOOK])
    gauge = settings["gauge"]
    found = {
        "logits, from the last residual": _deviation(model.logits(read[last]), logits),
        f"logits, from the last residual in the {gauge} gauge": _deviation(
            model.logits(to_gauge(read[last], gauge)), logits
        ),
        "resid_pre of each block, against resid_post of the one before": _chain(model, token_ids),
    }
    found |= _against_bridge(folder, token_ids, {**read, "logits": logits}, settings)
    tolerance = TOLERANCE[settings["dtype"]]
    for name, deviation in found.items():
        if not deviation <= tolerance:
            raise StudyError(
                f"self-check failed: {name}: relative deviation {deviation:.1e}, allowed {tolerance:.0e}; this model's hooks cannot be trusted"
            )
    return pd.DataFrame({"check": list(found), "relative_deviation": list(found.values()), "tolerance": tolerance})


def _chain(model: LanguageModel, token_ids: Tensor) -> float:
    """Return the largest deviation between a block's output and the next one's input."""
    outputs: dict[int, Tensor] = {}
    inputs: dict[int, Tensor] = {}
    handles = []
    for layer, block in enumerate(model.blocks):
        handles.append(
            block.register_forward_pre_hook(
                lambda _m, args, kwargs, at=layer: inputs.update({at: (args or (kwargs["hidden_states"],))[0]}),
                with_kwargs=True,
            )
        )
        handles.append(
            block.register_forward_hook(
                lambda _m, _args, output, at=layer: outputs.update(
                    {at: output if isinstance(output, Tensor) else output[0]}
                )
            )
        )
    try:
        with torch.no_grad():
            model.hf.base_model(input_ids=token_ids, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return max((_deviation(inputs[layer + 1], outputs[layer]) for layer in range(model.n_layers - 1)), default=0.0)


def _against_bridge(
    folder: Path, token_ids: Tensor, expected: dict[str, Tensor], settings: Mapping[str, Any]
) -> dict[str, float]:
    bridge = TransformerBridge.boot_transformers(
        str(folder),
        device=token_ids.device,
        dtype=getattr(torch, settings["dtype"]),
        trust_remote_code=settings["trust_remote_code"],
    )
    hooks = [name for name in expected if name != "logits"]
    with torch.no_grad():
        logits, cache = bridge.run_with_cache(token_ids, names_filter=hooks)
    served = {**{hook: cache[hook] for hook in hooks}, "logits": logits}
    return {
        f"{name}, TransformerLens bridge against transformers": _deviation(served[name], value)
        for name, value in expected.items()
    }


def _deviation(a: Tensor, b: Tensor) -> float:
    """Compare token by token: against the one huge value that some models carry, every other error would look small."""
    a, b = a.float(), b.float()
    return float(((a - b).norm(dim=-1) / b.norm(dim=-1).clamp_min(torch.finfo(b.dtype).tiny)).max())
