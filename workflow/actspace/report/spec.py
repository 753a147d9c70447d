"""What a figure of the report is, and the small pieces that all figures share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from actspace.report import export, style

Tables = Mapping[str, pd.DataFrame]


@dataclass(frozen=True)
class FigureSpec:
    """One figure: the tables it needs, and functions of them that draw and describe it.

    Parameters
    ----------
    draw : callable
        Tables to a matplotlib Figure; only what the tables hold is drawn.
    tables : tuple of str
        Names of the tables that are read.
    caption : callable
        Tables to a text that says what was measured, on what and how many.
    has_rows : callable
        Tells whether the tables hold the rows that the figure shows.

    The functions of a kind of figure, which every experiment has one of, take the name of the experiment as well.
    """

    id: str
    draw: Callable[..., Figure]
    tables: tuple[str, ...]
    section: str
    title: str
    caption: Callable[..., str]
    has_rows: Callable[..., bool] = lambda tables, experiment="": True

    def of(self, experiment: str) -> FigureSpec:
        """Return the figure of one experiment, which the first of the tables must hold, from that of its kind."""

        def has_rows(tables: Tables) -> bool:
            there = bool((tables[self.tables[0]]["experiment"] == experiment).any())
            return there and self.has_rows(tables, experiment)

        return replace(
            self,
            id=f"{self.id}_{experiment}",
            draw=partial(self.draw, experiment=experiment),
            title=f"{self.title}: {experiment.replace('_', ' ')}",
            caption=partial(self.caption, experiment=experiment),
            has_rows=has_rows,
        )

    def available(self, tables: Tables) -> bool:
        """Tell whether a study has what the figure needs."""
        present = all(name in tables and not tables[name].empty for name in self.tables)
        return present and self.has_rows(tables)

    def svg(self, tables: Tables) -> str:
        """Draw the figure in the look of the report and return it as a self-contained SVG document."""
        return self.files(tables, ("svg",))["svg"].decode()

    def files(self, tables: Tables, kinds: Iterable[str] = export.KINDS) -> dict[str, bytes]:
        """Draw the figure once, and return it as the kinds of files that are wanted, with its caption as `rst`."""
        with style.theme():
            figure, caption = self.draw(tables), self.caption(tables)
            return {kind: export.KINDS[kind](figure, self.id, self.title, caption) for kind in kinds}


def panels(
    n: int, height: float, columns: int = 3, sharex: bool = False, sharey: bool | Literal["row"] = False
) -> tuple[Figure, list[Axes]]:
    """Lay out n panels, `height` inches each, in rows of at most `columns`; the last row may stay short."""
    columns = min(columns, n)
    rows = -(-n // columns)
    # Legends stand outside the axes; without a gap the layout lets them touch the labels.
    layout = ConstrainedLayoutEngine(h_pad=0.08, w_pad=0.06)
    figure = Figure(figsize=(style.WIDTH, rows * height + 0.6), layout=layout)
    grid = np.asarray(figure.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=sharey)).ravel()
    for spare in grid[n:]:
        spare.remove()
    return figure, list(grid[:n])


def counted(numbers: Iterable[float]) -> str:
    """Write one number, or the range of several, with thousands separated."""
    known = sorted(int(n) for n in numbers if not np.isnan(n))
    if not known:
        return "an unknown number of"
    return f"{known[0]:,}" if known[0] == known[-1] else f"{known[0]:,} to {known[-1]:,}"


def plural(n: int, noun: str) -> str:
    """Write a count with its noun."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"
