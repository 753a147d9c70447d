"""Figures about truth directions: the toy, the profile over layers, from set to set, the statements, and angles."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from actspace.probes.summary import BASELINES, best_hook
from actspace.report import style
from actspace.report.spec import FigureSpec, Tables, counted, panels, plural
from actspace.report.summaries import groups, records

SECTION = "Truth directions"
KNOWN_DIRECTIONS = ("theta", "sigma_inv_theta", "diag_inv_theta", "nuisance")
MOST_PAIRS = 25
"""Pairs of sets in one figure; of more, those of different sets are in the figure from set to set alone."""
MOST_NUMBERS = 8
"""Sets in a row that leave room for a number in each cell; more need a scale of colours."""
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
    arrow = {
        "color": colour,
        "linestyle": style.dash(name),
        "arrowstyle": "-|>",
        "linewidth": 2.4,
        "shrinkA": 0,
        "shrinkB": 0,
        "mutation_scale": 15,
    }
    ax.annotate("", tip, (0, 0), arrowprops=arrow)


def _toy_key(directions: pd.DataFrame) -> list[Line2D]:
    points = [
        Line2D([], [], color=LABEL_COLOURS[i], marker=LABEL_MARKERS[i], linestyle="none", label=LABEL_NAMES[i])
        for i in (1, 0)
    ]
    names = [str(name) for name in directions["name"]]
    return points + [_line(name, linewidth=1.4 if name in KNOWN_DIRECTIONS else 2.6) for name in names]


def _line(name: str, linewidth: float = 1.6) -> Line2D:
    key: dict[str, Any] = {"linestyle": style.DASHES.get(name, "-")}
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
    table = _drawn_over_layers(tables["probe_summary"])
    pairs = list(groups(table, "train_set", "test_set"))
    columns = columns_for(len(pairs), table["test_set"].nunique())
    figure, axes = panels(len(pairs), height=1.9 if columns == 4 else 2.6, columns=columns, sharex=True, sharey=True)
    for ax, ((train, test), rows) in zip(axes, pairs, strict=True):
        for probe, line in groups(rows, "probe"):
            draw_over_layers(ax, line, str(probe))
        surface = rows[(rows["layer"] == 0) & (rows["probe"] == "logistic_regression")]
        for value in surface["value"]:
            ax.axhline(value, color=style.BLACK, linewidth=0.9, linestyle=(0, (1, 2)))
        ax.set_title(str(train) if train == test else f"{train} → {test}", fontsize=6.8 if columns == 4 else 9)
    name_outer_axes(axes, columns, "layer (0: embedding)", "accuracy")
    surface_key = Line2D([], [], color=style.BLACK, linewidth=0.9, linestyle=(0, (1, 2)), label="LR at layer 0")
    handles = [_line(str(probe)) for probe in table["probe"].unique()]
    figure.legend(handles=[*handles, surface_key], loc="outside lower center", ncols=3)
    return figure


def _drawn_over_layers(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows to draw: of all pairs of sets, or of each set with itself where all would be too many panels."""
    table = table[table["metric"] == "accuracy"]
    few = len(table[["train_set", "test_set"]].drop_duplicates()) <= MOST_PAIRS
    return table if few else table[table["train_set"] == table["test_set"]]


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
    table = _drawn_over_layers(tables["probe_summary"])
    sets = ", ".join(sorted(set(table["train_set"]) | set(table["test_set"])))
    probes, layers = table["probe"].nunique(), table["layer"].nunique()
    crossed = bool((table["train_set"] != table["test_set"]).any())
    arrow = "; an arrow marks training on one set and testing on another" if crossed else ""
    return (
        f"Accuracy of {plural(probes, 'linear probe')} at {plural(layers, 'layer')}, tested on held-out entities ({sets}){arrow}. "
        f"Means over {counted(table['n_splits'].unique())} splits by entity with 95% intervals over splits. Baselines: "
        "logistic regression on the embedding (fine dots), random directions, and labels shuffled before training."
    )


