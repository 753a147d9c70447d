"""What a folder in the format of SAELens must hold, told from its `cfg.json` and the header of its weights alone.

Nothing but the standard library here: the workflow checks folders that a study names whenever it is parsed.
Source: SAELens 6 (`saes/sae.py`, `loading/pretrained_sae_loaders.py`), whose names are used throughout."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from actspace.errors import StudyError

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
_SHARED = {"W_enc": ("d_in", "d_sae"), "W_dec": ("d_sae", "d_in"), "b_dec": ("d_in",)}
_BIASED = _SHARED | {"b_enc": ("d_sae",)}
TENSORS = {
    "standard": _BIASED,
    "topk": _BIASED,
    "jumprelu": _BIASED | {"threshold": ("d_sae",)},
    "gated": _SHARED | {"b_gate": ("d_sae",), "b_mag": ("d_sae",), "r_mag": ("d_sae",)},
}
"""Tensors of each architecture that is read, and their axes."""
SCALING = ("scaling_factor", "finetuning_scaling_factor")
"""Factors (d_sae,) on the latents, from fine-tuning; at most one of them is there."""
HOOK = re.compile(r"blocks\.(\d+)\.hook_resid_(pre|post)")
_TRAINING = ("batchtopk", "matryoshka_batchtopk")
_MOST_HEADER_BYTES = 100_000_000


def check(folder: Path, d_model: int | None = None, hook: str | None = None) -> dict[str, Any]:
    """Check all that can be known without reading weights, and return the settings in the form of SAELens 6.

    Parameters
    ----------
    folder : Path
        Holds `cfg.json` and `sae_weights.safetensors`.
    d_model, hook : the model's width and the hook point at which it is to be used, where they are known

    Returns
    -------
    dict with at least architecture, d_in, d_sae, apply_b_dec_to_input and metadata; k if the architecture is topk

    Raises
    ------
    StudyError
        If a file is absent or damaged, the width is another, the SAE was made for another hook point, its architecture
        is not known, tensors are absent or of the wrong shape, or it needs what cannot be folded into the weights.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise StudyError(f"{folder}: there is no such folder; name one that holds {CONFIG} and {WEIGHTS}")
    check_names(str(folder), [path.name for path in folder.iterdir()])
    cfg = read_config(folder / CONFIG)
    _check_settings(folder, cfg)
    _check_place(folder, cfg, d_model, hook)
    _check_shapes(folder, cfg, read_shapes(folder / WEIGHTS))
    return cfg


def check_folders(folders: Iterable[tuple[str, str, str]], d_model: int | None) -> None:
    """Check folders, given with their place in the config and the hook point at which they are to be used.

    Raises a StudyError as `check`, with that place in front.
    """
    for where, folder, hook in folders:
        try:
            check(Path(folder), d_model, hook)
        except StudyError as error:
            raise StudyError(f"{where}: {error}") from error


def check_names(where: str, names: Iterable[str]) -> None:
    """Raise a StudyError if a folder with files of these names lacks one that is needed."""
    names = list(names)
    for needed in (CONFIG, WEIGHTS):
        if needed not in names:
            pickles = [name for name in names if name.endswith((".pt", ".pth", ".bin", ".pkl"))]
            why = f"{pickles[0]} is a pickle, which can run code and is not read; " if pickles else ""
            raise StudyError(
                f"{where}: no {needed}; {why}save the SAE with SAELens' `save_model`, which writes {CONFIG} and {WEIGHTS}"
            )


