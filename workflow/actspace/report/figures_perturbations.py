"""Figures about perturbations: curves and thresholds of each experiment, its controls, and all comparisons."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from actspace.perturbations.statistics import at_one_threshold
from actspace.report import style
from actspace.report.spec import Tables, counted, panels, plural
from actspace.report.summaries import (
    PATH_UNITS,
    crossing_ecdf,
    curve_summary,
    deviation_cosines,
    groups,
    records,
    with_readouts,
)

SECTION = "Perturbations"
READOUT_LABELS = {
    "kl_base_pert_nats": "KL divergence (nats)",
    "sqrt_2kl": "√(2 KL)",
    "l2_late": "L2 at a late layer",
}
NULL_DASH = (0, (1, 2))
PATH_LABELS = {"sphere": "angle from the base (degrees)", "straight": "distance from the base / its norm"}
PATH_TITLES = {"sphere": "on the sphere", "straight": "straight"}


def of_experiment(table: pd.DataFrame, experiment: str) -> pd.DataFrame:
    """Return the rows of one experiment."""
    return table[table["experiment"] == experiment]


def families(table: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Yield each pair of base and direction with its rows."""
    for (base, direction), rows in groups(table, "base", "direction"):
        yield str(base), str(direction), rows


def varied(table: pd.DataFrame) -> str:
    """Name what distinguishes the families by colour: the direction, unless only bases differ."""
    return "base" if table["direction"].nunique() == 1 and table["base"].nunique() > 1 else "direction"


def look(table: pd.DataFrame, base: str, direction: str) -> dict[str, Any]:
    """Return colour, line style and label of one family among those of the table."""
    bases, directions = table["base"].nunique(), table["direction"].nunique()
    if varied(table) == "base":
        name = f"{style.label(base)} base"
        return {"color": style.colour(base), "linestyle": style.dash(base), "label": name}
    # Where both vary, colour tells the base and the line the direction: the base is what such an experiment is about.
    if bases > 1 and directions > 1:
        name = f"{style.label(base)} base, {style.label(direction)}"
        return {"color": style.colour(base), "linestyle": style.dash(direction), "label": name}
    return {
        "color": style.colour(direction),
        "linestyle": style.dash(direction),
        "label": style.label(direction),
    }


def family_key(figure: Figure, table: pd.DataFrame, extra: list[Line2D] | None = None) -> None:
    """Place one legend for all families under the panels."""
    handles = [Line2D([], [], linewidth=2, **look(table, base, to)) for base, to, _ in families(table)]
    handles += extra or []
    longest = max(len(str(handle.get_label())) for handle in handles)
    columns = 2 if longest > 34 else 3
    # A key of many rows must not take its place from the panels.
    figure.set_figheight(figure.get_figheight() + 0.19 * max(0, math.ceil(len(handles) / columns) - 3))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns)


def paths_of(table: pd.DataFrame) -> list[str]:
    """Return the paths in the table, the sphere first."""
    return [path for path in PATH_UNITS if (table["path"] == path).any()]


def ticks_of_path(ax: Axes, path: str, end: float) -> None:
    """Place ticks every 30 degrees on the sphere and at fifths of a straight path, up to its end."""
    ax.set_xticks(np.arange(0, end + 1, 30) if path == "sphere" else np.linspace(0, end, 6))


def curves(tables: Tables, experiment: str) -> Figure:
    """Draw one curve per prompt and family thin, and the median of the family's curves thick, for three read-outs."""
    table = with_readouts(of_experiment(tables["perturbation_curves"], experiment))
    summary = curve_summary(table)
    paths = paths_of(table)
    figure, axes = panels(len(READOUT_LABELS) * len(paths), height=2.4, columns=len(paths), sharey="row")
    for row, (readout, title) in enumerate(READOUT_LABELS.items()):
        for column, path in enumerate(paths):
            ax = axes[row * len(paths) + column]
            _draw_curves(ax, table[table["path"] == path], readout)
            medians = summary[summary["path"] == path]
            if readout == "sqrt_2kl":
                _draw_null(ax, medians[medians["readout"] == "local_linear"], table)
            _draw_medians(ax, medians[medians["readout"] == readout], table)
            ax.set_ylim(0, 1.04 * float(table[readout].max()))
            ax.set(ylabel=title if column == 0 else "", xlabel=PATH_LABELS[path] if row == 2 else "")
            ticks_of_path(ax, path, float(table.loc[table["path"] == path, "travel"].max()))
            if row == 0:
                ax.set_title(PATH_TITLES[path])
    null = Line2D([], [], color=style.GREY, linewidth=0.9, linestyle=NULL_DASH, label="linear continuation of √(2 KL)")
    family_key(figure, table, extra=[null])
    return figure


