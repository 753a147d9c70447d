"""The model, texts, statements and phrases: what their stages use of a config, and where their files lie."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from actspace.config.inputs import Gguf, Package, PackageText
from actspace.config.study import Study, experiments
from actspace.seeds import seed_for
from actspace.stages.base import model_settings


def revisions(study: Study) -> list[str]:
    """List the revisions of the model that captures read, beside its own."""
    return sorted({capture.revision for capture in study.captures.values() if capture.revision})


def package(study: Study, package: str) -> dict[str, Any]:
    """Name, version and sha256 of a wheel."""
    sources = [study.model.source, *(study.corpus.sources if study.corpus else [])]
    found = next(s for s in sources if isinstance(s, Package | PackageText) and f"{s.name}-{s.version}" == package)
    return {"name": found.name, "version": found.version, "sha256": found.sha256}


def checks(study: Study) -> dict[str, Any]:
    """All that the model must be able to do, for `hooks.check_study`. No stage's cfg: a study that asks for more reruns nothing it has."""
    hooks = {f"captures.{name}.hooks": capture.hooks for name, capture in study.captures.items()}
    lengths = {f"tokens.{name}.length": value.length for name, value in study.tokens.items()}
    sites = {where: [member.sites, member.read] for where, member in experiments(study).items()}
    return {"gauge": study.model.gauge, "hooks": hooks, "lengths": lengths, "sites": sites}


def model(study: Study) -> dict[str, Any]:
    """Where the model comes from."""
    return model_settings(study)


def checkpoint(study: Study, revision: str) -> dict[str, Any]:
    """Where another revision of the model comes from."""
    return model_settings(study, revision=revision)


def selfcheck(study: Study) -> dict[str, Any]:
    """The model as it is used; every hook point is checked."""
    return {"model": model_settings(study), "seed": seed_for(study.seed, "selfcheck")}


def tokens(study: Study, tokens: str) -> dict[str, Any]:
    """Text, tokenizer and shape of a token set."""
    settings = study.tokens[tokens].model_dump()
    assert study.corpus is not None  # `tokens` without `corpus` is refused when the config is read
    return {
        "source": study.model.source.model_dump(),
        "trust_remote_code": study.model.trust_remote_code,
        "corpus": study.corpus.model_dump(),
        "tokens": settings,
        "seed": seed_for(study.seed, "split"),
    }


def statements(study: Study, statements: str) -> dict[str, Any]:
    """Sets of statements and the tokenizer."""
    found = study.statements[statements]
    settings = found.model_dump(exclude={"geometry_of_truth", "truth_is_universal"})
    settings["files"] = {name: local_copy(place) for name, place in found.places.items()}
    source, trust = study.model.source.model_dump(), study.model.trust_remote_code
    return {
        "source": source,
        "trust_remote_code": trust,
        "statements": settings,
        "seed": seed_for(study.seed, "statements", statements),
    }


def phrases(study: Study, concept: str) -> dict[str, Any]:
    """Templates, words and the tokenizer; nothing is drawn."""
    return {
        "source": study.model.source.model_dump(),
        "trust_remote_code": study.model.trust_remote_code,
        "concept": study.concepts[concept].model_dump(exclude={"folds"}),
    }


def convert_model(study: Study) -> dict[str, Any]:
    """Where the GGUF comes from."""
    return {"source": study.model.source.model_dump()}


def converted_model(study: Study) -> str | None:
    """Folder of the converted copy of a GGUF model, None for models that are read where they are."""
    source = study.model.source
    if not isinstance(source, Gguf | Package):
        return None
    stem = Path(source.member if isinstance(source, Package) else source.path).stem
    return f"resources/models/{stem}-{source.sha256[:12]}"


def user_files(study: Study) -> dict[str, list[str]]:
    """Local files that the config names, by stage; an address is not a file before it is fetched."""
    corpus = [source.path for source in (study.corpus.sources if study.corpus else []) if source.kind == "file"]
    statements = [local_copy(place) for value in study.statements.values() for place in value.places.values()]
    return {"tokens": corpus, "statements": statements}


def local_copy(place: str) -> str:
    """Return where a file of statements lies: a path is itself, an address has a copy named by its hash."""
    if not place.startswith("https://"):
        return place
    name = Path(place.partition("#")[0]).name
    return f"resources/statements/{hashlib.sha256(place.encode()).hexdigest()[:12]}-{name}"


def statement_file(study: Study, name: str) -> dict[str, Any]:
    """The address that a local copy comes from, with the sha256 that it must have if that is known."""
    places = [place for value in study.statements.values() for place in value.places.values()]
    return {"address": next(place for place in places if Path(local_copy(place)).name == name)}
