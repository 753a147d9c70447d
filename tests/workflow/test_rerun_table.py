"""Every key of the config and the rules that it reruns, computed as the rules do it, without Snakemake: a dry run each would take minutes.

`test_reruns.py` holds the same to what Snakemake plans, on a sample and with all that follows."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import pytest
import rerun_table
from pydantic import BaseModel
from rerun_table import NOT_SHOWN, TABLE
from tiny import ROOT

from actspace import reading, stages
from actspace.config.study import Study

Job = tuple[str, ...]
FIT_RULES = {
    **dict.fromkeys(stages.SAES, "sae"),
    **dict.fromkeys(("kmeans", "kmeans_spherical", "pca_kmeans", "pca_kmeans_spherical"), "kmeans"),
    **{"pca": "pca", "given": "given", "random_directions": "random_directions"},
    **dict.fromkeys(("random_points", "token_identity"), "null_dictionary"),
}
TABLES_OF = {
    "probes": "probe_tables",
    "causal": "causal_tables",
    "perturbations": "perturbation_tables",
    "optima": "optima_tables",
    "planes": "plane_tables",
    "regions": "region_tables",
    "spikes": "spike_tables",
}


def jobs(study: Study) -> dict[Job, Any]:
    """List the jobs of a study that settings or members decide about: what each uses of the config, and of which members it reads."""
    found: dict[Job, Any] = {}

    def add(rule: str, stage: str, reads: Any = None, **members: str) -> None:
        cfg = stages.canonical(getattr(stages, stage)(study, **members))
        found[(rule, *members.values())] = (cfg, reads)

    _sources(study, add)
    for name, capture in study.captures.items():
        for hook in capture.hooks:
            for part in stages.parts(study, capture.tokens):
                add(f"activations_{name}", "activations", [capture.tokens, part], capture=name)
                found[(f"activations_{name}", hook, part)] = found.pop((f"activations_{name}", name))
        if capture.tokens in study.concepts:
            add("concepts", "concepts", capture=name)
    for place, hook in stages.hooks_with_moments(study):
        add("moments", "moments", study.captures[place].tokens, capture=place, hook=hook)
    _dictionaries(study, add)
    _probes(study, add)
    _experiments(study, add)
    for section, rule in TABLES_OF.items():
        if getattr(study, section):
            add(rule, "statistics")
    add("archive", "archive")
    found["archive",] = study.archive.model_dump()
    return found


def _sources(study: Study, add) -> None:
    add("model", "model")
    add("selfcheck", "selfcheck")
    if stages.converted_model(study):
        add("convert_model", "convert_model", stages.converted_model(study))
    for source in [study.model.source, *(study.corpus.sources if study.corpus else [])]:
        if source.kind == "package":
            add("package", "package", package=f"{source.name}-{source.version}")
    for revision in stages.revisions(study):
        add("checkpoint", "checkpoint", revision=revision)
    for name in study.tokens:
        add(f"tokens_{name}", "tokens", stages.user_files(study)["tokens"], tokens=name)
    for place in stages.user_files(study)["statements"]:
        if place.startswith("resources/"):
            add("statement_file", "statement_file", name=place.rsplit("/")[-1])
    for name in study.statements:
        add("statements", "statements", statements=name)
    for name in study.concepts:
        add("phrases", "phrases", concept=name)


def _dictionaries(study: Study, add) -> None:
    for name, member in study.dictionaries.items():
        at_hooks = [{"dictionaries": name, "hook": hook} for hook in member.hooks]
        for place in at_hooks:
            if member.splice_sequences:
                add("splice", "splice", member.capture, **place)
            add("top_contexts", "top_contexts", member.capture, **place)
            for data in stages.kinds_of_data(member):
                capture = stages.capture_of(member, data)
                if data in member.nulls and stages.fits_to(member, data):
                    for split in stages.SPLITS:
                        add("surrogate", "surrogate", null=data, capture=capture, hook=place["hook"], split=split)
                if stages.matched(member, data):
                    add("matches", "matches", **place, data=data)
                for fit in stages.fits_to(member, data):
                    _fit(add, capture, fit, {**place, "data": data})


def _fit(add, capture: str, fit: str, place: dict[str, str]) -> None:
    family = stages.fit_labels(fit)["family"]
    add("dictionary_metrics", "dictionary_metrics", capture, **place, fit=fit)
    if family == stages.GIVEN:
        add("given", "given", dictionaries=place["dictionaries"], hook=place["hook"], fit=fit)
    else:
        add(FIT_RULES.get(family, "kmeans_read_out"), "fit", capture, **place, fit=fit)


def _probes(study: Study, add) -> None:
    for name, member in study.probes.items():
        add("probes", "probes", member.capture, probes=name)
        if member.monitoring:
            add("cascades", "cascades", member.capture, probes=name)
    for name, causal in study.causal.items():
        reads = [causal.probes, study.probes[causal.probes].capture]
        add("causal", "causal", reads, causal=name)
        add("causal_prompts", "causal_prompts", study.captures[reads[1]].tokens, causal=name)
    if study.toy:
        add("toy", "toy")


def _experiments(study: Study, add) -> None:
    rules = {"perturbations": ("perturbation", "experiment")}
    for section in ("perturbations", "optima", "planes", "regions"):
        rule, key = rules.get(section, (section, section))
        for name, member in getattr(study, section).items():
            for site in member.sites:
                reads = [member.capture, study.captures[member.capture].tokens]
                if section == "regions":
                    reads.append(stages.cells(study, name, site))
                add(rule, rule, reads, **{key: name}, hook=site)
    for name, member in study.spikes.items():
        add("spikes", "spikes", member.fits, spikes=name)
    if study.toy_superposition:
        add("toy_superposition", "toy_superposition")


def changed(before: dict[Job, Any], after: dict[Job, Any]) -> set[str]:
    """Name the rules that have a job which is new, or is not as it was."""
    return {job[0] for job, uses in after.items() if before.get(job) != uses}


# --- keys ------------------------------------------------------------------------------------------------------------------------------------


def sections(kind: Any) -> list[type[BaseModel]]:
    """List the models that a type consists of; none for a leaf."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [kind]
    inner = [sections(member) for member in get_args(kind) if member is not type(None)]
    inner = inner[:1] if get_origin(kind) is Annotated else inner[-1:] if get_origin(kind) is dict else inner
    return [model for models in inner for model in models] if all(inner) else []