def _draw_null(ax: Axes, summary: pd.DataFrame, table: pd.DataFrame) -> None:
    for base, direction, rows in families(summary):
        for _, line in groups(rows, "site"):
            line = line.sort_values("travel")
            colour = look(table, base, direction)["color"]
            ax.plot(line["travel"], line["median"], color=colour, linewidth=0.9, linestyle=NULL_DASH)


def _draw_curves(ax: Axes, table: pd.DataFrame, readout: str) -> None:
    clouds = list(families(table))
    for base, direction, rows in clouds:
        rows = rows[rows["draw"] == rows["draw"].min()]
        wide = rows.pivot(index=["site", "weights", "prompt"], columns="step", values=["travel", readout])
        lines = [list(zip(line["travel"], line[readout], strict=True)) for _, line in wide.iterrows()]
        colour = look(table, base, direction)["color"]
        # Hundreds of lines as vectors would be megabytes; as one picture they are some kilobytes.
        alpha = 0.45 if len(clouds) <= 2 else 0.3
        ax.add_collection(LineCollection(lines, colors=colour, linewidths=0.45, alpha=alpha, rasterized=True))
    ax.autoscale_view()
    ax.set(xlim=(0, None), ylim=(0, None))


def _draw_medians(ax: Axes, summary: pd.DataFrame, table: pd.DataFrame, band: bool = False) -> None:
    for base, direction, rows in families(summary):
        key = look(table, base, direction)
        for _, line in groups(rows, "site"):
            line = line.sort_values("travel")
            ax.plot(line["travel"], line["median"], color="white", linewidth=3.4)
            ax.plot(line["travel"], line["median"], color=key["color"], linestyle=key["linestyle"], linewidth=2)
            if band:
                between = (line["lower_quartile"], line["upper_quartile"])
                ax.fill_between(line["travel"], *between, color=key["color"], alpha=0.13, linewidth=0)
    ax.set(xlim=(0, None), ylim=(0, None))


def curves_caption(tables: Tables, experiment: str) -> str:
    """Say which experiment, at which site, with how many prompts and directions."""
    table = of_experiment(tables["perturbation_curves"], experiment)
    late = ", ".join(sorted(set(table["read_hook"]))) if "read_hook" in table else "the late read-out"
    return (
        f"{_setting(table)} Thin lines are single curves, one per prompt and family; thick lines the median of all "
        "curves at each step. Top: KL divergence of the next-token distribution from the undisturbed one. Middle: √(2 "
        "KL), in which even a linear model rises at once; dotted is the median of each curve's continuation in "
        "proportion to the distance from its first step on, above which a plateau's end rises. Bottom: L2 distance at "
        f"{late}."
    )


def _setting(table: pd.DataFrame) -> str:
    per_family = table.groupby(["base", "direction", "path"])[["prompt", "draw"]].apply(
        lambda r: len(r.drop_duplicates())
    )
    sites, weights = ", ".join(table["site"].unique()), " and ".join(table["weights"].unique())
    return (
        f"Experiment {table['experiment'].iloc[0]}: the last position of {plural(table['prompt'].nunique(), 'prompt')} "
        f"perturbed at {sites} ({weights} weights), {counted(per_family.unique())} curves per family and path."
    )