def generalization(tables: Tables) -> Figure:
    """Draw the accuracy of each probe from training set to test set, at the layer that suits the probes best."""
    table = _at_best_layer(tables)
    probes = sorted((str(probe) for probe in table["probe"].unique()), key=lambda name: name.startswith(BASELINES))
    trained, tested = (list(table[column].unique()) for column in ("train_set", "test_set"))
    numbered = len(tested) <= MOST_NUMBERS
    columns, height, size = (3, 0.32, 7.5) if numbered else (2, 0.16, 6)
    figure, axes = panels(len(probes), height=0.75 + height * len(trained), columns=columns, sharex=True, sharey=True)
    for ax, probe in zip(axes, probes, strict=True):
        own = table[table["probe"] == probe].drop_duplicates(["train_set", "test_set"])
        rows = own.pivot(index="train_set", columns="test_set", values="value")
        values = rows.reindex(index=trained, columns=tested).to_numpy()
        colours = ax.imshow(values, cmap="PuOr", vmin=0, vmax=1, aspect="auto")
        if numbered:
            _write_cells(ax, values)
        ax.set_title(style.label(probe), fontsize=8.5)
        ax.set_xticks(range(len(tested)), tested, rotation=35 if numbered else 55, ha="right", fontsize=size)
        ax.set_yticks(range(len(trained)), trained, fontsize=size)
        ax.grid(visible=False)
    name_outer_axes(axes, columns, "tested on", "trained on")
    if not numbered:
        figure.colorbar(colours, ax=axes, location="bottom", label="accuracy", shrink=0.5, aspect=40)
    return figure


def _write_cells(ax: Axes, values: NDArray[np.float64]) -> None:
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            ink = "white" if abs(value - 0.5) > 0.35 else "black"
            ax.text(column, row, f"{value:.2f}", ha="center", va="center", color=ink, fontsize=7.5)


def _at_best_layer(tables: Tables) -> pd.DataFrame:
    table = tables["probe_summary"]
    table = table[table["metric"] == "accuracy"]
    return table[table["hook"] == best_hook(table)]


def generalization_caption(tables: Tables) -> str:
    """Say where probes are read, and how the layer was chosen."""
    table = _at_best_layer(tables)
    return (
        f"Accuracy from training set (rows) to the held-out entities of the test set (columns) at {table['hook'].iloc[0]}, "
        "where the probes are most accurate on held-out entities of their own training sets; that choice flatters them a "
        f"little. Means over {counted(table['n_splits'].unique())} splits by entity; an empty row lacks what the probe "
        "needs. Random directions and labels shuffled before training are the baselines."
    )


def statement_pca(tables: Tables) -> Figure:
    """Draw each set's statements in their plane of most variance, with the probes' directions in it."""
    points, arrows = tables["probe_points"], tables["probe_arrows"]
    sets = list(groups(points, "hook", "set"))
    columns = 3 if len(sets) > 4 else min(len(sets), 2)
    figure, axes = panels(len(sets), height=2.9, columns=columns)
    for ax, ((hook, name), rows) in zip(axes, sets, strict=True):
        _draw_statements(ax, rows)
        _draw_arrows(
            ax, arrows[(arrows["hook"] == hook) & (arrows["set"] == name)], reach=2 * rows[["x", "y"]].std().max()
        )
        ax.set_title(str(name), fontsize=9)
        ax.set(aspect="equal", adjustable="datalim")
        shares = (100 * rows[column].iloc[0] for column in ("x_share", "y_share"))
        ax.set(**{f"{axis}label": f"{share:.0f}% of the variance" for axis, share in zip("xy", shares, strict=True)})
    truth = [
        Line2D([], [], color=LABEL_COLOURS[i], marker=LABEL_MARKERS[i], linestyle="none", label=LABEL_NAMES[i])
        for i in (1, 0)
    ]
    handles = [*truth, *(_line(str(name)) for name in arrows["name"].unique())]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def _draw_arrows(ax: Axes, arrows: pd.DataFrame, reach: float) -> None:
    """Draw directions from the middle, the longest one `reach` long and the others in proportion."""
    scale = reach / float(np.hypot(arrows["x"], arrows["y"]).max()) if len(arrows) else 0.0
    for row in records(arrows):
        look = {"color": style.colour(row.name), "linestyle": style.dash(row.name), "linewidth": 1.8}
        look |= {"arrowstyle": "-|>", "shrinkA": 0, "shrinkB": 0}
        ax.annotate("", (scale * row.x, scale * row.y), (0, 0), arrowprops=look)


def _draw_statements(ax: Axes, rows: pd.DataFrame) -> None:
    for label, part in groups(rows, "label"):
        key: dict[str, Any] = {"color": LABEL_COLOURS[int(label)], "marker": LABEL_MARKERS[int(label)], "alpha": 0.6}
        ax.scatter(part["x"], part["y"], s=10, linewidths=0.8, rasterized=True, **key)


