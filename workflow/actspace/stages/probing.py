"""Probes, their effects and cascades, the toy of truth, and concepts: members, and what each stage uses of a config."""

from __future__ import annotations

from typing import Any

from actspace.config.study import Study
from actspace.seeds import seed_for
from actspace.stages.base import model_of, weights_of

KINDS_OF_CONCEPTS = ("unions", "intensity")


def concept_captures(study: Study, kind: str) -> list[str]:
    """List the captures of phrases of one kind."""
    named = [name for name, concept in study.concepts.items() if concept.kind == kind]
    return [name for name, capture in study.captures.items() if capture.tokens in named]


def concepts(study: Study, capture: str) -> dict[str, Any]:
    """One capture of phrases: what kind they are of, and how they are held out."""
    found = study.captures[capture]
    return {
        **study.concepts[found.tokens].model_dump(include={"kind", "folds"}),
        "hooks": found.hooks,
        "labels": {"concept": found.tokens, "capture": capture, "weights": weights_of(found)},
        "seed": seed_for(study.seed, "concepts", found.tokens),
    }


def probes(study: Study, probes: str) -> dict[str, Any]:
    """Probes by name, splits and penalty."""
    return {
        **study.probes[probes].model_dump(exclude={"capture", "C_path", "centring", "monitoring"}),
        "probes": study.probes[probes].fits,
        "hooks": study.captures[study.probes[probes].capture].hooks,
        "seed": seed_for(study.seed, "probes", probes),
    }


def causal_prompts(study: Study, causal: str) -> dict[str, Any]:
    """Which statements are asked about, how, and the tokenizer."""
    member, seeds = study.causal[causal], _causal_seeds(study, causal)
    name = study.captures[study.probes[member.probes].capture].tokens
    statements = study.statements[name]
    asked = ("statements", "template", "answer_true", "answer_false", "shots", "positions")
    return {
        **member.model_dump(include=set(asked)),
        **seeds,
        "sets": member.sets or statements.names,
        "bos": statements.bos,
        "source": study.model.source.model_dump(),
        "trust_remote_code": study.model.trust_remote_code,
    }


def causal(study: Study, causal: str) -> dict[str, Any]:
    """Which directions are added, where and how far, and the model."""
    member = study.causal[causal]
    probes = study.probes[member.probes]
    added = ("hooks", "together", "positions", "train_set", "scaling", "strength", "random_directions")
    return {
        **member.model_dump(include=set(added)),
        **_causal_seeds(study, causal),
        "experiment": causal,
        "fits": member.fits or probes.fits,
        "position": probes.position,
        "model": model_of(study, study.captures[probes.capture]),
        "rows_per_launch": study.compute.rows_per_launch,
    }


def _causal_seeds(study: Study, causal: str) -> dict[str, Any]:
    """Place in the config, seed, and what tells the statements that the tested probes were not fitted on."""
    name = study.causal[causal].probes
    return {
        "where": f"causal.{causal}",
        "seed": seed_for(study.seed, "causal", causal),
        "probe_seed": seed_for(study.seed, "probes", name),
        "test_fraction": study.probes[name].test_fraction,
    }


def cascades(study: Study, probes: str) -> dict[str, Any]:
    """Pairs of probes, and the splits that they were fitted in."""
    member = study.probes[probes]
    assert member.monitoring is not None
    return {
        **member.model_dump(include={"splits", "test_fraction", "monitoring", "position"}),
        "hooks": study.captures[member.capture].hooks,
        "read": monitored_hooks(study, probes),
        "label": probes,
        "seed": seed_for(study.seed, "probes", probes),
    }


def monitored_hooks(study: Study, probes: str) -> list[str]:
    """List the hooks that the stages of a probe study's cascades read, in the order of the capture."""
    member = study.probes[probes]
    assert member.monitoring is not None
    named = {stage.hook for stage in (*member.monitoring.first, *member.monitoring.second)}
    return [hook for hook in study.captures[member.capture].hooks if hook in named]


def monitored(study: Study) -> list[str]:
    """List the probe studies that have cascades."""
    return [name for name, member in study.probes.items() if member.monitoring is not None]


def toy(study: Study) -> dict[str, Any]:
    """The toy's settings."""
    assert study.toy is not None
    return {"toy": study.toy.model_dump(), "seed": seed_for(study.seed, "toy")}
