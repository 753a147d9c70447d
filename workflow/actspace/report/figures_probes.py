"""Figures about truth directions: the toy, the profile over layers, and the angles between probes."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from actspace.report import style
from actspace.report.spec import Tables, counted, panels, plural
from actspace.report.summaries import groups, records

SECTION = "Truth directions"
KNOWN_DIRECTIONS = ("theta", "sigma_inv_theta", "diag_inv_theta", "nuisance")
POOLED = "all"  # the training set that holds every statement set
LABEL_COLOURS = {1: style.ORANGE, 0: style.BLUE}
LABEL_MARKERS = {1: "o", 0: "x"}
LABEL_NAMES = {1: "true", 0: "false"}


def toy_truth(tables: Tables) -> Figure:
    """Draw the toy's points with the known directions and those that the probes found."""
    points, directions = tables["toy_points"], tables["toy_directions"]
    figure, (ax,) = panels(1, height=4.4)
    figure.set_figwidth(6.4)
    for label, rows in groups(points, "label"):
        key: dict[str, Any] = {"color": LABEL_COLOURS[int(label)], "marker": LABEL_MARKERS[int(label)], "alpha": 0.35}
        ax.scatter(rows["x"], rows["y"], s=9, linewidths=0.8, rasterized=True, **key)
    reach = float(points[["x", "y"]].abs().to_numpy().max())
    for place, row in enumerate(records(directions)):
        # Lengths shrink along the list, so that of two arrows in one direction both are seen.
        _draw_direction(ax, str(row.name), row.x, row.y, reach * (0.75 - 0.4 * place / len(directions)))
    ax.set(aspect="equal", xlabel="first coordinate", ylabel="second coordinate")
    figure.legend(handles=_toy_key(directions), loc="outside lower center", ncols=3)
    return figure


def _draw_direction(ax: Axes, name: str, x: float, y: float, shown: float) -> None:
    """Draw a known direction as a line through everything and a found one as an arrow, so that both are seen."""
    colour, length = style.colour(name), (x**2 + y**2) ** 0.5
    if name in KNOWN_DIRECTIONS:
        ax.axline((0, 0), (x, y), color=colour, linestyle=style.DASHES.get(name, "-"), linewidth=1.4)
        return
    tip = (shown * x / length, shown * y / length)
    arrow = {"color": colour, "arrowstyle": "-|>", "linewidth": 2.4, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 15}
    ax.annotate("", tip, (0, 0), arrowprops=arrow)


def _toy_key(directions: pd.DataFrame) -> list[Line2D]:
    points = [
        Line2D([], [], color=LABEL_COLOURS[i], marker=LABEL_MARKERS[i], linestyle="none", label=LABEL_NAMES[i])
        for i in (1, 0)
    ]
    names = [str(name) for name in directions["name"]]
    return points + [
        _line(name, linewidth=1.4 if name in KNOWN_DIRECTIONS else 2.6, dashed=name in KNOWN_DIRECTIONS)
        for name in names
    ]


def _line(name: str, linewidth: float = 1.6, dashed: bool = True) -> Line2D:
    key: dict[str, Any] = {"linestyle": style.DASHES.get(name, "-") if dashed else "-"}
    return Line2D([], [], linewidth=linewidth, color=style.colour(name), label=style.label(name), **key)


def toy_caption(tables: Tables) -> str:
    """Say how many points are shown, and how the scores of the toy were obtained."""
    points = tables["toy_points"]
    text = (
        f"The toy of the lesson: {counted([len(points)])} points in two classes shifted by the truth direction θ, "
        f"with a "
        "nuisance direction that is uncorrelated with truth but not orthogonal to it. Thin lines are the known "
        "directions, "
        "arrows those that the probes found; their lengths mean nothing."
    )
    scores = tables.get("toy_truth")
    if scores is None or scores.empty:
        return text
    draws, size = counted(scores["n_draws"].unique()), counted(scores["n_points"].unique())
    return f"{text} The scores of the probes come from {draws} independent draws of {size} points."


