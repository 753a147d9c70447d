"""The figure of a comparison: every claim's value and interval in each study, in units that make the rows comparable."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from actspace.report import style
from actspace.report.summaries import groups

COLOURS = (style.BLUE, style.VERMILLION, style.GREEN, style.PURPLE, style.ORANGE, style.SKY, style.BLACK)
MARKERS = "os^DvPX"
MET = "#DCE6EC"
ROW_HEIGHT, SPREAD, EDGE = 0.34, 0.56, 1.12
"""Inches of a row; the part of it over which studies are spread; where the axis ends, and what is infinite is drawn."""
TITLE = "Effects side by side"
CAPTION = (
    "One row per claim: the value in each study with its 95% interval. Zero is the limit of the criterion, or the middle of "
    "the range that it allows; shaded is what meets it. One unit is what the right margin says, the farthest that any "
    "study of the row lies from zero; an arrow stands for an infinite value."
)


def draw(verdicts: pd.DataFrame, studies: Sequence[str]) -> Figure:
    """Draw all claims that any study tested, in the order of the table; `verdicts` as `differences.verdicts` gives it."""
    rows = list(groups(verdicts, "id"))
    figure = Figure(figsize=(style.WIDTH, len(rows) * ROW_HEIGHT + 1.1), layout="constrained")
    ax = figure.subplots()
    scales = [_draw_row(ax, y, rows_of, studies) for y, (_, rows_of) in enumerate(rows)]
    places = range(len(rows))
    ax.set_yticks(places, [textwrap.fill(str(of["title"].iloc[0]), 44) for _, of in rows], fontsize=7.5)
    ax.set(ylim=(len(rows) - 0.5, -0.5), xlim=(-EDGE - 0.05, EDGE + 0.05), xlabel="distance from the criterion")
    right = ax.secondary_yaxis("right")
    units = [f"{_rounded(scale)} {of['unit'].iloc[0]}" for scale, (_, of) in zip(scales, rows, strict=True)]
    right.set_yticks(places, units, fontsize=7, color=style.GREY)
    right.tick_params(length=0)
    ax.grid(axis="y", visible=False)
    figure.legend(handles=_key(studies), loc="outside upper center", ncols=min(3, len(studies) + 1))
    return figure


def _rounded(number: float) -> str:
    """Write two digits of a number, large ones without an exponent."""
    return f"{float(f'{number:.2g}'):,g}"


def scaled(rows: pd.DataFrame) -> tuple[pd.DataFrame, float]:
    """Put value, interval and criterion of one claim in units of the farthest finite end from the criterion's middle.

    Returns
    -------
    `rows` with the columns value, low, high, lowest and highest scaled, and the unit
    """
    columns = ["value", "low", "high", "lowest", "highest"]
    numbers = rows[columns].astype(float)
    lowest, highest = numbers["lowest"].iloc[0], numbers["highest"].iloc[0]
    centre = lowest if np.isinf(highest) else (lowest + highest) / 2
    away = (numbers - centre).abs().to_numpy()
    finite = away[np.isfinite(away)]
    unit = float(finite.max()) if finite.size and finite.max() > 0 else 1.0
    return rows.assign(**((numbers - centre) / unit)), unit


def _draw_row(ax: Axes, y: int, rows: pd.DataFrame, studies: Sequence[str]) -> float:
    """Draw one claim and return what one unit of its row is."""
    rows, unit = scaled(rows)
    low, high = (float(rows[end].iloc[0]) for end in ("lowest", "highest"))
    ax.fill_between([low, min(high, EDGE + 0.05)], y - 0.42, y + 0.42, color=MET, linewidth=0)
    for limit in (low, high):
        if np.isfinite(limit):
            ax.plot([limit, limit], [y - 0.42, y + 0.42], color=style.GREY, linewidth=1)
    offsets = np.linspace(-SPREAD / 2, SPREAD / 2, len(studies)) if len(studies) > 1 else [0.0]
    for n, study in enumerate(studies):
        own = rows[(rows["study"] == study) & rows["value"].notna()]
        for _, row in own.iterrows():
            _draw_point(ax, row, y + float(offsets[n]), _look(n))
    return unit


def _draw_point(ax: Axes, row: pd.Series, y: float, look: dict[str, Any]) -> None:
    """Draw a value with its interval; ends beyond the axis are drawn at its edge."""
    value, low, high = (float(np.clip(row[end], -EDGE, EDGE)) for end in ("value", "low", "high"))
    ax.plot([low, high], [y, y], color=look["color"], linewidth=1.4, solid_capstyle="butt")
    infinite = {"marker": ">" if value > 0 else "<"} if np.isinf(row["value"]) else {}
    ax.plot(value, y, linestyle="none", markersize=4.2, **(look | infinite))


def _look(n: int) -> dict[str, Any]:
    return {"color": COLOURS[n % len(COLOURS)], "marker": MARKERS[n % len(MARKERS)]}


def _key(studies: Sequence[str]) -> list[Line2D | Patch]:
    marks = [Line2D([], [], linewidth=1.4, markersize=4.2, label=study, **_look(n)) for n, study in enumerate(studies)]
    return [*marks, Patch(color=MET, label="meets the criterion")]
