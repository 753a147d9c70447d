"""Folders in the format of SAELens, written without its code or ours: what tests hand in as somebody else's SAE."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor


def tensors(d_in: int, d_sae: int, seed: int = 0, names: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """Make random weights; `names` are further tensors of shape (d_sae,)."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"W_enc": (d_in, d_sae), "b_enc": (d_sae,), "W_dec": (d_sae, d_in), "b_dec": (d_in,)}
    shapes |= dict.fromkeys(names, (d_sae,))
    return {name: torch.randn(shape, generator=generator) / 2 for name, shape in shapes.items()}


def write(folder: Path, weights: dict[str, Tensor], **settings: Any) -> Path:
    """Write a folder of architecture `standard`, unless the settings say otherwise, and return it."""
    d_in, d_sae = weights["W_enc"].shape
    cfg = {
        "architecture": "standard",
        "d_in": d_in,
        "d_sae": d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"sae_lens_version": "6.54.12"},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cfg.json").write_text(json.dumps(cfg | settings))
    save_file(weights, folder / "sae_weights.safetensors")
    return folder
