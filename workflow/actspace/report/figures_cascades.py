"""The figure of cascades: recall against the share of inputs that the first stage passes on."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from actspace.probes.summary import BOTH, CASCADE, CHANCE, FIRST_ALONE, SECOND_ALONE
from actspace.report import style
from actspace.report.figures_probes import SECTION, name_outer_axes
from actspace.report.spec import FigureSpec, Tables, counted, panels, plural
from actspace.report.summaries import groups

PAIR = ["first_probe", "first_hook"]
SECOND = ["probes", "second_probe", "second_layer"]
MARKERS = "osD^vP"  # of hook points, in turn


def cascades(tables: Tables) -> Figure:
    """Draw recall against the share passed on, one panel per second stage and allowed rate, one line per first stage."""
    table = tables["probe_cascades"]
    parts = list(groups(table, *SECOND, "allowed_rate"))
    columns = min(table["allowed_rate"].nunique(), 3)
    figure, axes = panels(len(parts), height=2.7, columns=columns, sharex=True, sharey=True)
    markers, top = _markers(table), table.loc[table["metric"] == "recall", ["value", "high"]].max().max()
    for ax, ((_, probe, layer, rate), rows) in zip(axes, parts, strict=True):
        for (first, hook), line in groups(rows, *PAIR):
            _draw_first(ax, _wide(line), str(first), markers[str(hook)])
        alone = rows[(rows["stages"] == SECOND_ALONE) & (rows["metric"] == "recall")]["value"].iloc[0]
        ax.axhline(alone, color=style.GREY, linewidth=1.0, linestyle="--")
        ax.set_title(f"then {style.label(str(probe))}, layer {layer}; {_percent(rate)} allowed", fontsize=8)
        ax.set(xlim=(-0.03, 1.03), ylim=(0, 1.05 * top))
    name_outer_axes(axes, columns, "share of inputs passed on", "recall")
    figure.legend(handles=_key(table, markers), loc="outside lower center", ncols=3)
    return figure


def _markers(table: pd.DataFrame) -> dict[str, str]:
    hooks = table.sort_values("first_layer")["first_hook"].unique()
    return {str(hook): MARKERS[place % len(MARKERS)] for place, hook in enumerate(hook for hook in hooks if hook)} | {
        "": ""
    }


def _wide(rows: pd.DataFrame) -> pd.DataFrame:
    """Put the shares that were met beside recalls, one row per way of putting the stages together."""
    recall = rows[rows["metric"] == "recall"].set_index("share")
    shares = rows[rows["metric"] == "share_passed_on"].set_index("share")["value"]
    return recall.assign(met=shares).sort_index()


def _draw_first(ax: Axes, rows: pd.DataFrame, first: str, marker: str) -> None:
    """Draw one first stage: a line over shares, and an open mark where it decides alone."""
    colour, line, alone = style.colour(first), rows[rows["stages"] != FIRST_ALONE], rows[rows["stages"] == FIRST_ALONE]
    look: dict[str, Any] = {
        "color": colour,
        "linestyle": ":" if first == CHANCE else "-",
        "marker": marker,
        "markersize": 4,
    }
    ax.plot(line["met"], line["value"], **look)
    ax.fill_between(line["met"], line["low"], line["high"], color=colour, alpha=0.15, linewidth=0)
    ax.plot(
        alone["met"], alone["value"], color=colour, marker=marker, markerfacecolor="white", markersize=6, clip_on=False
    )


def _key(table: pd.DataFrame, markers: dict[str, str]) -> list[Line2D]:
    firsts = table.drop_duplicates(PAIR)
    handles = []
    for probe, hook, layer in zip(firsts["first_probe"], firsts["first_hook"], firsts["first_layer"], strict=True):
        text = "first at random" if probe == CHANCE else f"first {style.label(str(probe))}, layer {layer}"
        look: dict[str, Any] = {
            "linestyle": ":" if probe == CHANCE else "-",
            "marker": markers[str(hook)],
            "markersize": 4,
        }
        handles.append(Line2D([], [], color=style.colour(str(probe)), label=text, **look))
    open_mark: dict[str, Any] = {"marker": "o", "markerfacecolor": "white", "linestyle": "none", "color": style.GREY}
    return [
        *handles,
        Line2D([], [], label="first stage alone", **open_mark),
        Line2D([], [], label="second stage alone", color=style.GREY, linewidth=1.0, linestyle="--"),
    ]


def _percent(rate: float) -> str:
    return f"{100 * rate:g}%"


def cascades_caption(tables: Tables) -> str:
    """Say what is flagged, how thresholds are set, how many statements there are, and the false positives that were met."""
    table = tables["probe_cascades"]
    pairs = table[(table["first_probe"] != CHANCE) & (table["stages"] == BOTH)]
    met = table[table["metric"] == "false_positive_rate"].groupby("allowed_rate")["value"].agg(["min", "max"])
    rates = "; ".join(
        f"{_percent(low)} to {_percent(high)} where {_percent(rate)} is allowed"
        for rate, low, high in ((r, round(a, 3), round(b, 3)) for r, a, b in met.itertuples())
    )
    return (
        f"Recall of {plural(len(pairs.drop_duplicates(CASCADE)), 'cascade')} of two linear probes: the first stage passes a share "
        "of all inputs on, the second flags among them. Open marks: the first stage alone; dashes: the second alone, on all "
        "inputs; dotted: a first stage that passes on at random. Thresholds are set on other held-out entities than those "
        "they judge, so that one of the unwanted is flagged at the allowed rate at most; false-positive rates that were "
        f"met: {rates}. Means over {counted(table['n_splits'].unique())} splits by entity of "
        f"{counted(table['n_positive'].unique())} held-out statements that are looked for and "
        f"{counted(table['n_negative'].unique())} others, with 95% intervals over splits."
    )


FIGURES = (
    FigureSpec(
        id="cascades",
        draw=cascades,
        tables=("probe_cascades",),
        section=SECTION,
        title="Two probes as a cascade",
        caption=cascades_caption,
    ),
)
