"""Sparse autoencoders in the format of SAELens: a folder of `cfg.json` and `sae_weights.safetensors`, written and read.

What others saved is brought into one form while it is read: p = (x - b_dec) W_enc + b_enc, a threshold or the k largest
of p, and x_hat = f W_dec + b_dec; scales, shifts and gates are folded into the weights.
Source: SAELens 6 (`saes/*.py`); gated SAEs as JumpReLU: Rajamanoharan et al. (2024), appendix on weight sharing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from actspace import provenance
from actspace.dictionaries import layout
from actspace.errors import StudyError

if TYPE_CHECKING:
    from actspace.dictionaries.base import SAE

OURS = "actspace"
FORMAT = "6.0.0"  # the version of SAELens whose form of `cfg.json` is written
ARCHITECTURES = {
    "l1": "standard",
    "topk": "topk",
    "jumprelu": "jumprelu",
    "batch_topk": "jumprelu",
    "matryoshka": "jumprelu",
}
"""Architecture that SAELens has for each family; the first family of an architecture is what a foreign SAE becomes."""


class Content(NamedTuple):
    """What a folder holds: the family, its tensors (float32) and settings as its class takes them, and the metadata."""

    family: str
    tensors: dict[str, Tensor]
    settings: dict[str, Any]
    metadata: dict[str, Any]


def configuration(
    family: str, tensors: Mapping[str, Tensor], settings: Mapping[str, Any], metadata: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the content of `cfg.json` for an SAE.

    Parameters
    ----------
    family, tensors, settings : of the dictionary
    metadata : mapping
        Goes under `metadata` as it is: `model_name`, `hook_name` and whatever else SAELens knows; ours under `actspace`.
    """
    architecture = ARCHITECTURES[family]
    d_sae, d_in = tensors["W_dec"].shape
    own = {"family": family, "settings": dict(settings), **metadata.get(OURS, {})}
    return {
        "architecture": architecture,
        "d_in": d_in,
        "d_sae": d_sae,
        "dtype": str(tensors["W_dec"].dtype).removeprefix("torch."),
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {**metadata, "sae_lens_version": FORMAT, OURS: own},
        **({"k": settings["k"], "rescale_acts_by_decoder_norm": False} if architecture == "topk" else {}),
    }


def write_config(sae: SAE, path: Path, metadata: Mapping[str, Any]) -> None:
    """Write the `cfg.json` of an SAE; equal ones give equal bytes."""
    content = configuration(sae.family, dict(sae.named_buffers()), sae.settings, metadata)
    Path(path).write_text(json.dumps(content, sort_keys=True, indent=1) + "\n", encoding="utf-8")


def write_weights(sae: SAE, path: Path) -> None:
    """Write the `sae_weights.safetensors` of an SAE; equal ones give equal bytes."""
    save_file({name: tensor.cpu().contiguous() for name, tensor in sae.named_buffers()}, path)


def write_artifacts(
    sae: SAE, weights: str, config: str, metadata: Mapping[str, Any], made_by: provenance.MadeBy
) -> None:
    """Write both files of an SAE with their receipts, the weights last.

    Parameters
    ----------
    weights, config : paths of the two files
    metadata : mapping
        In SAELens' words: `hook_name`, which is TransformerLens' name too, and what `of_model` returns.
    made_by
        Goes under `actspace` of the metadata, and into the receipts.
    """
    content = {**metadata, OURS: {"made_by": json.loads(made_by.as_json())}}
    provenance.write(config, lambda path: write_config(sae, path, content), made_by)
    provenance.write(weights, lambda path: write_weights(sae, path), made_by)


def of_model(made_on: Mapping[str, Any]) -> dict[str, Any]:
    """Say in SAELens' words which model activations come from, given the settings of their capture.

    Surrogate data come from none. A centred residual stream is what TransformerLens gives when it centres the writing
    weights.
    """
    if "model" not in made_on:
        return {}
    model = made_on["model"]
    source = model["source"]
    name = source["repo"] if source["kind"] == "hub" else Path(source.get("member") or source["path"]).stem
    centred = {"model_from_pretrained_kwargs": {"center_writing_weights": True}} if model["gauge"] == "centred" else {}
    return {"model_name": name, **centred}


