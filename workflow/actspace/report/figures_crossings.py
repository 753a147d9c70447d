"""Figures about where curves cross a threshold: shares, histograms, medians over layers, and all comparisons."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from actspace.perturbations.statistics import at_one_threshold
from actspace.report import style
from actspace.report.figures_perturbations import (
    PATH_LABELS,
    PATH_TITLES,
    SECTION,
    at,
    column_title,
    families,
    family_key,
    label_path,
    look,
    of_experiment,
    paths_of,
    setting_of,
    shown,
    sites_of,
    ticks_of_path,
    title_size,
    what_is_shown,
)
from actspace.report.spec import FigureSpec, Tables, counted, panels, plural
from actspace.report.summaries import (
    crossing_ecdf,
    crossing_histogram,
    deviation_cosines,
    end_sites,
    groups,
    layers,
    records,
)

MOST_PAIRS = 10
"""Pairs of families of one experiment that the figure of all comparisons still shows in full."""
BEYOND = 1.22
"""Where axes end, over the end of the path: what never crosses is drawn in between, on grey."""
PATH_MARKERS = {
    "sphere": ("o", style.BLUE, "filled"),
    "straight": ("o", "white", "hollow"),
    "absolute": ("s", "white", "square"),
    "interpolate": ("D", "white", "diamond"),
}


def crossings(tables: Tables, experiment: str) -> pd.DataFrame:
    """Return an experiment's crossings of one threshold."""
    return at_one_threshold(of_experiment(tables["perturbation_thresholds"], experiment))


def median_crossings(tables: Tables, experiment: str) -> pd.DataFrame:
    """Return the rows of an experiment's median crossings of one threshold, with their intervals."""
    table = at_one_threshold(of_experiment(tables["perturbation_statistics"], experiment))
    return table[table["statistic"] == "median_crossing"]


def thresholds(tables: Tables, experiment: str) -> Figure:
    """Draw, for each family, the fraction of curves that have crossed the threshold by each point of the path."""
    table = crossings(tables, experiment)
    ecdf, medians, places = crossing_ecdf(table), median_crossings(tables, experiment), shown(table)
    figure, axes = panels(len(places), height=3.3, columns=len(places), sharey=True)
    for ax, place in zip(axes, places, strict=True):
        end = float(at(table, *place)["end"].max())
        for row, (base, direction, line) in enumerate(families(at(ecdf, *place))):
            key = look(table, base, direction)
            colour, dash = key["color"], key["linestyle"]
            ax.step(line["crossing"], line["fraction"], color=colour, linestyle=dash, where="post", linewidth=1.8)
            _mark_never(ax, end * (1.02 + 0.025 * row), line, colour)
        _draw_median_intervals(ax, at(medians, *place), table, end)
        _beyond(ax, place[0], end)
        ax.text(1.18 * end, 0.03, "never crossed", rotation=90, ha="center", va="bottom", color=style.GREY, fontsize=8)
        ax.set_ylim(0, 1.03)
        ax.set_title(column_title(table, *place), fontsize=title_size(table))
        label_path(ax, place[0])
    axes[0].set_ylabel(f"fraction of curves past {counted_thresholds(table)} nats")
    family_key(figure, table)
    return figure


def _beyond(ax: Axes, path: str, end: float) -> None:
    """Set grey apart what lies beyond the end of the path."""
    ax.axvspan(end, BEYOND * end, color="#F1F1F1", zorder=0, linewidth=0)
    ax.set_xlim(0, BEYOND * end)
    ticks_of_path(ax, path, end)


def _mark_never(ax: Axes, at: float, line: pd.DataFrame, colour: str) -> None:
    """Draw a bar from the last step to 1: the part of the curves that is beyond the path's end."""
    never = float(line["fraction_never"].iloc[0])
    if never > 0:
        ax.plot([at, at], [1 - never, 1], color=colour, linewidth=3, solid_capstyle="butt")


