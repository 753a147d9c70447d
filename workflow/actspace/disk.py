"""How large the activations of a study will be on the disk, and whether those still to be written fit.

Known before anything runs, from the config and the model's width alone. Everything else that a study writes is small beside them."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from actspace import hooks, stages
from actspace.config.inputs import Capture, stored_positions
from actspace.config.study import Study
from actspace.errors import StudyError
from actspace.probes import phrases

ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
KEY_BYTES = 28
"""Bytes of a row beside its vector: five columns of numbers take 20, the name of its document up to 8."""
FILE_BYTES = 8_000
"""Bytes of a file beside its rows: schema, provenance, receipt."""
MARGIN = 0.03
"""Share added to what the activations need, for all that is made from them."""

Lengths = Mapping[int, int]
"""How many sequences there are of each length in tokens."""


@dataclass(frozen=True)
class File:
    """A file of activations: `rows` stored token positions in `size` bytes, its receipt included; None where that is not known yet."""

    rows: int | None
    size: int | None


# --- sizes -----------------------------------------------------------------------------------------------------------------------------------


def _counted(capture: Capture, length: int, first_position: int = 0) -> int:
    """Count the positions of a sequence of `length` tokens that are stored, from `first_position` on."""
    stored = stored_positions(capture.positions, length)
    if isinstance(stored, range):
        return len(stored) - len(stored[: -(-min(first_position, length) // stored.step)])
    return sum(place >= first_position for place in stored)


def lengths(study: Study, tokens: str) -> dict[str, Lengths]:
    """Return what each part of a token set holds, by `split-shard`; nothing for statements and phrases, whose lengths only tokenizing tells."""
    if tokens in study.statements or tokens in study.concepts:
        return {}
    settings, n = study.tokens[tokens], study.tokens[tokens].shards
    counts = {"train": settings.train, "test": settings.test}
    return {
        f"{split}-{shard:03d}": {settings.length: (shard + 1) * counts[split] // n - shard * counts[split] // n}
        for split in stages.SPLITS
        for shard in range(n)
    }


def statements(study: Study, name: str) -> int | None:
    """Count the statements, or phrases, of an entry of the config; None where some are in files of the user."""
    if name in study.concepts:
        return len(phrases.fill(study.concepts[name].model_dump()))
    found = study.statements[name]
    return None if found.places else len(found.generated) * found.per_set


def expect(rows: int | None, d_model: int, storage: str) -> File:
    """Expect the size of a file from its rows, their width and the stored precision."""
    return File(rows, None if rows is None else rows * (d_model * ITEM_BYTES[storage] + KEY_BYTES) + FILE_BYTES)


def activations(
    study: Study, capture: str, d_model: int, known: Mapping[str, Lengths] | None = None
) -> dict[str, dict[str, File]]:
    """Expect the files of a capture.

    Parameters
    ----------
    study : the study
    capture : name of the capture
    d_model : width of the residual stream
    known : sequences by length of each part, where statements have been tokenized already

    Returns
    -------
    dict of part (`split-shard`) to a dict of path, relative to the study's folder, to File: a part is one job
    """
    settings = study.captures[capture]
    known = known or lengths(study, settings.tokens)
    found = {}
    for part in stages.parts(study, settings.tokens):
        rows: int | None
        if part in known:
            rows = sum(n * _counted(settings, length) for length, n in known[part].items())
        else:  # a statement has a last token, however long it is
            rows = statements(study, settings.tokens) if settings.positions == "last" else None
        paths = [f"activations/{capture}/{hook}/{part}.parquet" for hook in settings.hooks]
        found[part] = dict.fromkeys(paths, expect(rows, d_model, settings.storage))
    return found


def surrogates(study: Study, null: str, capture: str, d_model: int) -> dict[str, File]:
    """Expect the surrogates of a capture, by path relative to the study's folder; rows that turn out as norm outliers are counted too."""
    settings, found = study.captures[capture], {}
    for split in stages.SPLITS:
        parts = [sizes for part, sizes in lengths(study, settings.tokens).items() if part.startswith(split)]
        rows = sum(
            n * _counted(settings, length, settings.select.first_position)
            for sizes in parts
            for length, n in sizes.items()
        )
        for hook in surrogate_hooks(study, null, capture):
            found[f"surrogates/{null}/{capture}/{hook}/{split}.parquet"] = expect(rows, d_model, "float32")
    return found


def surrogate_hooks(study: Study, null: str, capture: str) -> list[str]:
    """List the hooks of a capture at which some dictionary study needs a surrogate."""
    members = [d for d in study.dictionaries.values() if d.capture == capture and null in d.nulls]
    return sorted({hook for member in members for hook in member.hooks})


def nulls(study: Study) -> list[tuple[str, str]]:
    """List the pairs of null and capture of which there are surrogates."""
    return sorted({(null, member.capture) for member in study.dictionaries.values() for null in member.nulls})


def files(study: Study, d_model: int) -> dict[str, File]:
    """Expect all files of activations and of surrogates, by path relative to the study's folder."""
    captured = [found for name in study.captures for found in activations(study, name, d_model).values()]
    drawn = [surrogates(study, null, capture, d_model) for null, capture in nulls(study)]
    return {path: expected for found in captured + drawn for path, expected in found.items()}


# --- room ------------------------------------------------------------------------------------------------------------------------------------


def missing(path: Path, expected: File) -> int:
    """Return the bytes that a file still needs: those of an older file in its place are there already."""
    return max(0, (expected.size or 0) - (path.stat().st_size if path.is_file() else 0))


def free(folder: Path) -> int:
    """Return the free bytes of the file system on which a folder lies, or will lie."""
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.is_dir())
    return shutil.disk_usage(there).free


def check(study: Study, d_model: int, folder: Path, making: Iterable[str | Path] | None = None) -> None:
    """Refuse a study whose activations do not fit in the free space of the disk.

    Parameters
    ----------
    study : the study
    d_model : width of the residual stream
    folder : its results
    making : files that are about to be made; others than activations and surrogates do not count. None: all that are not there

    Raises
    ------
    StudyError
        One line with what they need, what is free, and what to do.
    """
    expected = {folder / path: file for path, file in files(study, d_model).items()}
    wanted = [path for path in expected if not path.is_file()] if making is None else {Path(path) for path in making}
    needed = (1 + MARGIN) * sum(missing(path, expected[path]) for path in wanted if path in expected)
    if needed > (left := free(folder)):
        raise StudyError(refusal(study.study, folder, needed, left))


def refusal(study: str, folder: Path, needed: float, left: float) -> str:
    """Say what does not fit, and what to do."""
    return (
        f"study '{study}': the activations still to be written need {needed / 1e9:,.1f} GB, but the disk of {folder} has {left / 1e9:,.1f} GB free; "
        "free some space, or ask for fewer sequences, hooks or `positions`, or for `storage: float16`"
    )


def check_known(study: Study, folder: Path, making: Iterable[str | Path]) -> None:
    """As `check`, if an earlier run left the description of the study's model in `folder`; else its width is not known yet."""
    description = hooks.known(folder / "model.json", study.model.source.model_dump())
    if description is not None:
        check(study, description["d_model"], folder, making)
