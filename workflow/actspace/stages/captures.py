"""Captures of activations, and what is measured on them as they are."""

from __future__ import annotations

from typing import Any

from actspace.config.study import Study, experiments
from actspace.seeds import seed_for
from actspace.stages.base import SPLITS, model_of


def shards(study: Study, tokens: str, split: str) -> list[str]:
    """List the shards of a token set, as they stand in file names; statements and phrases are one shard of the split `all`."""
    if tokens in study.statements or tokens in study.concepts:
        return ["000"] if split == "all" else []
    return [f"{i:03d}" for i in range(study.tokens[tokens].shards)] if split in SPLITS else []


def parts(study: Study, tokens: str) -> list[str]:
    """List the files of a token set, or of a capture of it: split and shard."""
    return [f"{split}-{shard}" for split in (*SPLITS, "all") for shard in shards(study, tokens, split)]


def hooks_with_moments(study: Study) -> list[tuple[str, str]]:
    """List the pairs of capture and hook whose moments some stage needs."""
    dictionaries = [(capture, d.hooks) for d in study.dictionaries.values() for capture in (d.capture, d.untrained)]
    wanted = {(capture, hook) for capture, hooks in dictionaries if capture for hook in hooks}
    perturbed = {(member.capture, site) for member in experiments(study).values() for site in member.sites}
    return sorted(wanted | perturbed)


def activations(study: Study, capture: str) -> dict[str, Any]:
    """Everything that decides the bits of a capture; what is read of it later does not, nor which other hooks are read."""
    found = study.captures[capture]
    return {
        "model": model_of(study, found),
        "batch_tokens": study.compute.batch_tokens,
        "capture": found.model_dump(include={"positions", "storage"}),
    }


def moments(study: Study, capture: str, hook: str) -> dict[str, Any]:
    """Rows to use."""
    return {
        "select": study.captures[capture].select.model_dump(),
        "seed": seed_for(study.seed, "moments", capture, hook),
    }


def activation_table(study: Study) -> dict[str, Any]:
    """Which hook points the table lists."""
    return {"places": [{"capture": capture, "hook": hook} for capture, hook in hooks_with_moments(study)]}


def surrogate(study: Study, null: str, capture: str, hook: str, split: str) -> dict[str, Any]:
    """Which null, of which rows."""
    return {
        "null": null,
        "select": study.captures[capture].select.model_dump(),
        "seed": seed_for(study.seed, "surrogate", null, capture, hook, split),
    }