def read_config(path: Path) -> dict[str, Any]:
    """Read a `cfg.json`; the form from before SAELens 6, with everything at the top level, is brought into that of 6."""
    try:
        cfg = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StudyError(f"{path}: cannot be read as JSON ({error}); save the SAE again") from error
    if not isinstance(cfg, dict):
        raise StudyError(f"{path}: holds no settings by name; save the SAE again")
    found = cfg.get("metadata")
    metadata: dict[str, Any] = found if isinstance(found, dict) else {}
    if not (cfg.get("sae_lens_version") or metadata.get("sae_lens_version")):
        metadata = {"hook_name": cfg.get("hook_name", cfg.get("hook_point")), "model_name": cfg.get("model_name")}
    activation = cfg.get("activation_fn", cfg.get("activation_fn_str", "relu"))
    kwargs = cfg.get("activation_fn_kwargs") or {}
    normalize = cfg.get("normalize_activations") or "none"
    return {
        **cfg,
        "architecture": "topk" if activation == "topk" else cfg.get("architecture", "standard"),
        "activation_fn": activation,
        "k": cfg.get("k", kwargs.get("k")),
        "apply_b_dec_to_input": cfg.get("apply_b_dec_to_input", True),
        "normalize_activations": "expected_average_only_in" if normalize is True else normalize,
        "metadata": metadata,
    }


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor of a safetensors file, from its header."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if not 0 < size < _MOST_HEADER_BYTES:
                raise ValueError("its header has no sensible size")
            header = json.loads(file.read(size))
        return {name: tuple(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StudyError(f"{path}: cannot be read as a safetensors file ({error}); save or fetch it again") from error


def _check_settings(folder: Path, cfg: dict[str, Any]) -> None:
    """Refuse what is not known, and what depends on each activation and so cannot be folded into the weights."""
    where, architecture = f"{folder / CONFIG}", cfg["architecture"]
    if architecture in _TRAINING:
        raise StudyError(
            f"{where}: '{architecture}' is an SAE in training, without its threshold; save it with SAELens' `save_inference_model`"
        )
    if architecture not in TENSORS:
        raise StudyError(f"{where}: architecture '{architecture}' is not read; {', '.join(TENSORS)} are")
    if cfg["activation_fn"] not in ("relu", "topk"):
        raise StudyError(f"{where}: activation_fn '{cfg['activation_fn']}' is not read; relu and topk are")
    if cfg["normalize_activations"] == "expected_average_only_in":
        raise StudyError(
            f"{where}: normalize_activations is 'expected_average_only_in', and its factor is not in the folder; "
            "fold it in with SAELens' `fold_activation_norm_scaling_factor` and save again"
        )
    if cfg["normalize_activations"] != "none":
        raise StudyError(
            f"{where}: normalize_activations '{cfg['normalize_activations']}' cannot be folded into the weights; use an SAE with 'none'"
        )
    if cfg.get("reshape_activations", "none") != "none" or "hook_z" in str(cfg["metadata"].get("hook_name")):
        raise StudyError(f"{where}: made for attention heads; use one for the residual stream")
    for key in ("d_in", "d_sae", *(("k",) if architecture == "topk" else ())):
        value = cfg.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise StudyError(f"{where}: {key} is {value!r}; it must be a positive integer")
    if architecture == "topk" and cfg["k"] > cfg["d_sae"]:
        raise StudyError(f"{where}: k is {cfg['k']}, more than the {cfg['d_sae']} latents there are; correct it")


def _check_place(folder: Path, cfg: dict[str, Any], d_model: int | None, hook: str | None) -> None:
    """Refuse an SAE that is too wide or too narrow for the model, or was made for another place in it."""
    if d_model is not None and cfg["d_in"] != d_model:
        raise StudyError(
            f"{folder / CONFIG}: d_in is {cfg['d_in']}, but the model's activations have {d_model} dimensions; "
            "use an SAE of this model"
        )
    made_for = cfg["metadata"].get("hook_name")
    if hook and made_for and place_of(str(made_for)) != place_of(hook):
        raise StudyError(
            f"{folder / CONFIG}: made for '{made_for}', not for '{hook}'; name another folder or hook point"
        )


def place_of(hook: str) -> str | tuple[int]:
    """Name a place in the residual stream: what a block puts out is what the next one gets."""
    match = HOOK.fullmatch(hook)
    return (int(match[1]) + (match[2] == "post"),) if match else hook


def _check_shapes(folder: Path, cfg: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> None:
    """Refuse weights that do not belong to the settings."""
    wanted = {name: tuple(cfg[axis] for axis in axes) for name, axes in TENSORS[cfg["architecture"]].items()}
    wanted |= {name: (cfg["d_sae"],) for name in SCALING if name in shapes}
    where = f"{folder / WEIGHTS}"
    for names, what in ((set(wanted) - set(shapes), "is missing"), (set(shapes) - set(wanted), "has no place")):
        if names:
            raise StudyError(
                f"{where}: {min(names)} {what} in the architecture '{cfg['architecture']}'; save the SAE again"
            )
    for name, shape in wanted.items():
        if shapes[name] != shape:
            raise StudyError(
                f"{where}: {name} has the shape {shapes[name]}, but {CONFIG} says {shape}; save the SAE again"
            )