def _draw_median_intervals(ax: Axes, medians: pd.DataFrame, table: pd.DataFrame, end: float) -> None:
    """Draw each median with its interval at the height of one half, the families a little apart."""
    for row, (base, direction, found) in enumerate(families(medians)):
        colour, height = look(table, base, direction)["color"], 0.5 + 0.022 * (row - (len(medians) - 1) / 2)
        low, value, high = (min(float(found[name].iloc[0]), BEYOND * end) for name in ("low", "value", "high"))
        ax.plot([low, high], [height, height], color=colour, linewidth=1.2, alpha=0.8)
        ax.plot([value], [height], color=colour, marker="o", markersize=4, markeredgecolor="white", markeredgewidth=0.5)


def counted_thresholds(table: pd.DataFrame) -> str:
    """Write the threshold, or all of them."""
    return " and ".join(f"{level:g}" for level in sorted(table["threshold_nats"].unique()))


def thresholds_caption(tables: Tables, experiment: str) -> str:
    """Say what was crossed, where by half of the curves, and how far each family's directions contain the base."""
    table = crossings(tables, experiment)
    cosines = [
        f"{look(table, row.base, row.direction)['label']} {row.mean_cosine:.2f}"
        for row in records(deviation_cosines(table))
    ]
    return (
        f"{setting_of(table)}{what_is_shown(table)} Cumulative fraction of curves whose KL divergence has crossed "
        f"{counted_thresholds(table)} nats. Curves that never cross count as beyond the path's end (bars on grey, from "
        "the fraction that crossed up to 1). Dots and bars halfway up: median crossing and its 95% interval over "
        f"prompts. {medians_said(tables, experiment)} {_never_said(table)} Mean cosine of the directions with minus the base's deviation "
        f"from the mean: {'; '.join(cosines)}."
    )


def medians_said(tables: Tables, experiment: str) -> str:
    """Say the median crossing of each family with its interval, on the first path at the first site."""
    table = median_crossings(tables, experiment)
    path, site = paths_of(table)[0], sites_of(table)[0]
    said = []
    for base, direction, rows in families(at(table, path, site)):
        low, value, high = (_position(float(rows[name].iloc[0]), path) for name in ("low", "value", "high"))
        said.append(f"{look(table, base, direction)['label']} {value} ({low} to {high})")
    where = PATH_TITLES[path] if len(sites_of(table)) == 1 else f"{PATH_TITLES[path]}, {site}"
    return f"Medians {where}: {'; '.join(said)}."


def _never_said(table: pd.DataFrame) -> str:
    """Say the share of each family's curves that never cross, path by path."""
    paths, said = paths_of(table), []
    for base, direction, rows in families(table):
        never = np.isinf(rows["crossing"]).groupby(rows["path"].astype(str)).mean()
        said.append(f"{look(table, base, direction)['label']} {' and '.join(f'{never[path]:.0%}' for path in paths)}")
    return f"Never crossed ({' and '.join(PATH_TITLES[path] for path in paths)}): {'; '.join(said)}."


def _position(value: float, path: str) -> str:
    """Write a position on a path; an infinite one is that of most curves never crossing."""
    if np.isinf(value):
        return "never"
    return f"{value:.0f}°" if path == "sphere" else f"{value:.3g}"


def histograms(tables: Tables, experiment: str) -> Figure:
    """Draw, for each family, how many curves cross in each part of the path, and how many never do."""
    table = crossings(tables, experiment)
    histogram, places, pairs = crossing_histogram(table), shown(table), list(families(table))
    figure, axes = panels(len(pairs) * len(places), height=1.05, columns=len(places), sharey=True)
    for row, (base, direction, _) in enumerate(pairs):
        key = look(table, base, direction)
        for column, place in enumerate(places):
            ax, here = axes[row * len(places) + column], at(histogram, *place)
            _draw_histogram(ax, here[(here["base"] == base) & (here["direction"] == direction)], place[0], key["color"])
            above = [column_title(table, *place)] * (row == 0) + [key["label"] if column == 0 else " "]
            ax.set_title("\n".join(above), loc="left", fontsize=8.5, pad=3)
            if row == len(pairs) - 1:
                label_path(ax, place[0])
            else:
                ax.set_xticklabels([])
    figure.supylabel("fraction of curves", fontsize=9.5)
    return figure


