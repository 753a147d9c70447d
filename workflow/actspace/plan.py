"""What a study has still to run, before it runs: tokens, rows, bytes, floating-point operations and time, as a table.

A forward pass takes 2 operations per weight of a block and token, and attention 2 n d more per block for sequences of n tokens, because a token
sees half of them on average. Sources: Kaplan et al., Scaling Laws for Neural Language Models (2020), table 1; Hoffmann et al., Training
Compute-Optimal Large Language Models (2022), appendix F."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from actspace import disk, provenance, stages, tables
from actspace.config.perturbations import Experiment, Optima, Perturbation, Planes, Regions
from actspace.config.study import Study, experiments
from actspace.disk import Lengths
from actspace.hooks import layer_of

HALVINGS = 7
"""Vectors that seeking the crossing of one curve takes beside those on its grid."""
LOCAL_STEPS = 3
"""Vectors that measure how a curve would go on if it were linear."""
COLUMNS = ("jobs", "sequences", "tokens", "rows", "disk", "TFLOP", "tokens/s", "time")


@dataclass(frozen=True)
class Shape:
    """What the cost of a forward pass depends on."""

    d_model: int
    block_weights: tuple[int, ...]
    """Weights of every block."""
    output_weights: int
    """Weights of the map from the last residual to the logits."""

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return len(self.block_weights)


@dataclass(frozen=True)
class Work:
    """What is still to run of one member of a study; None where it is not known yet.

    `depth` (blocks) and `length` (tokens) say which passes its speed is measured with, `passes` how many tokens of such passes cost as much.
    """

    name: str
    jobs: int
    sequences: int | None = 0
    tokens: int | None = 0
    rows: int | None = 0
    size: int | None = 0
    flops: float | None = 0
    depth: int = 0
    length: int = 0
    passes: float | None = 0
    tokens_per_second: float | None = None
    seconds: float | None = 0

    @property
    def probe(self) -> tuple[int, int] | None:
        """Depth and length of the passes to measure, None if nothing is to run or the length is not known."""
        return (self.depth, self.length) if self.jobs and self.length else None


# --- arithmetic ------------------------------------------------------------------------------------------------------------------------------


def flops_per_token(shape: Shape, depth: int, length: int) -> float:
    """Count the operations of one token of a sequence of `length` tokens, through the first `depth` blocks."""
    return 2 * sum(shape.block_weights[:depth]) + 2 * depth * length * shape.d_model


def flops_per_vector(shape: Shape, site: int, length: int) -> float:
    """Count the operations of a perturbed last position that enters after `site` blocks: it sees the whole prompt, and ends in logits."""
    blocks = shape.block_weights[site:]
    return 2 * sum(blocks) + 4 * len(blocks) * length * shape.d_model + 2 * shape.output_weights


def vectors(experiment: Experiment) -> int:
    """Count the perturbed vectors of an experiment at one site, at most: not every curve crosses, or is walked to its end."""
    if isinstance(experiment, Planes):
        return experiment.prompts * (experiment.resolution**2 + 3)
    if isinstance(experiment, Optima):
        directions = experiment.prompts * experiment.draws * 2 * math.comb(experiment.resolution + 2, 2)
        if own := experiment.subspaces:
            directions += own.prompts * own.draws * 2 * (1 + 2 * max(own.dimensions) + len(own.dimensions))
        levels = len(experiment.thresholds_nats)
        return directions * len(experiment.kinds) * levels * (experiment.steps - 1 + HALVINGS)
    if isinstance(experiment, Regions):
        return experiment.prompts * (1 + experiment.pairs * experiment.steps)
    assert isinstance(experiment, Perturbation)
    curves = experiment.prompts * experiment.draws
    for axis in (experiment.bases, experiment.directions, experiment.paths):
        curves *= len(axis)
    return curves * (experiment.steps + LOCAL_STEPS + HALVINGS * len(experiment.thresholds_nats))


# --- what is still to run --------------------------------------------------------------------------------------------------------------------


def remaining(study: Study, shape: Shape, folder: Path) -> list[Work]:
    """List what is still to run of all captures, surrogates and experiments.

    Parameters
    ----------
    study : the study
    shape : of its model
    folder : its results; files in there that the present settings made count as done
    """
    captures = [_capture(study, name, shape, folder) for name in study.captures]
    unfinished = {work.name.removeprefix("captures.") for work in captures if work.jobs}
    surrogates = [_surrogates(study, *pair, shape, folder, pair[1] in unfinished) for pair in disk.nulls(study)]
    perturbed = [_experiment(study, where, shape, folder, unfinished) for where in experiments(study)]
    return captures + surrogates + perturbed


def _capture(study: Study, name: str, shape: Shape, folder: Path) -> Work:
    settings = study.captures[name]
    known = disk.lengths(study, settings.tokens) or _tokenized(study, settings.tokens, folder)
    expected = disk.activations(study, name, shape.d_model, known)
    todo = [part for part in expected if not _captured(study, name, part, expected[part], folder)]
    depth = max(layer_of(hook, shape.n_layers) for hook in settings.hooks)
    files = {path: file for part in todo for path, file in expected[part].items()}
    work = Work(
        f"captures.{name}",
        len(todo),
        rows=_sum([next(iter(expected[part].values())).rows for part in todo]),
        size=None if any(f.size is None for f in files.values()) else _missing(files, folder),
        depth=depth,
    )
    if todo and not known:
        n = disk.statements(study, settings.tokens)
        return replace(work, sequences=n, tokens=None, flops=None, passes=None, seconds=None)
    lengths = Counter[int]()
    for part in todo:
        lengths.update(known[part])
    n, tokens = sum(lengths.values()), sum(length * count for length, count in lengths.items())
    flops = sum(count * length * flops_per_token(shape, depth, length) for length, count in lengths.items())
    return replace(
        work, sequences=n, tokens=tokens, flops=flops, length=round(tokens / n) if n else 0, passes=float(tokens)
    )


def _surrogates(study: Study, null: str, capture: str, shape: Shape, folder: Path, stale: bool) -> Work:
    def done(path: str) -> bool:
        _, _, _, hook, file = Path(path).parts
        cfg = stages.surrogate(study, null, capture, hook, Path(file).stem)
        return not stale and made_with(folder / path, cfg) is not None

    expected = disk.surrogates(study, null, capture, shape.d_model)
    todo = {path: file for path, file in expected.items() if not done(path)}
    rows = _sum([file.rows for file in todo.values()])
    return Work(f"surrogates.{null}.{capture}", len(todo), rows=rows, size=_missing(todo, folder))


def _experiment(study: Study, where: str, shape: Shape, folder: Path, unfinished: set[str]) -> Work:
    settings = experiments(study)[where]
    section, name = where.split(".", 1)
    stage, table = {
        "perturbations": (stages.perturbation, "curves"),
        "optima": (stages.optima, "triangles"),
        "planes": (stages.planes, "points"),
        "regions": (stages.regions, "walks"),
    }[section]
    captures = {settings.capture, *_captures_of_fits(study, settings)}

    def done(site: str) -> bool:
        path = folder / section / name / site / f"{table}.parquet"
        return not captures & unfinished and bool(made_with(path, stage(study, name, site)))

    todo = [site for site in settings.sites if not done(site)]
    if not todo:
        return Work(where, 0)
    length = study.tokens[study.captures[settings.capture].tokens].length
    layers = [layer_of(site, shape.n_layers) for site in todo]
    flops = sum(vectors(settings) * flops_per_vector(shape, layer, length) for layer in layers)
    return Work(
        where,
        len(todo),
        sequences=settings.prompts,
        tokens=len(todo) * vectors(settings),
        flops=flops,
        depth=shape.n_layers,
        length=length,
        passes=flops / flops_per_token(shape, shape.n_layers, length),
    )


def _captures_of_fits(study: Study, settings: Experiment) -> set[str]:
    """Return the captures that the fits of an experiment were made on."""
    if isinstance(settings, Regions):
        return {study.dictionaries[settings.cells.study].capture} if settings.cells else set()
    if not isinstance(settings, Perturbation):
        return set()
    fits = {study.dictionaries[fit.study].capture for fit in (settings.dictionary, settings.clusters) if fit}
    return fits | ({study.probes[settings.probe].capture} if settings.probe else set())


def made_with(path: Path, cfg: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the receipt of a file, if the file is there and was made with these settings."""
    receipt = provenance.receipt_of(path)
    if not (path.is_file() and receipt.is_file()):
        return None
    record = provenance.read_receipt(receipt)
    return record if record["cfg"] == json.loads(json.dumps(cfg)) else None


