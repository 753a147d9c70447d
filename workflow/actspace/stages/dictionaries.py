"""What the stages of dictionaries use of a config."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from actspace.config.dictionaries import Dictionaries
from actspace.config.study import Study
from actspace.dictionaries import layout
from actspace.seeds import seed_for
from actspace.stages.base import model_of
from actspace.stages.fit_names import GIVEN, capture_of, fit_labels, fits, spliced


def rate_distortion(study: Study) -> dict[str, Any]:
    """Which hook points the table lists: those with dictionaries."""
    places = sorted({(member.capture, hook) for member in study.dictionaries.values() for hook in member.hooks})
    return {"places": [{"capture": capture, "hook": hook} for capture, hook in places]}


def fit(study: Study, dictionaries: str, hook: str, data: str, fit: str) -> dict[str, Any]:
    """Settings of one fit and the rows it uses. The seed depends on the fit alone, so real data and nulls start alike."""
    member = study.dictionaries[dictionaries]
    return {
        "fit": fits(member)[fit],
        "first_position": first_position(study, member, data),
        "seed": seed_for(study.seed, "fit", dictionaries, hook, fit),
    }


def given(study: Study, dictionaries: str, hook: str, fit: str) -> dict[str, Any]:
    """Where an SAE comes from that was trained elsewhere, and the hook point at which it is used."""
    chosen = study.dictionaries[dictionaries].given[fit.removeprefix(f"{GIVEN}-")]
    return {"given": chosen.model_dump() | {"folder": chosen.folder.replace("{hook}", hook)}, "hook": hook}


def given_folders(study: Study, results: Path) -> list[tuple[str, str, str]]:
    """List the local folders of SAEs: place in the config, folder, and the hook point at which it is used.

    A folder that is gone is left out where its SAE has been read: an unpacked archive has the results without it.
    """
    found = []
    for name, member in study.dictionaries.items():
        for (sae, chosen), hook in itertools.product(member.given.items(), member.hooks):
            folder = chosen.folder.replace("{hook}", hook)
            read = results / "dictionaries" / name / hook / "real" / f"{GIVEN}-{sae}" / f"{layout.CONFIG}.json"
            if chosen.repo is None and (Path(folder).is_dir() or not read.is_file()):
                found.append((f"dictionaries.{name}.given.{sae}.folder", folder, hook))
    return found


def dictionary_metrics(study: Study, dictionaries: str, hook: str, data: str, fit: str) -> dict[str, Any]:
    """Who the fit is, in the columns of its table, and the rows it is measured on."""
    member = study.dictionaries[dictionaries]
    labels = {"capture": member.capture, "hook": hook, "data": data, **fit_labels(fit)}
    return {
        "labels": labels,
        "gauge": study.model.gauge,
        "first_position": first_position(study, member, data),
        "seed": seed_for(study.seed, "bootstrap", dictionaries, hook, data, fit),
        "documents_seed": _documents_seed(study, member, data),
    }


def _documents_seed(study: Study, member: Dictionaries, data: str) -> int:
    """Seed of the resampled documents: one for all fits to activations of the same text, so that differences are paired.

    Random weights see the text too. Of a surrogate, whose rows are drawn whatever the text, the documents are a mere
    grouping of independent rows: they are resampled on their own.
    """
    text = "text" if data in ("real", "untrained") else data
    return seed_for(study.seed, "documents", study.captures[member.capture].tokens, text)


def top_contexts(study: Study, dictionaries: str, hook: str) -> dict[str, Any]:
    """The tokenizer, and the rows among which contexts are looked for."""
    member = study.dictionaries[dictionaries]
    model = model_of(study, study.captures[member.capture])
    return {
        "source": model["source"],
        "trust_remote_code": model["trust_remote_code"],
        "labels": {"capture": member.capture, "hook": hook},
        "first_position": first_position(study, member, "real"),
        "seed": seed_for(study.seed, "top contexts", dictionaries, hook),
    }


def matches(study: Study, dictionaries: str, hook: str, data: str) -> dict[str, Any]:
    """Which fits these are; what is compared follows from their names."""
    labels = {"capture": study.dictionaries[dictionaries].capture, "hook": hook, "data": data}
    return {"labels": labels, "seed": seed_for(study.seed, "matches", dictionaries, hook, data)}


def splice(study: Study, dictionaries: str, hook: str) -> dict[str, Any]:
    """Held-out sequences and the model to run with reconstructions in it."""
    member = study.dictionaries[dictionaries]
    capture = study.captures[member.capture]
    return {
        "model": model_of(study, capture),
        "hook": hook,
        "sequences": member.splice_sequences,
        "first_position": capture.select.first_position,
        "labels": {
            name: dictionary_metrics(study, dictionaries, hook, "real", name)["labels"] for name in spliced(member)
        },
        "seed": seed_for(study.seed, "splice", dictionaries, hook),
    }


def first_position(study: Study, member: Dictionaries, data: str) -> int:
    """A surrogate has just the rows that were selected."""
    captured = data in ("real", "untrained")
    return study.captures[capture_of(member, data)].select.first_position if captured else 0
