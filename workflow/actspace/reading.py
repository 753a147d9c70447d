"""Reading config files: one clear line for every mistake, with the key's path, what was found and what was allowed."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from actspace import stages
from actspace.config.dictionaries import Dictionaries
from actspace.config.fields import quoted
from actspace.config.study import Study
from actspace.errors import StudyError
from actspace.perturbations import families

SHOWN = 60
MAPPING_WANTED = ("model_type", "model_attributes_type", "dict_type")


def read_study(config: dict[str, Any], name: str = "config") -> Study:
    """Check a config, as read from YAML, and return it as a study.

    Raises
    ------
    StudyError
        One line per mistake: `name: key.path: what is wrong; what to do`.
    """
    if not isinstance(config, dict):
        raise StudyError(f"{name}: a config is a mapping of keys, found {_shown(config)}")
    try:
        study = Study.model_validate(config)
    except ValidationError as error:
        lines = [f"{name}: {_line(dict(details), config)}" for details in error.errors()]
        raise StudyError("\n".join(dict.fromkeys(lines))) from None
    for where, dictionaries, fit, what, kinds in _named_fits(study):
        _check_fit(study, f"{name}: {where}", dictionaries, fit, what, kinds)
    for where, member in study.dictionaries.items():
        _check_null_families(f"{name}: dictionaries.{where}.null_families", member)
    return study


def _named_fits(study: Study) -> Iterator[tuple[str, str, str, str, set[str]]]:
    """Yield every fit that a section names: place, dictionary study, fit, what it must be in words, and its families."""
    reads_vectors = [fit for member in study.dictionaries.values() for fit in stages.spliced(member)]
    every = {stages.fit_labels(fit)["family"] for fit in reads_vectors}
    kinds = {families.DICTIONARY: {*stages.SAES, stages.GIVEN}, families.CLUSTERS: {"kmeans"}}
    for name, member in study.perturbations.items():
        for key, kind in kinds.items():
            if (chosen := getattr(member, key)) is not None:
                yield f"perturbations.{name}.{key}.fit", chosen.study, chosen.fit, families.SOURCES[key], kind
    for name, region in study.regions.items():
        if (cells := region.cells) is not None:
            what = families.SOURCES[families.CLUSTERS]
            yield f"regions.{name}.cells.fit", cells.study, cells.fit, what, kinds[families.CLUSTERS]
    for name, spike in study.spikes.items():
        for i, fit in enumerate(spike.fits):
            yield f"spikes.{name}.fits[{i}]", spike.dictionaries, fit, "a fit that encodes activations", every


def _check_fit(study: Study, where: str, dictionaries: str, fit: str, what: str, kinds: set[str]) -> None:
    """Refuse a fit that its dictionary study does not have, or one of the wrong family; `stages` names the fits."""
    known = [x for x in stages.fits(study.dictionaries[dictionaries]) if stages.fit_labels(x)["family"] in kinds]
    if fit not in known:
        near = difflib.get_close_matches(fit, known, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        there = f"there are: {', '.join(known) or 'none'}{hint}"
        raise StudyError(f"{where}: {quoted(fit)} is not {what} of `dictionaries.{dictionaries}`; {there}")


def _check_null_families(where: str, member: Dictionaries) -> None:
    """Refuse a family that a dictionary study has not, or that no null can have, and a null that it has not."""
    there = list(dict.fromkeys(stages.fit_labels(fit)["family"] for fit in stages.fits(member)))
    known = [family for family in there if family != stages.GIVEN]
    nulls = stages.kinds_of_data(member)[1:]
    for null, wanted in member.null_families.items():
        if null not in nulls:
            raise StudyError(f"{where}: the study has no null {quoted(null)}; it has: {', '.join(nulls) or 'none'}")
        if unknown := [family for family in wanted if family not in known]:
            raise StudyError(
                f"{where}.{null}: {quoted(unknown[0])} is no family of this study; there are: {', '.join(known)}"
            )


def _line(details: dict[str, Any], config: dict[str, Any]) -> str:
    keys, allowed = _locate(details["loc"], config)
    where = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).lstrip(".")
    kind, value, message = details["type"], _shown(details["input"]), details["msg"]
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(str(keys[-1]), allowed, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        return f"{where}: unknown key; allowed here: {', '.join(allowed)}{hint}"
    if kind == "missing":
        return f"{where}: missing; this key is required"
    if kind == "value_error":
        return f"{where}{details['ctx']['error']}".lstrip(".")
    if kind == "string_pattern_mismatch":
        return f"{where}: {value} does not have the form {details['ctx']['pattern']}"
    if kind == "union_tag_not_found":
        return f"{where}.kind: missing; allowed: {', '.join(map(repr, allowed))}"
    if kind == "union_tag_invalid":
        return f"{where}.kind: found {_shown(details['input'].get('kind'))}; allowed: {', '.join(map(repr, allowed))}"
    if kind in MAPPING_WANTED:
        return f"{where}: found {value}; a mapping of keys belongs here"
    return f"{where}: found {value}; {message[0].lower()}{message[1:]}"


def _shown(value: Any) -> str:
    text = f"the mapping of {', '.join(map(str, value))}" if isinstance(value, dict) else repr(value)
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."


def _locate(loc: tuple[int | str, ...], config: Any) -> tuple[list[int | str], list[str]]:
    """Return the keys as they stand in the file (a union's tag is no key), and the keys that the innermost section allows, or a union's tags."""
    keys: list[int | str] = []
    kind: Any = Study
    section: Any = Study
    value = config
    for position, part in enumerate(loc):
        kind = _bare(kind)
        if _is_union(kind) and not (isinstance(value, dict) and part in value):
            kind = next((m for m in get_args(kind) if part in _tags(m)), kind)
            section = kind
            continue
        if part == "[key]":  # a mapping's own key was refused
            continue
        section = kind if _is_section(kind) else section
        keys.append(part)
        last = position == len(loc) - 1
        inside = (isinstance(value, dict) and part in value) or (
            isinstance(value, list) and isinstance(part, int) and part < len(value)
        )
        value = value[part] if inside and not last else value
        kind = _inside(kind, part)
    if _is_union(kind := _bare(kind)):
        return keys, [tag for member in get_args(kind) for tag in _tags(member)]
    return keys, list(section.model_fields) if _is_section(section) else []


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, UnionType)


def _tags(kind: Any) -> tuple[str, ...]:
    """Return the values of `kind` that a member of a union goes by."""
    return get_args(kind.model_fields["kind"].annotation) if _is_section(kind) and "kind" in kind.model_fields else ()


def _bare(kind: Any) -> Any:
    """Strip Annotated and Optional."""
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if _is_union(kind):
        members = [m for m in get_args(kind) if m is not type(None)]
        return _bare(members[0]) if len(members) == 1 else kind
    return kind


def _inside(kind: Any, part: int | str) -> Any:
    if _is_section(kind):
        return kind.model_fields[part].annotation if part in kind.model_fields else None
    return get_args(kind)[-1] if get_origin(kind) in (dict, list) else None
