"""Experiments that perturb, and those between activations: members, and what each stage uses of a config."""

from __future__ import annotations

from typing import Any

from actspace.config.perturbations import Experiment, Fit
from actspace.config.study import Study
from actspace.perturbations import families
from actspace.seeds import seed_for
from actspace.stages.base import model_of, weights_of
from actspace.stages.dictionaries import first_position
from actspace.stages.fit_names import fit_files


def perturbation(study: Study, experiment: str, hook: str) -> dict[str, Any]:
    """One sweep at one site. Fits that it does not use are left out, so that it stays as it was before there were any."""
    member = study.perturbations[experiment]
    unused = {source for source in families.SOURCES if getattr(member, source) is None}
    return at_site(study, member, experiment, hook) | member.model_dump(exclude=set(Experiment.model_fields) | unused)


def fits_used(study: Study, experiment: str, hook: str) -> dict[str, list[str]]:
    """List the files that bases and directions of a sweep are made from, by the key that names each, below the study's folder."""
    member = study.perturbations[experiment]
    found: dict[str, list[str]] = {}
    for key, chosen in ((families.DICTIONARY, member.dictionary), (families.CLUSTERS, member.clusters)):
        if chosen is not None:
            found[key] = _place_of(chosen, hook)
    if member.probe is not None:
        found[families.PROBE] = [f"probes/{member.probe}/directions.safetensors"]
    return found


def optima(study: Study, optima: str, hook: str) -> dict[str, Any]:
    """One search for sensitivity optima at one site."""
    member = study.optima[optima]
    own = member.model_dump(exclude=set(Experiment.model_fields))
    if member.subspaces:
        own["subspaces"]["n_prompts"] = own["subspaces"].pop("prompts")
    return at_site(study, member, optima, hook) | own


def planes(study: Study, planes: str, hook: str) -> dict[str, Any]:
    """Planes through activations at one site."""
    member = study.planes[planes]
    return at_site(study, member, planes, hook) | member.model_dump(exclude=set(Experiment.model_fields))


def at_site(study: Study, member: Experiment, experiment: str, hook: str) -> dict[str, Any]:
    """What all experiments that perturb need: labels, place, prompts and model.

    The seed is one for all of them, so that they are paired wherever they can be: same prompts, same draws.
    """
    capture = study.captures[member.capture]
    return {
        "experiment": experiment,
        "site": hook,
        "weights": weights_of(capture),
        **member.model_dump(include={"read", "position"}),
        "n_prompts": member.prompts,
        "model": model_of(study, capture),
        "rows_per_launch": study.compute.rows_per_launch,
        "seed": seed_for(study.seed, "perturbations"),
    }


def regions(study: Study, regions: str, hook: str) -> dict[str, Any]:
    """Walks between prompts at one site. Which dictionary has the cells is told by the input."""
    member = study.regions[regions]
    own = set(Experiment.model_fields) | {"cells"}
    return at_site(study, member, regions, hook) | member.model_dump(exclude=own)


def cells(study: Study, regions: str, hook: str) -> list[str]:
    """List the files of the fit whose cells are looked up at a site, below the study's folder; none where there is none."""
    chosen = study.regions[regions].cells
    if chosen is None or hook not in study.dictionaries[chosen.study].hooks:
        return []
    return _place_of(chosen, hook)


def _place_of(chosen: Fit, hook: str) -> list[str]:
    return [f"dictionaries/{chosen.study}/{hook}/real/{file}" for file in fit_files(chosen.fit)]


def spikes(study: Study, spikes: str) -> dict[str, Any]:
    """Pairs to draw, and the rows to draw them from; the fits are inputs."""
    member = study.spikes[spikes]
    return {
        **member.model_dump(include={"pairs", "steps"}),
        "labels": {"experiment": spikes, "dictionaries": member.dictionaries, "hook": member.hook},
        "first_position": first_position(study, study.dictionaries[member.dictionaries], "real"),
        "seed": seed_for(study.seed, "spikes", spikes),
    }


def toy_superposition(study: Study) -> dict[str, Any]:
    """The toy's settings."""
    assert study.toy_superposition is not None
    return {"toy": study.toy_superposition.model_dump(), "seed": seed_for(study.seed, "toy superposition")}


def statistics(study: Study) -> dict[str, Any]:
    """Only a seed, for the bootstrap."""
    return {"seed": seed_for(study.seed, "statistics")}