def _tokens_file(study: Study, name: str, part: str, folder: Path) -> tuple[Path, Mapping[str, Any] | None]:
    """Return the file of a part of a token set, and its receipt if the present settings made it."""
    path = folder / "tokens" / name / f"{part}.parquet"
    stage = (
        stages.statements if name in study.statements else stages.phrases if name in study.concepts else stages.tokens
    )
    cfg = stage(study, name)
    return path, made_with(path, cfg)


def _tokenized(study: Study, name: str, folder: Path) -> dict[str, Lengths]:
    """Measure the lengths of statements that have been tokenized already."""
    found = {part: _tokens_file(study, name, part, folder) for part in stages.parts(study, name)}
    return {
        part: Counter(tables.read_arrow(path)["token_ids"].combine_chunks().value_lengths().to_pylist())
        for part, (path, receipt) in found.items()
        if receipt
    }


def _captured(study: Study, name: str, part: str, paths: Mapping[str, disk.File], folder: Path) -> bool:
    """Say whether all hooks of a part have been captured, from the tokens that are there now."""
    _, tokens = _tokens_file(study, study.captures[name].tokens, part, folder)
    records = [made_with(folder / path, stages.activations(study, name)) for path in paths]
    return tokens is not None and all(record and tokens["sha256"] in record["inputs"].values() for record in records)


