"""Figures about the causal effect of probe directions: what adding and subtracting them does to the model's answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from actspace.probes.causal_statistics import NOTHING, ODD, PROBE, RANDOM, UNDEFINED
from actspace.report import style
from actspace.report.figures_probes import SECTION
from actspace.report.spec import FigureSpec, Tables, counted, panels, plural
from actspace.report.summaries import groups, records

SIGNS = {"plus": ("^", "adding v"), "minus": ("v", "subtracting v")}
SPREAD = 0.6
"""Width, in layers' places, over which the probes of one place stand side by side."""
MOST_TICKS, PANEL_POINTS = 10, 150
"""Layers that are named at most, and the width of a panel in points."""


def causal_effects(tables: Tables) -> Figure:
    """Draw effects of both signs on the answers over layers, and the answers' total probability, a row per set."""
    table = tables["causal_effects"]
    several = table["experiment"].nunique() > 1
    rows_of_panels = list(groups(table, "experiment", "test_set"))
    figure, axes = panels(3 * len(rows_of_panels), height=2.6, columns=3)
    for row, ((experiment, name), rows) in enumerate(rows_of_panels):
        plus, minus, damage = axes[3 * row : 3 * row + 3]
        minus.sharey(plus)
        for ax, sign in ((plus, "plus"), (minus, "minus")):
            _draw_effects(ax, rows, sign)
            ax.set_title(f"{f'{experiment}, ' if several else ''}{name}: {SIGNS[sign][1]}", fontsize=9)
        plus.set_ylabel("change of P(true) − P(false)")
        _draw_totals(damage, rows)
        damage.set_title("P(true) + P(false)", fontsize=9)
        layers = _layers(rows)
        for ax in (plus, minus, damage):
            shown = range(0, len(layers), -(-len(layers) // MOST_TICKS))
            ax.set_xticks(shown, [str(list(layers.values())[place]) for place in shown])
            ax.set_xlim(-0.6, len(layers) - 0.4)
    for ax in axes[-3:]:
        ax.set_xlabel("layer (0: embedding)")
    figure.legend(handles=_key(table), loc="outside lower center", ncols=3)
    return figure


def _layers(table: pd.DataFrame) -> dict[str, int]:
    """Return the layer of every site, the earliest first."""
    return {str(row.site): int(row.layer) for row in records(table.drop_duplicates("site").sort_values("layer"))}


def _places(table: pd.DataFrame, probe: str, rows: pd.DataFrame) -> np.ndarray:
    """Return where along the layers the rows of a probe stand, beside those of the others."""
    probes, sites = _probes(table), list(_layers(table))
    beside = (probes.index(probe) + 0.5) / len(probes) - 0.5
    return np.array([sites.index(site) for site in rows["site"]]) + SPREAD * beside


def _probes(table: pd.DataFrame) -> list[str]:
    return [str(name) for name in table.loc[table["direction"] == PROBE, "probe"].unique()]


def _draw_effects(ax: Axes, table: pd.DataFrame, sign: str) -> None:
    ax.axhline(0, color=style.BLACK, linewidth=0.8)
    signed = table[table["sign"] == sign]
    for probe in _probes(table):
        own = signed[(signed["probe"] == probe) & (signed["direction"] == PROBE) & (signed["statistic"] == "effect")]
        _draw_estimates(ax, _places(table, probe, own), own, probe, SIGNS[sign][0])
        random = signed[(signed["statistic"] == "effect_of_single_directions") & signed["probe"].isin((probe, "all"))]
        x = _places(table, probe, random)
        width = min(6.0, SPREAD * PANEL_POINTS / (len(_layers(table)) * len(_probes(table))))
        ax.vlines(x, random["low"], random["high"], color=style.GREY, alpha=0.35, linewidth=width)


def _draw_totals(ax: Axes, table: pd.DataFrame) -> None:
    totals = table[table["statistic"] == "total_probability"]
    for value in totals.loc[totals["direction"] == NOTHING, "value"].unique():
        ax.axhline(value, color=style.BLACK, linewidth=0.9, linestyle=(0, (1, 2)))
    for probe in _probes(table):
        for sign, (marker, _) in SIGNS.items():
            rows = totals[(totals["probe"] == probe) & (totals["direction"] == PROBE) & (totals["sign"] == sign)]
            _draw_estimates(ax, _places(table, probe, rows), rows, probe, marker)
    ax.set_ylim(0, 1.02)


def _draw_estimates(ax: Axes, x: np.ndarray, rows: pd.DataFrame, probe: str, marker: str) -> None:
    """Draw values with the intervals that the table holds."""
    key: dict[str, Any] = {"color": style.colour(probe), "marker": marker, "linestyle": "none", "elinewidth": 1.2}
    ends = [rows["value"] - rows["low"], rows["high"] - rows["value"]]
    ax.errorbar(x, rows["value"], yerr=np.array(ends), markersize=4.5 if len(rows) <= MOST_TICKS else 2.5, **key)


def _key(table: pd.DataFrame) -> list[Any]:
    line: dict[str, Any] = {"marker": "s", "markersize": 5, "linestyle": "none"}
    probes = [Line2D([], [], color=style.colour(probe), label=style.label(probe), **line) for probe in _probes(table)]
    return [
        *probes,
        Patch(color=style.GREY, alpha=0.35, linewidth=0, label="95% of random directions"),
        Line2D([], [], color=style.BLACK, linewidth=0.9, linestyle=(0, (1, 2)), label="undisturbed"),
    ]


def causal_caption(tables: Tables) -> str:
    """Say what was added to how many statements, how the random control came out, and whether effects could be normalised."""
    table = tables["causal_effects"]
    directions = counted(table.loc[table["direction"] == RANDOM, "n_directions"].unique())
    return (
        f"Effect of {plural(len(_probes(table)), 'probe direction')} on the model's answer whether a statement is true, added "
        f"(left) and subtracted (middle) inside {counted(table['n_statements'].unique())} held-out statements of "
        f"{counted(table['n_entities'].unique())} entities per set, with 95% intervals over entities. Grey: 95% of single random "
        f"directions of the same norm ({directions} for each). Right: total probability of both answers, which damage lowers "
        f"(triangles up: added, down: subtracted). {_control_text(table)} {_normalised_text(table)}"
    )


def _control_text(table: pd.DataFrame) -> str:
    odd = table[(table["direction"] == RANDOM) & (table["sign"] == ODD) & (table["statistic"] == "effect")]
    around = int(((odd["low"] <= 0) & (odd["high"] >= 0)).sum())
    strongest = odd.loc[odd["value"].abs().idxmax()]
    return (
        f"The odd part of the random control, half of its effect when added less when subtracted, has an interval that contains "
        f"zero in {around} of {plural(len(odd), 'case')} (largest: {strongest['value']:.2g}, {strongest['low']:.2g} to "
        f"{strongest['high']:.2g})."
    )


def _normalised_text(table: pd.DataFrame) -> str:
    """Say where normalised indirect effects are undefined, and what the others are."""
    found = table[table["statistic"].str.startswith("nie")]
    defined = found[found["status"] != UNDEFINED]
    if defined.empty:
        return (
            "The normalised indirect effect is undefined: undisturbed, the model does not tell true from false statements by "
            "its answers (the interval of the difference does not lie above zero)."
        )
    part = (
        ""
        if len(defined) == len(found)
        else f" where it is defined, in {len(defined)} of {plural(len(found), 'case')},"
    )
    return (
        f"The normalised indirect effect{part} goes from {defined['value'].min():.2f} to {defined['value'].max():.2f}."
    )


FIGURES = (
    FigureSpec(
        id="causal_effects",
        draw=causal_effects,
        tables=("causal_effects",),
        section=SECTION,
        title="What adding probe directions does to answers",
        caption=causal_caption,
    ),
)