def thresholds(tables: Tables, experiment: str) -> Figure:
    """Draw, for each family, the fraction of curves that have crossed the threshold by each point of the path."""
    table = at_one_threshold(of_experiment(tables["perturbation_thresholds"], experiment))
    ecdf = crossing_ecdf(table)
    paths = paths_of(table)
    figure, axes = panels(len(paths), height=3.3, columns=2, sharey=True)
    for ax, path in zip(axes, paths, strict=True):
        here = ecdf[ecdf["path"] == path]
        end = float(here["end"].max())
        for place, (base, direction, rows) in enumerate(families(here)):
            key = look(table, base, direction)
            for _, line in groups(rows, "site"):
                draw: dict[str, Any] = {
                    "color": key["color"],
                    "linestyle": key["linestyle"],
                    "where": "post",
                    "linewidth": 1.8,
                }
                ax.step(line["crossing"], line["fraction"], **draw)
                _mark_never(ax, end * (1.02 + 0.025 * place), line, key["color"])
        ax.axvspan(end, 1.22 * end, color="#F1F1F1", zorder=0, linewidth=0)
        ax.text(1.18 * end, 0.5, "never crossed", rotation=90, ha="center", va="center", color=style.GREY, fontsize=8)
        ax.set(xlim=(0, 1.22 * end), ylim=(0, 1.03), title=PATH_TITLES[path], xlabel=PATH_LABELS[path])
        ticks_of_path(ax, path, end)
    level = counted_thresholds(table)
    axes[0].set_ylabel(f"fraction of curves past {level} nats")
    family_key(figure, table)
    return figure


def _mark_never(ax: Axes, at: float, line: pd.DataFrame, colour: str) -> None:
    """Draw a bar from the last step to 1: the part of the curves that is beyond the path's end."""
    never = float(line["fraction_never"].iloc[0])
    if never > 0:
        ax.plot([at, at], [1 - never, 1], color=colour, linewidth=3, solid_capstyle="butt")


def counted_thresholds(table: pd.DataFrame) -> str:
    """Write the threshold, or all of them."""
    return " and ".join(f"{level:g}" for level in sorted(table["threshold_nats"].unique()))


def thresholds_caption(tables: Tables, experiment: str) -> str:
    """Say what was crossed, how often it was not, and how far each family's directions contain the base."""
    table = at_one_threshold(of_experiment(tables["perturbation_thresholds"], experiment))
    ecdf, paths = crossing_ecdf(table), paths_of(table)
    never = []
    for base, direction, rows in families(ecdf):
        shares = [f"{rows.loc[rows['path'] == path, 'fraction_never'].mean():.0%}" for path in paths]
        never.append(f"{look(table, base, direction)['label']} {' and '.join(shares)}")
    cosines = [
        f"{look(table, row.base, row.direction)['label']} {row.mean_cosine:.2f}"
        for row in records(deviation_cosines(table))
    ]
    return (
        f"{_setting(table)} Cumulative fraction of curves whose KL divergence has crossed {counted_thresholds(table)} "
        "nats. Curves that never cross count as beyond the path's end (bars on grey, from the fraction that crossed up "
        f"to 1). Never crossed ({' and '.join(PATH_TITLES[path] for path in paths)}): {'; '.join(never)}. Mean cosine "
        f"of the directions with minus the base's deviation from the mean: {'; '.join(cosines)}."
    )


def control(tables: Tables, experiment: str, contrast: str) -> Figure:
    """Draw the medians of two experiments side by side, with quartiles over curves."""
    table = tables["perturbation_curves"]
    table = table[table["experiment"].isin([experiment, contrast])]
    table = table[table["path"] == paths_of(table)[0]]
    shared = set.intersection(*(_family_set(of_experiment(table, name)) for name in (experiment, contrast)))
    table = table[[pair in shared for pair in zip(table["base"], table["direction"], strict=True)]]
    summary = curve_summary(table)
    figure, axes = panels(4, height=2.4, columns=2, sharex=True)
    for row, readout in enumerate(("kl_base_pert_nats", "l2_late")):
        for column, name in enumerate((experiment, contrast)):
            ax, rows = axes[2 * row + column], of_experiment(summary, name)
            _draw_medians(ax, rows[rows["readout"] == readout], table, band=True)
            ax.set(xlabel=PATH_LABELS[rows["path"].iloc[0]] if row else "")
            ax.set_ylabel(READOUT_LABELS[readout] if column == 0 else "")
            if row == 0:
                ax.set_title(f"{style.label(name)}\n{rows['site'].iloc[0]}, {rows['weights'].iloc[0]} weights")
    family_key(figure, table)
    return figure


