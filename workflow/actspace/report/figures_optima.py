"""Figures about sensitivity optima and planes: triangles of directions, random subspaces, landscapes through activations."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patheffects import Normal, Stroke
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from actspace.perturbations.optima_statistics import WEIGHTS, WITH_REAL, triangle_medians
from actspace.perturbations.plane_statistics import as_grid
from actspace.perturbations.statistics import PUBLISHED_THRESHOLD_NATS, at_one_threshold
from actspace.report import style
from actspace.report.figures_crossings import counted_thresholds
from actspace.report.figures_perturbations import SECTION, of_experiment
from actspace.report.spec import FigureSpec, Tables, counted, panels, plural
from actspace.report.summaries import groups, records

COLOURS_OF_ANGLES = colormaps["cividis"].resampled(40)
"""Few enough colours for a scale to be drawn as shapes: as pictures, two equal scales would share one id."""
COLOURS_OF_KL = "viridis"
PROMPTS_SHOWN = 2
KIND_LABELS = {"toward": "towards targets", "mixture": "mixtures"}
ACTIVATION_LABELS = {"base": "base", "first_other": "other 1", "second_other": "other 2"}
PLACES = np.array([[0.5, np.sqrt(0.75)], [0.0, 0.0], [1.0, 0.0]])
"""Where the corners of a triangle are drawn: the first on top."""


def triangles(tables: Tables, experiment: str) -> Figure:
    """Draw threshold angles over triangles: the median over prompts, and the first prompts; never crossed is crossed out."""
    table = at_one_threshold(of_experiment(tables["triangles"], experiment))
    medians = triangle_medians(table)
    shown = sorted(table["prompt"].unique())[:PROMPTS_SHOWN]
    rows = list(groups(table[table["draw"] == 0], "site", "kind", "corners"))
    columns = 1 + len(shown)
    figure, axes = panels(len(rows) * columns, height=1.9, columns=columns)
    for place, ((site, kind, corners), some) in enumerate(rows):
        wanted = (medians["site"] == site) & (medians["kind"] == kind) & (medians["corners"] == corners)
        parts = [medians[wanted], *(some[some["prompt"] == prompt] for prompt in shown)]
        for column, part in enumerate(parts):
            ax = axes[place * columns + column]
            _draw_triangle(ax, part, "real" if corners == WITH_REAL else "random")
            if place == 0:
                ax.set_title(f"prompt {shown[column - 1]}" if column else "median over prompts")
        place_name = f"\n{site}" if table["site"].nunique() > 1 else ""
        axes[place * columns].set_ylabel(KIND_LABELS[kind] + place_name)
    return figure


def _draw_triangle(ax: Axes, rows: pd.DataFrame, first: str) -> None:
    """Draw one hexagon for each direction, coloured by its crossing."""
    weights, crossing = rows[WEIGHTS].to_numpy(), rows["crossing_deg"].to_numpy()
    steps = round(1 / weights[weights > 0].min())
    centres = weights @ PLACES
    turns = np.radians(np.arange(30, 390, 60))
    cell = np.stack([np.cos(turns), np.sin(turns)], 1) / (steps * np.sqrt(3))
    known = np.isfinite(crossing)
    ax.set(xlim=(-0.25, 1.25), ylim=(-0.3, 1.15), aspect="equal", xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set_visible(False)
    never = centres[~known]
    ax.add_collection(PolyCollection(list(never[:, None] + cell), facecolors="white", edgecolors=style.GREY, lw=0.5))
    ax.plot(*never.T, linestyle="none", marker="x", markersize=28 / steps, color=style.GREY)
    if known.any():
        cells = PolyCollection(list(centres[known][:, None] + cell), cmap=COLOURS_OF_ANGLES, edgecolors="face", lw=0.3)
        cells.set_array(crossing[known])
        ax.add_collection(cells)
        bar = ax.figure.colorbar(cells, ax=ax, shrink=0.8, aspect=12)
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}°"))
        bar.outline.set_visible(False)
    margin = 1 / steps / np.sqrt(3) + 0.03
    for (x, y), name, side in zip(PLACES, (first, "random", "random"), (1, -1, -1), strict=True):
        ax.text(x, y + side * margin, name, ha="center", va="bottom" if side > 0 else "top", fontsize=8)


def triangles_caption(tables: Tables, experiment: str) -> str:
    """Say what a triangle is, how many there are, and how often corners cross before their neighbours."""
    table = at_one_threshold(of_experiment(tables["triangles"], experiment))
    statistics = at_one_threshold(of_experiment(tables["optima_statistics"], experiment))
    shares = statistics[statistics["statistic"] == "corner_before_neighbours"]
    several = table["site"].nunique() > 1
    found = [
        f"{KIND_LABELS[row.kind]}, {'real' if row.corners == WITH_REAL else 'random'} corners"
        f"{f' at {row.site}' if several else ''}: {row.value:.2f} ({row.low:.2f} to {row.high:.2f})"
        for row in records(shares)
    ]
    per_triangle = len(table[WEIGHTS].drop_duplicates())
    n_triangles = table[["kind", "corners", "prompt", "draw"]].drop_duplicates()
    return (
        f"Experiment {experiment}: {per_triangle} directions between three targets, from the last position of "
        f"{plural(table['prompt'].nunique(), 'prompt')} at {', '.join(table['site'].unique())} "
        f"({' and '.join(table['weights'].unique())} weights); {counted(n_triangles.value_counts(['kind', 'corners']))} "
        f"triangles of each row. Colour: angle on the sphere at which the KL divergence crosses "
        f"{counted_thresholds(table)} nats; crossed out: never. The scale is each panel's own. Share of comparisons in which "
        f"a corner crosses before its two nearest neighbours on the edges, ties half, with 95% intervals over prompts: "
        f"{'; '.join(found)}."
    )


def subspaces(tables: Tables, experiment: str) -> Figure:
    """Draw how often a direction crosses before the one a step downhill, over the dimension of the subspace."""
    table = _shares(tables, experiment)
    places = list(groups(table, "site", "kind"))
    figure, axes = panels(len(places), height=2.9, columns=2, sharey=True)
    for ax, ((site, kind), rows) in zip(axes, places, strict=True):
        for direction, line in groups(rows, "direction"):
            line = line.sort_values("dimension")
            x, colour = line["dimension"].to_numpy(float), style.colour(direction)
            label, dash = style.label(direction), "--" if "covariance" in direction else "-"
            ax.plot(
                x, line["value"], color=colour, linestyle=dash, linewidth=1.8, marker="o", markersize=4, label=label
            )
            ax.fill_between(x, line["low"], line["high"], color=colour, alpha=0.15, linewidth=0)
        ax.axhline(0.5, color=style.GREY, linewidth=0.9, linestyle=":")
        ax.set(xscale="log", ylim=(-0.03, 1.03), xlabel="dimensions of the random subspace")
        ax.set_title(KIND_LABELS[kind] + (f", {site}" if table["site"].nunique() > 1 else ""))
        ax.xaxis.set_major_locator(FixedLocator(sorted(set(table["dimension"].astype(float)))))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.legend(loc="upper right")
    axes[0].set_ylabel("share of directions that cross\nbefore a step downhill")
    return figure


def _shares(tables: Tables, experiment: str) -> pd.DataFrame:
    table = at_one_threshold(of_experiment(tables["optima_statistics"], experiment))
    return table[table["statistic"] == "direction_before_step"]


def subspaces_caption(tables: Tables, experiment: str) -> str:
    """Say what a step is, and of how many prompts and directions."""
    table = _shares(tables, experiment)
    return (
        f"Experiment {experiment}, at {', '.join(table['site'].unique())}: around each direction a frame of random axes "
        "(differences of two covariance-random vectors, made orthogonal to the base, the direction and each other). The "
        "crossings on both sides along each axis give the gradient of the crossing; the direction is turned by one step of "
        "the same angle against it. Share of directions that cross before the one after the step, ties half: 1 is a local "
        "optimum in the subspace, 0 means that the step always finds a more sensitive direction; dotted, as often as not. "
        f"{counted(table['n_directions'].unique())} directions per family from {counted(table['n_prompts'].unique())} "
        f"prompts, {counted_thresholds(table)} nats; bands are 95% intervals over prompts, exact ones where all prompts agree."
    )


def has_subspaces(tables: Tables, experiment: str) -> bool:
    """Tell whether an experiment tried subspaces."""
    return not _shares(tables, experiment).empty


def planes(tables: Tables, experiment: str) -> Figure:
    """Draw the KL divergence over the first planes, as contours and as a surface, with the activations marked."""
    table, corners = (of_experiment(tables[name], experiment) for name in ("planes", "plane_corners"))
    shown = [key for site in table["site"].unique() for key in _first(table, site)]
    figure, axes = panels(2 * len(shown), height=3.1, columns=2)
    for place, (site, prompt) in enumerate(shown):
        x, y, kl = as_grid(table[(table["site"] == site) & (table["prompt"] == prompt)], "kl_base_pert_nats")
        own = corners[(corners["site"] == site) & (corners["prompt"] == prompt)]
        flat, high = axes[2 * place], axes[2 * place + 1]
        _draw_contours(flat, x, y, kl, own)
        flat.set_title(f"prompt {prompt}" + (f", {site}" if table["site"].nunique() > 1 else ""))
        box = high.get_subplotspec()
        high.remove()
        _draw_surface(figure.add_subplot(box, projection="3d"), x, y, kl, own)
    return figure


def _first(table: pd.DataFrame, site: str) -> list[tuple[str, int]]:
    prompts = sorted(table.loc[table["site"] == site, "prompt"].unique())
    return [(site, prompt) for prompt in prompts[:PROMPTS_SHOWN]]


def _draw_contours(ax: Axes, x: np.ndarray, y: np.ndarray, kl: np.ndarray, corners: pd.DataFrame) -> None:
    """Fill between contours, with the published threshold as a line."""
    filled = ax.contourf(x, y, kl, levels=14, cmap=COLOURS_OF_KL)
    filled.set_rasterized(True)
    ax.contour(x, y, kl, levels=[PUBLISHED_THRESHOLD_NATS], colors="white", linewidths=1.1, linestyles="--")
    ax.figure.colorbar(filled, ax=ax, label="KL divergence (nats)")
    for row in records(corners):
        ax.plot(row.x, row.y, marker="o", markersize=5, color=style.VERMILLION, markeredgecolor="white")
        rim = [Stroke(linewidth=2, foreground="white"), Normal()]  # legible on dark and on light ground
        name, at = ACTIVATION_LABELS[row.corner], (row.x, row.y)
        ax.annotate(name, at, (4, 4), textcoords="offset points", fontsize=8, path_effects=rim)
    ax.set(aspect="equal", xlabel="distance from the base", ylabel="distance across")
    ax.grid(visible=False)


def _draw_surface(ax: Axes, x: np.ndarray, y: np.ndarray, kl: np.ndarray, corners: pd.DataFrame) -> None:
    """Draw the landscape in perspective; a line stands on each activation."""
    high = float(kl.max())
    across, along = np.meshgrid(x, y)
    ax.plot_surface(across, along, kl, cmap=COLOURS_OF_KL, rcount=80, ccount=80, linewidth=0, rasterized=True)  # type: ignore[attr-defined]
    for row in records(corners):
        ax.plot([row.x] * 2, [row.y] * 2, [row.kl_base_pert_nats, 1.15 * high], color="black", linewidth=1.4, zorder=10)
    ax.set(xlabel="distance", ylabel="across", zlabel="KL (nats)")
    ax.tick_params(labelsize=6.5, pad=0)
    ax.view_init(elev=38, azim=-60)  # type: ignore[attr-defined]


def planes_caption(tables: Tables, experiment: str) -> str:
    """Say which plane it is, how fine its grid, and what stands on it."""
    table = of_experiment(tables["planes"], experiment)
    statistics = of_experiment(tables["plane_statistics"], experiment)
    several = table["site"].nunique() > 1
    slopes = [
        f"{ACTIVATION_LABELS[row.corner]}{f' at {row.site}' if several else ''} {row.value:.2f} ({row.low:.2f} to "
        f"{row.high:.2f})"
        for row in records(statistics)
    ]
    points = table.groupby(["site", "prompt"], observed=True).size().iloc[0]
    shown = min(PROMPTS_SHOWN, table["prompt"].nunique())
    return (
        f"Experiment {experiment}: the plane through the activation of a prompt (base) and those of two others, at "
        f"{', '.join(table['site'].unique())} ({' and '.join(table['weights'].unique())} weights), {points:,} points each; "
        f"the first {shown} of {plural(table['prompt'].nunique(), 'prompt')}. Every point takes the place of the base in its "
        f"context. KL divergence from the base's output; dashed, {PUBLISHED_THRESHOLD_NATS:g} nats; points and lines mark "
        "the activations. Slope of the late L2 distance around an activation over that halfway to the other two, less than "
        f"1 on a plateau, with 95% intervals over prompts: {'; '.join(slopes)}."
    )


KINDS = (
    FigureSpec(
        id="triangles",
        draw=triangles,
        tables=("triangles", "optima_statistics"),
        section=SECTION,
        title="Threshold angles between three directions",
        caption=triangles_caption,
    ),
    FigureSpec(
        id="subspaces",
        draw=subspaces,
        tables=("optima_statistics",),
        section=SECTION,
        title="A step downhill in random subspaces",
        caption=subspaces_caption,
        has_rows=has_subspaces,
    ),
    FigureSpec(
        id="planes",
        draw=planes,
        tables=("planes", "plane_corners", "plane_statistics"),
        section=SECTION,
        title="Planes through three activations",
        caption=planes_caption,
    ),
)
"""Of which every experiment has one."""