def layer_profile(tables: Tables) -> Figure:
    """Draw the accuracy of each probe over layers, one panel per pair of training and test set."""
    table = tables["probe_summary"]
    table = table[table["metric"] == "accuracy"]
    pairs = list(groups(table, "train_set", "test_set"))
    columns = columns_for(len(pairs), table["test_set"].nunique())
    figure, axes = panels(len(pairs), height=1.9 if columns == 4 else 2.6, columns=columns, sharex=True, sharey=True)
    for ax, ((train, test), rows) in zip(axes, pairs, strict=True):
        for probe, line in groups(rows, "probe"):
            draw_over_layers(ax, line, str(probe))
        surface = rows[(rows["layer"] == 0) & (rows["probe"] == "logistic_regression")]
        for value in surface["value"]:
            ax.axhline(value, color=style.BLACK, linewidth=0.9, linestyle=(0, (1, 2)))
        ax.set_title(str(train) if train == test else f"{train} → {test}", fontsize=7.3 if columns == 4 else 9)
    name_outer_axes(axes, columns, "layer (0: embedding)", "accuracy")
    surface_key = Line2D([], [], color=style.BLACK, linewidth=0.9, linestyle=(0, (1, 2)), label="LR at layer 0")
    handles = [_line(str(probe)) for probe in table["probe"].unique()]
    figure.legend(handles=[*handles, surface_key], loc="outside lower center", ncols=3)
    return figure


def columns_for(n_panels: int, n_per_row: int) -> int:
    """Choose the columns of a grid: one per test set where four fit, and else as many as stay readable."""
    if n_panels == n_per_row or n_per_row > 4 or n_panels % n_per_row:
        return 3 if n_panels > 2 else 2
    return n_per_row


def name_outer_axes(axes: list[Axes], columns: int, xlabel: str, ylabel: str) -> None:
    """Label the axes at the left and at the bottom; the panels between share them."""
    for place, ax in enumerate(axes):
        if place % columns == 0:
            ax.set_ylabel(ylabel)
        if place + columns >= len(axes):
            ax.set_xlabel(xlabel)


def draw_over_layers(ax: Axes, rows: pd.DataFrame, name: str, label: str | None = None) -> None:
    """Draw one line over layers with the interval that the table holds."""
    rows = rows.sort_values("layer")
    ax.plot(rows["layer"], rows["value"], color=style.colour(name), linestyle=style.DASHES.get(name, "-"), label=label)
    ax.fill_between(rows["layer"], rows["low"], rows["high"], color=style.colour(name), alpha=0.18, linewidth=0)


def layer_caption(tables: Tables) -> str:
    """Say what was probed, on which sets and over how many splits."""
    table = tables["probe_summary"]
    table = table[table["metric"] == "accuracy"]
    sets = ", ".join(sorted(set(table["train_set"]) | set(table["test_set"])))
    probes, layers = table["probe"].nunique(), table["layer"].nunique()
    return (
        f"Accuracy of {plural(probes, 'linear probe')} at {plural(layers, 'layer')}, "
        f"tested on held-out entities ({sets}); an arrow marks training on one set and testing on another. Means over "
        f"{counted(table['n_splits'].unique())} splits by entity with 95% intervals over splits. Baselines: logistic "
        "regression on the embedding (dotted black), and labels shuffled before training (dotted grey)."
    )


def probe_angles(tables: Tables) -> Figure:
    """Draw the cosine between each pair of probes over layers; single training sets are paler than all of them."""
    table = tables["probe_angles"]
    table = table if "train_set" in table else table.assign(train_set=POOLED)
    pairs = list(groups(table, "probe_a", "probe_b"))
    columns = 3 if len(pairs) > 2 else 2
    figure, axes = panels(len(pairs), height=2.4, columns=columns, sharex=True, sharey=True)
    for ax, ((a, b), rows) in zip(axes, pairs, strict=True):
        for train_set, line in groups(rows, "train_set"):
            if train_set == POOLED:
                draw_over_layers(ax, line, str(b))
            else:
                line = line.sort_values("layer")
                ax.plot(line["layer"], line["value"], color=style.colour(str(b)), alpha=0.35, linewidth=0.9)
        ax.axhline(0, color=style.GREY, linewidth=0.8, linestyle=":")
        ax.set_title(f"{style.label(str(a))}\nand {style.label(str(b))}", fontsize=8.5)
        ax.set(ylim=(-1.02, 1.02))
    name_outer_axes(axes, columns, "layer (0: embedding)", "cosine")
    return figure


def angles_caption(tables: Tables) -> str:
    """Say how many probes are compared at how many layers."""
    table = tables["probe_angles"]
    probes = set(table["probe_a"]) | set(table["probe_b"])
    single = table["train_set"].nunique() - 1 if "train_set" in table else 0
    sets = f"; pale lines are {plural(single, 'single training set')}, the strong one all of them" if single > 0 else ""
    layers = table["layer"].nunique()
    return (
        f"Cosine between the directions of {plural(len(probes), 'probe')} at {plural(layers, 'layer')}, "
        f"with 95% intervals over splits{sets}. One is the same direction, zero (dotted) none in common."
    )


def has_accuracy(tables: Tables) -> bool:
    """Tell whether probes were scored by accuracy."""
    return bool((tables["probe_summary"]["metric"] == "accuracy").any())