def save(sae: SAE, folder: Path, metadata: Mapping[str, Any]) -> None:
    """Write both files of an SAE into a folder, each whole or not at all and the weights last.

    A folder that has weights has the settings that belong to them, so that nothing unfinished can be read.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config, weights = (folder / f"{name}.partial" for name in (layout.CONFIG, layout.WEIGHTS))
    write_config(sae, config, metadata)
    write_weights(sae, weights)
    (folder / layout.WEIGHTS).unlink(missing_ok=True)
    config.replace(folder / layout.CONFIG)
    weights.replace(folder / layout.WEIGHTS)


def read(folder: Path, device: str | torch.device = "cpu") -> Content:
    """Read an SAE that this package or SAELens saved.

    Raises
    ------
    StudyError
        As `layout.check`, or if the weights cannot be read, hold a NaN or an infinity, or are not what their receipt says.
    """
    cfg, path = layout.check(folder), Path(folder) / layout.WEIGHTS
    provenance.check(path)
    try:
        tensors = load_file(path, device=str(device))
    except (OSError, SafetensorError) as error:
        raise StudyError(f"{path}: cannot be read as a safetensors file ({error}); save or fetch it again") from error
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise StudyError(f"{path}: {name} holds a NaN or an infinity; save or fetch it again")
    if not is_folded(cfg, tensors):
        tensors = fold(cfg, {name: tensor.double() for name, tensor in tensors.items()}, str(path))
    family, settings = family_of(cfg)
    return Content(family, {name: t.float().contiguous() for name, t in tensors.items()}, settings, cfg["metadata"])


def is_folded(cfg: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> bool:
    """Tell whether an SAE has our form already, as those that we saved do."""
    extra = cfg["architecture"] == "gated" or cfg.get("rescale_acts_by_decoder_norm") or {*layout.SCALING} & {*tensors}
    return bool(cfg["apply_b_dec_to_input"] and not extra)


def family_of(cfg: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the family and the settings of its class: those that we noted, else the first one of the architecture."""
    architecture = "jumprelu" if cfg["architecture"] == "gated" else cfg["architecture"]
    noted = cfg["metadata"].get(OURS) or {}
    if ARCHITECTURES.get(noted.get("family", "")) == architecture:
        family, settings = noted["family"], dict(noted.get("settings", {}))
    else:
        family, settings = next(name for name, known in ARCHITECTURES.items() if known == architecture), {}
    return family, settings | ({"k": cfg["k"]} if architecture == "topk" else {})


def fold(cfg: Mapping[str, Any], tensors: dict[str, Tensor], where: str) -> dict[str, Tensor]:
    """Bring the tensors of any architecture that is read into our form; float64, shapes as in `layout.TENSORS`.

    Raises
    ------
    StudyError
        If there are scaling factors, not all 1, that the settings do not say are to be used.
    """
    tensors = dict(tensors)
    scale = next((tensors.pop(name) for name in layout.SCALING if name in tensors), None)
    if cfg["architecture"] == "gated":
        tensors = as_jumprelu(tensors)
    if not cfg["apply_b_dec_to_input"]:
        tensors["b_enc"] = tensors["b_enc"] + tensors["b_dec"] @ tensors["W_enc"]
    if cfg.get("rescale_acts_by_decoder_norm"):
        norm = tensors["W_dec"].norm(dim=1).clamp_min(torch.finfo(torch.float32).tiny)
        tensors |= {"W_enc": tensors["W_enc"] * norm, "b_enc": tensors["b_enc"] * norm}
        tensors["W_dec"] = tensors["W_dec"] / norm[:, None]
    if scale is not None and not torch.allclose(scale, torch.ones_like(scale)):
        if not cfg.get("finetuning_scaling_factor"):
            raise StudyError(
                f"{where}: holds scaling factors, but finetuning_scaling_factor is false in {layout.CONFIG}; correct one of the two"
            )
        tensors["W_dec"] = scale[:, None] * tensors["W_dec"]
    return tensors


def as_jumprelu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Write a gated SAE as a JumpReLU one that has the same latents.

    With g = u + b_gate and m = exp(r_mag) u + b_mag, where u = x W_enc, a latent is relu(m) where g > 0. That is where m
    exceeds b_mag - exp(r_mag) b_gate.
    """
    gain = tensors["r_mag"].exp()
    return {
        "W_enc": tensors["W_enc"] * gain,
        "b_enc": tensors["b_mag"],
        "threshold": tensors["b_mag"] - gain * tensors["b_gate"],
        "W_dec": tensors["W_dec"],
        "b_dec": tensors["b_dec"],
    }
