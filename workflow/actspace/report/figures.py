"""The figures of a study: which there are, and each of them drawn from the tables on disk."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from matplotlib.figure import Figure

from actspace import tables as files
from actspace.errors import StudyError
from actspace.perturbations.spike_statistics import TOY
from actspace.report import (
    figures_cascades,
    figures_causal,
    figures_concepts,
    figures_crossings,
    figures_dictionaries,
    figures_latents,
    figures_optima,
    figures_perturbations,
    figures_preactivations,
    figures_probes,
    figures_regions,
    figures_structure,
    style,
)
from actspace.report.spec import FigureSpec, Tables

KINDS = (
    (*figures_perturbations.KINDS, *figures_crossings.KINDS),
    *((kind,) for kind in figures_optima.KINDS),
    *((kind,) for kind in figures_regions.KINDS),
)
"""Kinds of figures of which every experiment has one; those in one group stand together on the page."""
FIGURES: dict[str, FigureSpec] = {
    spec.id: spec
    for module in (
        *(figures_probes, figures_causal, figures_cascades, figures_concepts),
        *(figures_dictionaries, figures_structure, figures_latents, figures_preactivations),
        *(figures_perturbations, figures_crossings, figures_regions),
    )
    for spec in module.FIGURES
}
"""All other figures, by section in the order of the page."""
SECTIONS = tuple(dict.fromkeys(spec.section for spec in FIGURES.values()))


def available_figures(tables: Tables) -> dict[str, FigureSpec]:
    """Return the figures that the tables of a study can fill, in the order of the report."""
    own = [kind.of(name) for kinds in KINDS for name in _experiments(tables, kinds) for kind in kinds]
    ordered = sorted([*own, *FIGURES.values()], key=lambda spec: SECTIONS.index(spec.section))
    return {spec.id: spec for spec in ordered if spec.available(tables)}


def _experiments(tables: Tables, kinds: Iterable[FigureSpec]) -> list[str]:
    """List the experiments that the first tables of some kinds hold; the toy has a figure of its own."""
    first = [tables[kind.tables[0]] for kind in kinds if kind.tables[0] in tables]
    found = dict.fromkeys(str(name) for table in first if len(table) for name in table["experiment"].unique())
    return [name for name in found if name != TOY]


def available(study: str | Path) -> dict[str, str]:
    """Return the titles of the figures that a study has, by the id that `draw` takes.

    Parameters
    ----------
    study : path
        The folder of its results, for example "results/embedded".

    Raises
    ------
    StudyError
        If the folder holds no tables.
    """
    return {name: spec.title for name, spec in available_figures(_tables(study)).items()}


def draw(study: str | Path | Tables, figure: str) -> Figure:
    """Draw a figure of a study as the report shows it; it can then be changed and saved.

    Parameters
    ----------
    study : path or mapping
        The folder of its results, for example "results/embedded", or tables by name.
    figure : str
        Its id, one of `available`.

    Raises
    ------
    StudyError
        If the study has no such figure.
    """
    tables = _tables(study) if isinstance(study, str | Path) else study
    specs = available_figures(tables)
    if figure not in specs:
        raise StudyError(f"figures: there is no {figure!r}; these tables fill {', '.join(specs) or 'no figure'}")
    with style.theme():
        return specs[figure].draw(tables)


def _tables(study: str | Path) -> Tables:
    paths = sorted(Path(study, "tables").glob("*.parquet"))
    if not paths:
        raise StudyError(f"{study}: no tables; name the results folder of a study, for example results/embedded")
    return files.by_name(map(str, paths))