def _missing(files: Mapping[str, disk.File], folder: Path) -> int:
    return sum(disk.missing(folder / path, file) for path, file in files.items())


def _sum(values: Sequence[Any]) -> Any:
    """Sum what is known; None if nothing is."""
    known = [value for value in values if value is not None]
    return sum(known) if known or not values else None


# --- time and table --------------------------------------------------------------------------------------------------------------------------


def timed(
    work: Sequence[Work], measure: Callable[[int, int, float], float], seconds: float, start: float
) -> list[Work]:
    """Measure each kind of pass once, and say how long everything takes.

    Parameters
    ----------
    work : what is still to run
    measure : of depth (blocks), length (tokens) and time to spend (seconds), returns tokens per second
    seconds : to spend on all measurements together
    start : seconds from the start of a job that uses the model to its first pass
    """
    probes = sorted({item.probe for item in work if item.probe})
    rates = {probe: measure(*probe, seconds / len(probes)) for probe in probes}
    return [
        replace(
            item,
            tokens_per_second=rates[item.probe],
            seconds=item.jobs * start + (item.passes or 0) / rates[item.probe],
        )
        if item.probe
        else item
        for item in work
    ]


def table(work: Sequence[Work]) -> str:
    """Lay out what is still to run, aligned, with the totals of what is known."""
    rows = [["", *COLUMNS]]
    rows += [[item.name, *_cells(item)] if item.jobs else [item.name, "done", *[""] * 7] for item in work]
    rows.append(["total", *_cells(total(work))])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


def total(work: Sequence[Work]) -> Work:
    """Add up what is known."""
    names = ("jobs", "sequences", "tokens", "rows", "size", "flops", "seconds")
    return Work("total", **{name: _sum([getattr(item, name) for item in work]) for name in names})


def _cells(work: Work) -> list[str]:
    flops = None if work.flops is None else work.flops / 1e12
    rate = f"{work.tokens_per_second:,.0f}" if work.tokens_per_second else "-"
    return [
        *(_number(value) for value in (work.jobs, work.sequences, work.tokens, work.rows)),
        _number(work.size, amount),
        _number(flops, lambda value: f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"),
        rate,
        _number(work.seconds, duration),
    ]


def _number(value: float | None, write: Callable[[float], str] = "{:,.0f}".format) -> str:
    """Write `?` for what is not known and `-` for nothing."""
    return "?" if value is None else write(value) if value else "-"


def amount(size: float) -> str:
    """Write bytes in kB, MB, GB or TB (powers of 1000)."""
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 1000:
            return f"{size:,.1f} {unit}"
    return f"{size / 1000:,.1f} TB"


def duration(seconds: float) -> str:
    """Write a time in seconds, minutes, hours or days."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:.0f} s"


def summary(study: Study, work: Sequence[Work], folder: Path, device: str, start: float) -> str:
    """Say under the table what fits, what was measured, and what the time holds."""
    needed, left = total(work).size or 0, disk.free(folder)
    needed = round((1 + disk.MARGIN) * needed)
    fits = f"disk: {amount(needed)} needed with a margin of {disk.MARGIN:.0%}, {amount(left)} free"
    lines = [
        fits if needed <= left else disk.refusal(study.study, folder, needed, left),
        f"device: {device}, {study.model.dtype}, batches of at most {study.compute.batch_tokens:,} tokens; a job starts in {start:.1f} s",
        "time: forward passes, one job after another; tokenizing, fits, causal experiments and the report come on top",
    ]
    if any(item.name in experiments(study) and item.jobs for item in work):
        lines.append("tokens of experiments: perturbed positions, at most")
    unknown = [item.name for item in work if item.jobs and item.tokens is None]
    return "\n".join(
        lines + ([f"?: known once the statements are tokenized ({', '.join(unknown)})"] if unknown else [])
    )
