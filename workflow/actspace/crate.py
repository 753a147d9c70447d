"""What an archive is, in the words of RO-Crate: one run of the workflow, what it read, what it made, and with which software.

Source: RO-Crate 1.1 and the Process Run Crate profile 0.5 (https://w3id.org/ro/wfrun/process/0.5)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import quote

from rocrate.model import ContextEntity, Entity
from rocrate.rocrate import ROCrate

import actspace
from actspace import archive
from actspace.config.study import Study
from actspace.manifest import Files, Receipts, read_from_outside, versions

VERSION = "1.1"
PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
TERMS = "https://w3id.org/ro/terms/workflow-run/context"
OPENED = ("tables", "figures")
"""Folders of a study whose files are described one by one."""
FORMATS = {
    ".csv": "text/csv",
    ".html": "text/html",
    ".json": "application/json",
    ".parquet": "application/vnd.apache.parquet",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
    ".yaml": "application/yaml",
}


class Run(NamedTuple):
    """The run of a study, as its archive tells of it.

    Parameters
    ----------
    results : folder of the study, below the root of the archive
    model : its description, as in model.json
    receipts : of all results, by path
    code : commit and state of the code, from `checkout.version`
    date : day of the report, as 2026-01-31
    """

    results: Path
    model: Mapping[str, Any]
    receipts: Receipts
    code: Mapping[str, Any]
    date: str

    @property
    def prefix(self) -> str:
        """How the names of its files begin in the archive."""
        return f"{self.results.as_posix()}/"


def describe(study: Study, made: Run, files: Files) -> str:
    """Write the metadata of an archive.

    Parameters
    ----------
    study : the study
    made : its run
    files : sha256 and size of the members of the archive, by name

    Returns
    -------
    JSON-LD; the same for the same arguments
    """
    crate = ROCrate(version=VERSION)
    crate.metadata.extra_contexts.append(TERMS)
    authors = [_context(crate, f"#author-{i}", "Person", name=name) for i, name in enumerate(study.archive.authors, 1)]
    parts = list(_parts(crate, made.prefix, files))
    title = study.title or study.study
    about = {
        "name": title,
        "description": f"Results of the study '{study.study}', with config, code and the record of what made each file. "
        "Unpacked, it is a folder in which Snakemake has nothing to do.",
        "datePublished": made.date,
        "license": _license(crate, study),
        "conformsTo": _context(crate, PROFILE, "CreativeWork", name="Process Run Crate", version="0.5"),
    }
    run = {
        "name": f"Run of the study '{study.study}'",
        "description": f"Every stage that {title} asks for, by Snakemake, from text to report.",
        "instrument": _workflow(crate, made),
        "object": list(_inputs(crate, study, made)),
        "result": [part for part in parts if part.id.startswith(quote(made.prefix))],
        "endTime": made.date,
        "actionStatus": "http://schema.org/CompletedActionStatus",
    }
    about |= {"mentions": [_context(crate, "#run", "CreateAction", **run, agent=authors)], "author": authors}
    _say(crate.root_dataset, about)
    return json.dumps(crate.metadata.generate(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _context(crate: ROCrate, identifier: str, kind: str, **properties: Any) -> Entity:
    """Add an entity that is no part of the archive."""
    entity = crate.add(ContextEntity(crate, identifier, {"@type": kind}))
    _say(entity, properties)
    return entity


def _say(entity: Entity, properties: Mapping[str, Any]) -> None:
    """Set what is known; one value stands alone, without a list around it."""
    for key, value in properties.items():
        if value not in (None, []):
            entity[key] = value[0] if isinstance(value, list) and len(value) == 1 else value


def _parts(crate: ROCrate, prefix: str, files: Files) -> Iterator[Entity]:
    """Describe the files that people open one by one, and the others by folder."""
    tops = {name.split("/")[0] for name in files if "/" in name and not name.startswith(".")}
    folders = tops - {prefix.split("/")[0]}
    for name, record in sorted(files.items()):
        if not _is_opened(name, prefix, files):
            folder, _, inside = name.removeprefix(prefix).partition("/")
            folders |= {f"{prefix}{folder}"} if inside and name.startswith(prefix) else set()
            continue
        about = {"name": name, "sha256": record["sha256"], "contentSize": str(record["size"])}
        yield crate.add_file(dest_path=quote(name), properties=about | {"encodingFormat": _format(name)})
    for folder in sorted(folders):
        yield crate.add_dataset(dest_path=f"{quote(folder)}/", properties={"name": folder})


def _is_opened(name: str, prefix: str, files: Files) -> bool:
    """Say whether a file has an entity of its own: report, tables, figures, config and versions; no receipt has one."""
    if name.startswith(prefix):
        is_receipt = name.endswith(".json") and name.removesuffix(".json") in files
        folder, _, inside = name.removeprefix(prefix).partition("/")
        return not is_receipt and (not inside or folder in OPENED)
    return name in (archive.SOFTWARE, archive.CONFIG) or name.startswith(f"{archive.GIVEN}/")


def _format(name: str) -> str:
    return FORMATS.get(PurePosixPath(name).suffix, "application/octet-stream")


def _license(crate: ROCrate, study: Study) -> Entity:
    if study.archive.license:
        return _context(crate, study.archive.license, "CreativeWork", name="Licence of the results")
    words = "None is given: ask the authors before you pass the results on. The code is under the licence in LICENSE."
    return _context(crate, "#no-licence", "CreativeWork", name="No licence", description=words)


def _workflow(crate: ROCrate, made: Run) -> Entity:
    """Describe the workflow at its commit, and the packages that receipts name."""
    required = [
        _context(
            crate,
            _package(name, version),
            "SoftwareApplication",
            name=name,
            version=version,
            url=_package(name, version),
        )
        for name, several in versions(made.receipts.values()).items()
        for version in several
    ]
    code = made.code
    state = "with changes that were not committed" if code["changed"] else "as committed"
    commit = f"commit {code['commit']}, {state}" if code["commit"] else "not from a repository"
    return _context(
        crate,
        f"urn:sha256:{code['sha256']}",
        "SoftwareApplication",
        name="actspace",
        version=f"{actspace.__version__} ({commit})",
        description="Snakemake workflow for studies of language-model activation space; its identifier is the sha256 of all its files.",
        softwareRequirements=required,
    )


def _inputs(crate: ROCrate, study: Study, made: Run) -> Iterator[ContextEntity]:
    """Describe what the study read: the model, what it comes from the hub or the package index as, and every file by its sha256."""
    source = made.model["source"]
    weights = [
        _context(crate, f"#model/{quote(name)}", "CreativeWork", name=name, sha256=sha256)
        for name, sha256 in sorted(made.model["weights"].items())
    ]
    yield _context(
        crate,
        "#model",
        "CreativeWork",
        name=f"model {_name(source)}",
        version=made.model["revision"],
        url=_address(source, "models"),
        hasPart=weights,
    )
    for i, text in enumerate(study.corpus.sources if study.corpus else [], 1):
        settings = text.model_dump()
        yield _context(
            crate,
            f"#text-{i}",
            "CreativeWork",
            name=f"text {_name(settings)}",
            version=settings.get("version") or settings.get("revision"),
            sha256=settings.get("sha256"),
            url=_address(settings, "datasets"),
        )
    for path, sha256 in read_from_outside(made.receipts.values()):
        yield _context(crate, f"#read/{quote(path)}", "CreativeWork", name=path, sha256=sha256)


def _name(source: Mapping[str, Any]) -> str:
    """Name a source as the config does."""
    inside = f"/{source['member']}" if source.get("member") else ""
    return str(source.get("repo") or source.get("path") or f"{source.get('name')}{inside}")


def _address(source: Mapping[str, Any], hub: str) -> str | None:
    """Return the public identifier of a source, None for a local file."""
    if source["kind"] == "package":
        return _package(source["name"], source["version"])
    place = {"models": "", "datasets": "datasets/"}[hub]
    return (
        f"https://huggingface.co/{place}{source['repo']}/tree/{source['revision']}" if source["kind"] == "hub" else None
    )


def _package(name: str, version: str) -> str:
    """Return the package URL of a Python package, which names it wherever it is fetched from."""
    return f"pkg:pypi/{name.lower().replace('_', '-')}@{version}"