def keys(model: type[BaseModel], before: str = "") -> Iterator[str]:
    """List all keys below a section; `[kind]` tells the members of a union apart, `*` stands for names and numbers."""
    for name, field in model.model_fields.items():
        found = sections(Annotated[field.annotation, "a field"])
        for section in found:
            kind = get_args(section.model_fields["kind"].annotation)[0] if "kind" in section.model_fields else ""
            many = ".*" if get_origin(_bare(field.annotation)) in (dict, list) else ""
            yield from keys(section, f"{before}{name}{f'[{kind}]' if kind else ''}{many}.")
        if not found and name not in ("kind", "study" if not before else ""):
            yield before + name


def _bare(kind: Any) -> Any:
    return _bare(get_args(kind)[0]) if get_origin(kind) is Annotated else kind


def written(path: str, config: dict[str, Any]) -> str:
    """Write the path of an edit as `keys` does."""
    found, value, parts = "", config, path.split(".")
    for i, part in enumerate(parts):
        holder = value
        value = value[int(part)] if isinstance(value, list) else value.get(part) if isinstance(value, dict) else None
        kind = value.get("kind") if isinstance(value, dict) else None
        named = isinstance(holder, list) or (i == 1 and parts[0] in NAMED) or (i == 3 and parts[2] == "given")
        if named:
            found += (f"[{kind}]" if kind else "") + ".*"
        else:
            found += ("." if found else "") + part + (f"[{kind}]" if kind else "")
    return found


NAMED = {name for name, field in Study.model_fields.items() if get_origin(field.annotation) is dict}


def edited(path: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the config before and after one edit of the table."""
    kind, _, place = path.rpartition(": ")
    before = rerun_table.study(kind or "hub")
    after = copy.deepcopy(before)
    section: Any = after
    *outer, last = place.split(".")
    for part in outer:
        section = section[int(part)] if isinstance(section, list) else section.setdefault(part, {})
    section[last] = TABLE[path][0]
    return before, after


def test_every_key_of_the_config_is_in_the_table():
    named = {written(path.rpartition(": ")[2], edited(path)[1]) for path in TABLE}
    assert {*keys(Study)} == named


@pytest.mark.parametrize("path", TABLE)
def test_a_key_reruns_exactly_the_rules_that_use_it(path):
    before, after = map(reading.read_study, edited(path))
    assert changed(jobs(before), jobs(after)) == TABLE[path][1]
    shown = stages.canonical(stages.report(before)) != stages.canonical(stages.report(after))
    assert shown == (path not in NOT_SHOWN)


def test_a_key_that_no_rule_uses_is_only_shown():
    assert {path for path, (_, rules) in TABLE.items() if not rules} - NOT_SHOWN == {"title"}


def test_the_jobs_here_are_those_of_the_rules():
    text = "".join(path.read_text() for path in (ROOT / "workflow" / "rules").glob("*.smk"))
    wired = set(re.findall(r"cfg=(?:stage|member)_cfg\(\s*\"(\w+)\"", text)) - {"no_settings", "report"}
    here = Path(__file__).read_text()
    known_by_members_alone = {"activation_table", "rate_distortion"}
    assert {stage for stage in wired if f'"{stage}"' not in here} == set()
    assert known_by_members_alone <= wired
