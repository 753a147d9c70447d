"""What SAELens itself makes of our SAEs, and SAEs of its own for us; runs in the environment of `make bench-peers`.

Called with a folder that holds `x.safetensors` (activations `x`) and SAEs in `ours/`. Puts what SAELens computes with each
of them, `latents` and `reconstruction` of x, to `ours/<name>.safetensors`; makes SAEs of its own in `theirs/`, with random
weights and every architecture and flag, and puts the same of them beside them."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from sae_lens import SAE
from safetensors.torch import load_file, save_file

D_SAE = 24
THEIRS = {
    "standard": {"architecture": "standard"},
    "standard_plain_input": {"architecture": "standard", "apply_b_dec_to_input": False},
    "topk": {"architecture": "topk", "k": 5},
    "topk_rescaled": {"architecture": "topk", "k": 5, "rescale_acts_by_decoder_norm": True},
    "jumprelu": {"architecture": "jumprelu"},
    "jumprelu_plain_input": {"architecture": "jumprelu", "apply_b_dec_to_input": False},
    "gated": {"architecture": "gated"},
    "gated_plain_input": {"architecture": "gated", "apply_b_dec_to_input": False},
}


def compute(sae: SAE, x: torch.Tensor, path: Path) -> None:
    """Write what an SAE makes of x (row, d_model)."""
    with torch.no_grad():
        latents = sae.encode(x)
        save_file({"latents": latents.contiguous(), "reconstruction": sae.decode(latents).contiguous()}, path)


def make(settings: dict, d_in: int) -> SAE:
    """Make an SAE with random weights, none of them zero."""
    sae = SAE.from_dict(
        {"d_in": d_in, "d_sae": D_SAE, "metadata": {"hook_name": "blocks.0.hook_resid_post"}, **settings}
    )
    generator = torch.Generator().manual_seed(0)
    for name, parameter in sae.named_parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) / (2 if name.startswith("W") else 4)
    return sae


def main() -> None:
    folder = Path(sys.argv[1])
    x = load_file(folder / "x.safetensors")["x"]
    for ours in sorted(path for path in (folder / "ours").iterdir() if path.is_dir()):
        compute(SAE.load_from_disk(ours), x, ours.with_suffix(".safetensors"))
    for name, settings in THEIRS.items():
        sae = make(settings, x.shape[1])
        sae.save_model(folder / "theirs" / name)
        compute(sae, x, folder / "theirs" / f"{name}.safetensors")


main()