def pca_caption(tables: Tables) -> str:
    """Say how many statements are shown where, and how long the directions are in the plane."""
    points, arrows = tables["probe_points"], tables["probe_arrows"]
    lengths = np.hypot(arrows["x"], arrows["y"])
    longest = f" (the longest of all: {lengths.max():.2f} of 1)" if len(arrows) else ""
    return (
        f"{counted([len(points)])} statements at {', '.join(points['hook'].unique())}, each set on its own two principal "
        "components. Arrows: the directions of probes that were trained on the set, or on all sets where a probe needs more "
        f"than one; means over splits, scaled together in each panel. What lies outside the plane shortens them{longest}."
    )


def probe_angles(tables: Tables) -> Figure:
    """Draw the cosines of each direction with all others over layers; single training sets are paler than all of them."""
    table = tables["probe_angles"]
    table = table if "train_set" in table else table.assign(train_set=POOLED)
    turned = table.rename(columns={"probe_a": "probe_b", "probe_b": "probe_a"})
    both = pd.concat([table, turned], ignore_index=True)
    directions = list(dict.fromkeys([*table["probe_a"], *table["probe_b"]]))
    figure, axes = panels(len(directions), height=2.3, columns=3, sharex=True, sharey=True)
    for ax, name in zip(axes, directions, strict=True):
        rows = both[both["probe_a"] == name]
        for (other, train_set), line in groups(rows, "probe_b", "train_set"):
            if train_set == POOLED or rows["train_set"].nunique() == 1:
                draw_over_layers(ax, line, str(other))
            else:
                line = line.sort_values("layer")
                ax.plot(line["layer"], line["value"], color=style.colour(str(other)), alpha=0.35, linewidth=0.9)
        ax.axhline(0, color=style.GREY, linewidth=0.8, linestyle=":")
        ax.set_title(f"with {style.label(name)}", fontsize=8.5)
        ax.set(ylim=(-1.02, 1.02))
    name_outer_axes(axes, 3, "layer (0: embedding)", "cosine")
    figure.legend(handles=[_line(name) for name in directions], loc="outside lower center", ncols=3)
    return figure


def angles_caption(tables: Tables) -> str:
    """Say how many directions are compared at how many layers, and which of them is the tilted one."""
    table = tables["probe_angles"]
    directions = set(table["probe_a"]) | set(table["probe_b"])
    single = table["train_set"].nunique() - 1 if "train_set" in table else 0
    sets = f"; pale lines are {plural(single, 'single training set')}, the strong one all of them" if single > 0 else ""
    layers = table["layer"].nunique()
    tilted = [name for name in ("mass_mean_covariance", "sigma_inv_theta") if name in directions]
    also = (
        f" {style.label(tilted[0])} is the direction Σ⁻¹θ with the shrunk covariance within classes." if tilted else ""
    )
    return (
        f"Cosines between {plural(len(directions), 'direction')} at {plural(layers, 'layer')}, one panel per direction "
        f"and one line per other one, with 95% intervals over splits{sets}. One is the same direction, zero (dotted) none in "
        f"common.{also}"
    )


def has_accuracy(tables: Tables) -> bool:
    """Tell whether probes were scored by accuracy."""
    return bool((tables["probe_summary"]["metric"] == "accuracy").any())


FIGURES = (
    FigureSpec(
        id="toy_truth",
        draw=toy_truth,
        tables=("toy_points", "toy_directions", "toy_truth"),
        section=SECTION,
        title="Logistic regression finds a tilted direction",
        caption=toy_caption,
    ),
    FigureSpec(
        id="probe_layers",
        draw=layer_profile,
        tables=("probe_summary",),
        section=SECTION,
        title="Truth probes over layers",
        caption=layer_caption,
        has_rows=has_accuracy,
    ),
    FigureSpec(
        id="generalization",
        draw=generalization,
        tables=("probe_summary",),
        section=SECTION,
        title="Truth probes from set to set",
        caption=generalization_caption,
        has_rows=has_accuracy,
    ),
    FigureSpec(
        id="statement_pca",
        draw=statement_pca,
        tables=("probe_points", "probe_arrows"),
        section=SECTION,
        title="Statements in their planes of most variance",
        caption=pca_caption,
    ),
    FigureSpec(
        id="probe_angles",
        draw=probe_angles,
        tables=("probe_angles",),
        section=SECTION,
        title="Angles between probes",
        caption=angles_caption,
    ),
)