def _draw_histogram(ax: Axes, bars: pd.DataFrame, path: str, colour: str) -> None:
    end, width = float(bars["end"].iloc[0]), bars["high"] - bars["low"]
    rim: dict[str, Any] = {"color": colour, "edgecolor": "white", "linewidth": 0.5}
    ax.bar(bars["low"], bars["fraction"], width, align="edge", **rim)
    ax.bar([1.11 * end], bars["fraction_never"].iloc[:1], 0.12 * end, hatch="////", **rim)
    _beyond(ax, path, end)


def histograms_caption(tables: Tables, experiment: str) -> str:
    """Say what is counted, and of how many curves."""
    table = crossings(tables, experiment)
    return (
        f"{setting_of(table)}{what_is_shown(table)} Fraction of curves whose KL divergence first crosses "
        f"{counted_thresholds(table)} nats in each fifteenth of the path; hatched, on grey: those that never cross."
    )


def layer_profile(tables: Tables, experiment: str) -> Figure:
    """Draw the median crossing of each family, and its AUROC against the first family, over the depth of the site."""
    medians, aurocs = median_crossings(tables, experiment), _against_first(tables, experiment)
    ends = crossings(tables, experiment).groupby("path", observed=True)["end"].max()
    paths = paths_of(medians)
    figure, axes = panels(2 * len(paths), height=2.5, columns=len(paths), sharex=True)
    for column, path in enumerate(paths):
        top, below, end = axes[column], axes[len(paths) + column], float(ends[path])
        for base, direction, rows in families(medians[medians["path"] == path]):
            _draw_over_layers(top, rows, look(medians, base, direction), end)
        for direction, rows in groups(aurocs[aurocs["path"] == path], "b"):
            _draw_over_layers(below, rows, look(medians, *str(direction).split("|", 1)), 1.0)
        top.axhspan(end, BEYOND * end, color="#F1F1F1", zorder=0, linewidth=0)
        top.set(ylim=(0, BEYOND * end), title=PATH_TITLES[path], ylabel=PATH_LABELS[path])
        below.axhline(0.5, color=style.GREY, linewidth=0.9, linestyle=":")
        below.set(ylim=(-0.02, 1.02), xlabel="blocks below the site", ylabel="AUROC" if column == 0 else "")
    family_key(figure, medians)
    return figure


def _against_first(tables: Tables, experiment: str) -> pd.DataFrame:
    """Return the AUROC of an experiment's first family against each other one."""
    table = at_one_threshold(of_experiment(tables["perturbation_comparisons"], experiment))
    table = table[table["statistic"] == "auroc"]
    return table[table["a"] == table["a"].iloc[0]]


def _draw_over_layers(ax: Axes, rows: pd.DataFrame, key: dict[str, str], end: float) -> None:
    rows = rows.assign(layer=layers(rows)).sort_values("layer")
    low, value, high = (rows[name].clip(upper=1.11 * end) for name in ("low", "value", "high"))
    ax.plot(rows["layer"], value, color=key["color"], linestyle=key["linestyle"], marker="o", markersize=3.5)
    ax.fill_between(rows["layer"], low, high, color=key["color"], alpha=0.15, linewidth=0)


def layer_profile_caption(tables: Tables, experiment: str) -> str:
    """Say what is drawn over the layers, at how many sites, from how many prompts."""
    table = crossings(tables, experiment)
    first = _family_name(str(_against_first(tables, experiment)["a"].iloc[0]))
    return (
        f"{setting_of(table)} Top: median position at which the KL divergence crosses {counted_thresholds(table)} nats; "
        f"on grey where more than half of the curves never do. Bottom: probability that a curve {first} crosses before "
        "one of the family in that colour. Bands are 95% intervals over prompts."
    )


