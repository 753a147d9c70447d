"""What the stages of all sections share: how a cfg is written, and which state of the model one is about."""

from __future__ import annotations

from typing import Any

from actspace.config.inputs import Capture
from actspace.config.study import Study
from actspace.seeds import seed_for

SPLITS = ("train", "test")


def canonical(value: Any) -> Any:
    """Sort a cfg by key, all the way down."""
    if isinstance(value, dict):
        return {key: canonical(value[key]) for key in sorted(value)}
    return [canonical(item) for item in value] if isinstance(value, list | tuple) else value


def weights_of(capture: Capture) -> str:
    """Name the state of the model that a capture reads: trained, random, or another revision."""
    return capture.revision or capture.weights


def no_settings(study: Study) -> dict[str, Any]:
    """For stages that only put together what others made."""
    return {}


def model_settings(study: Study, weights: str = "trained", revision: str | None = None) -> dict[str, Any]:
    """Where the model comes from and what it is used as, with one state of its weights."""
    settings = study.model.model_dump()
    if revision:
        settings["source"] |= {"revision": revision}
    if weights == "random":
        settings["random_weights_seed"] = seed_for(study.seed, "random weights")
    return settings


def model_of(study: Study, capture: Capture) -> dict[str, Any]:
    """The state of the model that a capture reads."""
    return model_settings(study, capture.weights, capture.revision)