def _family_set(table: pd.DataFrame) -> set[tuple[str, str]]:
    return set(zip(table["base"], table["direction"], strict=True))


def control_caption(tables: Tables, experiment: str, contrast: str) -> str:
    """Say what the two experiments are."""
    table = tables["perturbation_curves"]
    both = " ".join(_setting(of_experiment(table, name)) for name in (experiment, contrast))
    return f"{both} Lines are medians, bands quartiles over curves. The vertical scales differ between the panels."


def has_control(tables: Tables, experiment: str, contrast: str) -> bool:
    """Tell whether both experiments were run, with a family in common."""
    table = tables["perturbation_curves"]
    return bool(_family_set(of_experiment(table, experiment)) & _family_set(of_experiment(table, contrast)))


def comparisons(tables: Tables) -> Figure:
    """Draw every AUROC between two families with its interval, the two paths below each other."""
    table = at_one_threshold(tables["perturbation_comparisons"])
    pairs = list(groups(table[table["statistic"] == "auroc"], "experiment", "site", "a", "b"))
    headings = len({key[:2] for key, _ in pairs})
    figure, (ax,) = panels(1, height=0.6 + 0.46 * len(pairs) + 0.3 * headings)
    height, heading = 0.0, None
    for (experiment, site, a, b), rows in pairs:
        if (experiment, site) != heading:
            heading = (experiment, site)
            ax.axhspan(height, height + 0.6, color="#F1F1F1", linewidth=0, zorder=0)
            _write(ax, height + 0.3, f"{style.label(experiment)}, {site}")
            height += 0.6
        _write(ax, height + 0.25, f"{_family_name(a)}  before  {_family_name(b)}")
        for row in records(rows):
            at = height + (0.58 if row.path == "sphere" else 0.82)
            face = style.BLUE if row.path == "sphere" else "white"
            ax.plot([row.low, row.high], [at, at], color=style.BLUE, linewidth=1.4)
            ax.plot([row.value], [at], color=style.BLUE, marker="o", markerfacecolor=face, markersize=4.5)
        height += 1.05
    ax.axvline(0.5, color=style.GREY, linewidth=0.9, linestyle=":", zorder=0)
    ax.grid(axis="y", visible=False)
    ax.set_yticks([])
    ax.set(ylim=(height, 0), xlim=(-0.02, 1.02))
    ax.set_xlabel("AUROC: probability that the first crosses the threshold before the second")
    return figure


def _write(ax: Axes, height: float, text: str) -> None:
    ax.text(0, height, text, fontsize=7.8, va="center", in_layout=False)


def _family_name(family: str) -> str:
    base, direction = family.split("|", 1)
    return f"{style.label(direction)} from {style.label(base)}"


def comparisons_caption(tables: Tables) -> str:
    """Say what is compared, over how many prompts."""
    table = at_one_threshold(tables["perturbation_comparisons"])
    rows = table[table["statistic"] == "auroc"]
    return (
        f"{plural(len(rows), 'comparison')} of two families (a direction from a kind of base) by the point where the "
        f"KL divergence crosses "
        "its threshold, ties counting half; 0.5 (dotted) means no difference. Filled: on the sphere; hollow: straight. "
        f"Bars are 95% intervals over {counted(rows['n_prompts'].unique())} prompts."
    )


def has_auroc(tables: Tables) -> bool:
    """Tell whether two families were compared."""
    return bool((tables["perturbation_comparisons"]["statistic"] == "auroc").any())


def has_experiment(tables: Tables, table: str, experiment: str) -> bool:
    """Tell whether a table holds rows of an experiment."""
    return bool((tables[table]["experiment"] == experiment).any())