def training(tables: Tables) -> Figure:
    """Draw the median crossing of each family that was walked in several states of the model, over these states."""
    table = _over_weights(tables)
    states, places = list(dict.fromkeys(table["weights"])), shown(table)
    figure, axes = panels(len(places), height=2.8, columns=min(2, len(places)), sharey="row")
    ends = at_one_threshold(tables["perturbation_thresholds"]).groupby("path", observed=True)["end"].max()
    for ax, place in zip(axes, places, strict=True):
        for base, direction, rows in families(at(table, *place)):
            rows = rows.assign(layer=[states.index(state) for state in rows["weights"]])
            _draw_over_layers(ax, rows, look(table, base, direction), float(ends[place[0]]))
        ax.set_xticks(range(len(states)), states, rotation=30, ha="right")
        ax.set(ylim=(0, BEYOND * float(ends[place[0]])), ylabel=PATH_LABELS[place[0]])
        ax.axhspan(float(ends[place[0]]), BEYOND * float(ends[place[0]]), color="#F1F1F1", zorder=0, linewidth=0)
        ax.set_title(column_title(table, *place), fontsize=title_size(table))
    family_key(figure, table)
    return figure


def _over_weights(tables: Tables) -> pd.DataFrame:
    """Return the median crossings of the families that three states of the model or more have in common at a site."""
    table = at_one_threshold(tables["perturbation_statistics"])
    table = table[table["statistic"] == "median_crossing"]
    keys = ["site", "path", "base", "direction"]
    table = table.drop_duplicates([*keys, "weights"])
    return table[table.groupby(keys, observed=True)["weights"].transform("nunique") >= 3]


def training_caption(tables: Tables) -> str:
    """Say which states of the model are compared, and on how many prompts."""
    table = _over_weights(tables)
    return (
        f"Median position at which the KL divergence crosses {counted_thresholds(table)} nats, in "
        f"{plural(table['weights'].nunique(), 'state')} of the model's weights; on grey where more than half of the curves never do. "
        f"Bands are 95% intervals over {counted(table['n_prompts'].unique())} prompts.{what_is_shown(table)}"
    )


def has_training(tables: Tables) -> bool:
    """Tell whether three states of the model have a family at a site in common."""
    return not _over_weights(tables).empty


def has_several_sites(tables: Tables, experiment: str) -> bool:
    """Tell whether two families were compared at several sites of an experiment."""
    table = of_experiment(tables["perturbation_comparisons"], experiment)
    return bool(table["site"].nunique() > 1)


def comparisons(tables: Tables) -> Figure:
    """Draw every AUROC between two families with its interval, the paths below each other."""
    table = _aurocs(tables)
    pairs = list(groups(table, "experiment", "site", "a", "b"))
    headings = len({key[:2] for key, _ in pairs})
    figure, (ax,) = panels(1, height=0.6 + 0.26 * len(pairs) + 0.1 * len(table) + 0.3 * headings)
    height, heading = 0.0, None
    for (experiment, site, a, b), rows in pairs:
        if (experiment, site) != heading:
            heading = (experiment, site)
            ax.axhspan(height, height + 0.6, color="#F1F1F1", linewidth=0, zorder=0)
            _write(ax, height + 0.3, f"{style.label(experiment)}, {site}")
            height += 0.6
        _write(ax, height + 0.25, f"{_family_name(a)}  before  {_family_name(b)}")
        height += 0.34
        for row in records(rows):
            marker, face, _ = PATH_MARKERS[row.path]
            height += 0.24
            ax.plot([row.low, row.high], [height, height], color=style.BLUE, linewidth=1.4)
            ax.plot([row.value], [height], color=style.BLUE, marker=marker, markerfacecolor=face, markersize=4.5)
        height += 0.23
    ax.axvline(0.5, color=style.GREY, linewidth=0.9, linestyle=":", zorder=0)
    ax.grid(axis="y", visible=False)
    ax.set_yticks([])
    ax.set(ylim=(height, 0), xlim=(-0.02, 1.02))
    ax.set_xlabel("AUROC: probability that the first crosses the threshold before the second")
    return figure


