"""Hook points of the residual stream, under their TransformerLens names, and what can be known to be wrong with them before a model is loaded.

Three kinds exist: `blocks.{l}.hook_resid_pre`, `blocks.{l}.hook_resid_post` and `ln_final.hook_normalized` (the final norm before its weights
are applied)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from actspace.errors import StudyError

HOOK = re.compile(r"blocks\.(0|[1-9]\d*)\.hook_resid_(pre|post)")
FINAL_HOOK = "ln_final.hook_normalized"


def layer_of(hook: str, n_layers: int) -> int:
    """Return how many blocks must run before a hook point is known: 0 for the embedding, `n_layers` for the last residual."""
    if hook == FINAL_HOOK:
        return n_layers
    match = HOOK.fullmatch(hook)
    if not match:
        raise StudyError(
            f"'{hook}' is no hook point of the residual stream; write blocks.N.hook_resid_pre, blocks.N.hook_resid_post or {FINAL_HOOK}"
        )
    return int(match[1]) + (match[2] == "post")


def check_hook(hook: str, n_layers: int, where: str) -> None:
    """Raise a StudyError that names the nearest hook if the model has no such block."""
    layer_of(hook, n_layers)
    match = HOOK.fullmatch(hook)
    if match and int(match[1]) >= n_layers:
        nearest = f"blocks.{n_layers - 1}.hook_resid_{match[2]}"
        raise StudyError(
            f"{where}: this model has no '{hook}' (it has blocks 0 to {n_layers - 1}); did you mean '{nearest}'?"
        )


def check_gauge(gauge: str, normalization: str, where: str = "model.gauge") -> None:
    """Refuse the centred gauge where subtracting the mean over d_model would change the model's output."""
    if gauge == "centred" and normalization != "LayerNorm":
        raise StudyError(f"{where}: 'centred' changes the output of a model with {normalization}; set it to 'raw'")


def check_study(description: Mapping[str, Any], cfg: Mapping[str, Any]) -> None:
    """Check a model, from its description, against all that a study asks of it.

    `cfg` holds `gauge`, and by their place in the config `hooks` (lists), `sites` (pairs of a list of hooks and a later one) and `lengths` in tokens.

    Raises
    ------
    StudyError
        If a hook does not exist, is read before it is perturbed, a sequence is longer than the model's context, or the gauge changes the output.
    """
    check_gauge(cfg["gauge"], description["normalization"])
    for where, hooks in cfg["hooks"].items():
        for i, hook in enumerate(hooks):
            check_hook(hook, description["n_layers"], f"{where}[{i}]")
    for where, (sites, read) in cfg["sites"].items():
        check_hook(read, description["n_layers"], f"{where}.read")
        for site in sites:
            if layer_of(read, description["n_layers"]) < layer_of(site, description["n_layers"]):
                raise StudyError(f"{where}.read: '{read}' comes before the site '{site}'; choose a later hook point")
    for where, length in cfg["lengths"].items():
        if length > description["context_length"]:
            raise StudyError(
                f"{where}: {length} tokens, but the model's context is {description['context_length']}; shorten it"
            )


def known(file: Path, source: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the description of a model that an earlier run left in a file; None if it left none, or one of another model.

    Raises
    ------
    StudyError
        If the file is damaged.
    """
    if not file.is_file():
        return None
    try:
        description = json.loads(file.read_text())
        return description if description["source"] == source else None
    except (ValueError, KeyError, TypeError):
        raise StudyError(f"{file}: not a model's description; delete it and run again") from None


def check_known(file: Path, source: Mapping[str, Any], cfg: Mapping[str, Any]) -> None:
    """Check a study against the model's description that an earlier run left, if it left one of this model.

    Raises
    ------
    StudyError
        As `check_study`, or if the file is damaged.
    """
    description = known(file, source)
    if description is not None:
        check_study(description, cfg)
