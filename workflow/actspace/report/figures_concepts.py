"""Figures about concepts over layers: unions as sums, and intensity as length."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from actspace.probes import intensity as grades
from actspace.probes.unions import MEAN, PAIRS, SHUFFLED, SUM, strongest_part
from actspace.report import style
from actspace.report.figures_probes import name_outer_axes
from actspace.report.spec import FigureSpec, Tables, counted, panels, plural
from actspace.report.summaries import groups

SECTION = "Concepts"
MODELS = {SUM: (style.BLUE, "-"), PAIRS: (style.SKY, "--"), SHUFFLED: (style.GREY, ":")}
PARTS = (style.ORANGE, style.VERMILLION, style.GREEN, style.PURPLE, style.BLACK)
Look = tuple[str, Any]  # colour and line style
METRICS: tuple[tuple[str, dict[str, tuple[str, Look]]], ...] = (
    (
        "share of effects",
        {
            "along_one_direction": ("along one direction", (style.BLUE, "-")),
            "along_own_directions": ("along each grade's own", (style.ORANGE, "--")),
        },
    ),
    ("Spearman with the grade", {"monotonicity": ("monotonicity", (style.BLUE, "-"))}),
    (
        "cosine with mean effects",
        {
            "cosine_same_grade": ("of the same grade", (style.ORANGE, "--")),
            "cosine_other_grades": ("of other grades", (style.BLUE, "-")),
        },
    ),
)


def unions(tables: Tables) -> Figure:
    """Draw what the sum of parts explains over layers: of the variance, and of what the part that explains most leaves."""
    table = tables["concept_unions"]
    looks = MODELS | {f"{part} alone": (PARTS[i % len(PARTS)], "-.") for i, part in enumerate(_parts(table))}
    captures = list(groups(table, "capture"))
    figure, axes = panels(2 * len(captures), height=2.9, columns=2, sharex=True, sharey=True)
    for place, (capture, rows) in enumerate(captures):
        before = "" if len(captures) == 1 else f"{capture}: "
        strongest = strongest_part(rows)
        for ax, reference in zip(axes[2 * place :], (MEAN, strongest), strict=False):
            for model, line in groups(rows[rows["reference"] == reference], "model"):
                _draw(ax, line, looks[str(model)])
            ax.axhline(0, color=style.GREY, linewidth=0.8)
            what = "of the variance" if reference == MEAN else f"of what the {strongest} alone leaves"
            ax.set_title(f"{before}{what}", fontsize=8.5)
            ax.set_ylim(min(-0.15, float(table["low"].min()) - 0.03), 1.03)
    name_outer_axes(axes, 2, "layer (0: embedding)", "explained")
    figure.legend(handles=[_line(name, look) for name, look in looks.items()], loc="outside lower center", ncols=3)
    return figure


def _parts(table: pd.DataFrame) -> list[str]:
    return [str(part) for part in table["reference"].unique() if part != MEAN]


def _draw(ax: Axes, rows: pd.DataFrame, look: Look, label: str | None = None) -> None:
    rows, (colour, dashes) = rows.sort_values("layer"), look
    ax.plot(rows["layer"], rows["value"], color=colour, linestyle=dashes, label=label)
    ax.fill_between(rows["layer"], rows["low"], rows["high"], color=colour, alpha=0.18, linewidth=0)


def _line(text: str, look: Look) -> Line2D:
    return Line2D([], [], color=look[0], linestyle=look[1], label=text)


def unions_caption(tables: Tables) -> str:
    """Say how many combinations there are, how they are held out, and what the lines are."""
    table = tables["concept_unions"]
    parts = _parts(table)
    return (
        f"How much of the activations of held-out combinations ({' × '.join(parts)}; "
        f"{counted(table['n_phrases'].unique())} phrases, {counted(table['n_folds'].unique())} folds, last token) the sum of the "
        "parts' effects explains, at "
        f"{plural(table['layer'].nunique(), 'layer')}: of their variance about the mean, and of what the part that explains most leaves "
        "unexplained. Gaps: nothing is left. Zero is the reference itself, one is a sum without interaction; the model is "
        "deterministic, so that no noise lowers what can be explained. Shuffled: the effects of permuted combinations. "
        "Intervals (95%) are over combinations, which share their words."
    )


def intensity(tables: Tables) -> Figure:
    """Draw over layers how far effects of grades share one direction, are ordered along it, and how long they are."""
    table = tables["concept_intensity"]
    captures = list(groups(table, "capture"))
    figure, axes = panels(4 * len(captures), height=2.6, columns=2, sharex=True)
    for place, (capture, rows) in enumerate(captures):
        *own, last = axes[4 * place : 4 * place + 4]
        for ax, (ylabel, lines) in zip(own, METRICS, strict=True):
            for metric, (text, look) in lines.items():
                _draw_grades(ax, rows[rows["metric"] == metric], look, text)
            ax.set_ylabel(ylabel)
        lengths = rows[(rows["metric"] == "projection") & (rows["grades"] == grades.REAL)]
        for grade, line in groups(lengths, "grade"):
            look = (PARTS[(int(grade) - 1) % len(PARTS)], "-")
            _draw(last, line, look, f"grade {grade}")
        last.set_ylabel("projection / length")
        own[0].set_title(str(capture) if len(captures) > 1 else "", fontsize=8)
    for place, ax in enumerate(axes):
        ax.axhline(0, color=style.GREY, linewidth=0.8)
        ax.set_ylim(top=(1.25, 1.25, 1.5, None)[place % 4])  # room for the names of lines
        ax.legend(fontsize=7, loc="upper right" if place % 4 < 3 else "best")
    for ax in axes[-2:]:
        ax.set_xlabel("layer (0: embedding)")
    return figure


def _draw_grades(ax: Axes, rows: pd.DataFrame, look: Look, text: str) -> None:
    """Draw a metric, and dotted what it is where grades are shuffled; of shares that is the same or means nothing."""
    _draw(ax, rows[rows["grades"] == grades.REAL], look, text)
    shuffled = rows[rows["grades"] == grades.SHUFFLED]
    if not str(rows["metric"].iloc[0]).startswith("along"):
        _draw(ax, shuffled, (look[0] if "other" in text else style.GREY, ":"), f"{text}, shuffled")


def intensity_caption(tables: Tables) -> str:
    """Say how many adjectives and grades there are, how they are held out, and what the panels show."""
    table = tables["concept_intensity"]
    return (
        f"Effects of {counted([table['grade'].max()])} grades, from weak (1) to strong, on {counted(table['n_adjectives'].unique())} "
        f"held-out adjectives ({counted(table['n_folds'].unique())} folds, last token): the activation of the graded phrase minus "
        "that of the neutral one. Their share along the one direction that holds most of the training effects, and along "
        "the mean training effect of each grade; Spearman's correlation of the projection on the one direction with the "
        "grade; their cosines with the mean training effects of the same and of other grades, which are equal where all "
        "grades share a direction; and the mean projection by grade, divided by the root mean square length. Dotted: grades "
        "shuffled within adjectives. Intervals (95%) are over adjectives."
    )


FIGURES = (
    FigureSpec(
        id="concept_unions",
        draw=unions,
        tables=("concept_unions",),
        section=SECTION,
        title="Are unions of concepts sums?",
        caption=unions_caption,
    ),
    FigureSpec(
        id="concept_intensity",
        draw=intensity,
        tables=("concept_intensity",),
        section=SECTION,
        title="Is intensity length?",
        caption=intensity_caption,
    ),
)