def _aurocs(tables: Tables) -> pd.DataFrame:
    """Return the AUROCs that are drawn: of an experiment with many families, those against its first alone."""
    table = at_one_threshold(tables["perturbation_comparisons"])
    table = end_sites(table[table["statistic"] == "auroc"])
    return pd.concat([_few_pairs(rows) for _, rows in groups(table, "experiment")])


def _few_pairs(rows: pd.DataFrame) -> pd.DataFrame:
    pairs = len(rows[["a", "b"]].drop_duplicates())
    return rows if pairs <= MOST_PAIRS else rows[rows["a"] == rows["a"].iloc[0]]


def _write(ax: Axes, height: float, text: str) -> None:
    ax.text(0, height, text, fontsize=7.8, va="center", in_layout=False)


def _family_name(family: str) -> str:
    base, direction = family.split("|", 1)
    return f"{style.label(direction)} from {style.label(base)}"


def comparisons_caption(tables: Tables) -> str:
    """Say what is compared, over how many prompts."""
    rows = _aurocs(tables)
    key = "; ".join(f"{PATH_MARKERS[path][2]}: {PATH_TITLES[path]}" for path in paths_of(rows))
    several = tables["perturbation_comparisons"].groupby("experiment")["site"].nunique().max() > 1
    ends = " Of an experiment at several sites, the first and the last." if several else ""
    every = at_one_threshold(tables["perturbation_comparisons"])
    many = (
        every[every["statistic"] == "auroc"]
        .groupby(["experiment", "site"])[["a", "b"]]
        .apply(lambda pairs: len(pairs.drop_duplicates()))
    )
    ends += (
        " Of an experiment with many families, those against its first one; the table has all."
        if (many > MOST_PAIRS).any()
        else ""
    )
    return (
        f"{plural(len(rows), 'comparison')} of two families (a direction from a kind of base) by the point where the "
        "KL divergence crosses its threshold, ties counting half; 0.5 (dotted) means no difference. "
        f"{key[0].upper()}{key[1:]}. Bars are 95% intervals over {counted(rows['n_prompts'].unique())} prompts.{ends}"
    )


def has_auroc(tables: Tables) -> bool:
    """Tell whether two families were compared."""
    return bool((tables["perturbation_comparisons"]["statistic"] == "auroc").any())


KINDS = (
    FigureSpec(
        id="thresholds",
        draw=thresholds,
        tables=("perturbation_thresholds", "perturbation_statistics"),
        section=SECTION,
        title="Threshold crossings",
        caption=thresholds_caption,
    ),
    FigureSpec(
        id="histograms",
        draw=histograms,
        tables=("perturbation_thresholds",),
        section=SECTION,
        title="Histograms of crossings",
        caption=histograms_caption,
    ),
    FigureSpec(
        id="layers",
        draw=layer_profile,
        tables=("perturbation_comparisons", "perturbation_statistics", "perturbation_thresholds"),
        section=SECTION,
        title="Crossings over layers",
        caption=layer_profile_caption,
        has_rows=has_several_sites,
    ),
)
"""Of which every experiment has one, after its curves."""
FIGURES = (
    FigureSpec(
        id="training",
        draw=training,
        tables=("perturbation_statistics", "perturbation_thresholds"),
        section=SECTION,
        title="Median crossings over states of the model",
        caption=training_caption,
        has_rows=has_training,
    ),
    FigureSpec(
        id="comparisons",
        draw=comparisons,
        tables=("perturbation_comparisons",),
        section=SECTION,
        title="All comparisons of families",
        caption=comparisons_caption,
        has_rows=has_auroc,
    ),
)
