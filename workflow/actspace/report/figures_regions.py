"""Figures about the space between activations: regions of the output along paths, and what dictionaries make of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from actspace.hooks import layer_of
from actspace.perturbations.spike_statistics import QUANTITIES, TOY, medians
from actspace.report import style
from actspace.report.figures_perturbations import NULL_DASH, of_experiment
from actspace.report.figures_probes import name_outer_axes
from actspace.report.spec import FigureSpec, Tables, counted, panels, plural
from actspace.report.summaries import groups, records

SECTION = "Regions and spikes"
PATHS_SHOWN = 6
REGION_COLOURS = (
    *(style.BLUE, style.ORANGE, style.GREEN, style.VERMILLION, style.SKY, style.PURPLE, style.BLACK, style.GREY),
)
OTHERS_DASH = (0, (4, 2))
PROFILE = {
    "changes": "slope where the region changes",
    "max_slope": "steepest slope of a path",
    "regions_per_path": "regions on a path",
}
AT_CHANGES = {
    "slope_at_region_changes": ("region changes", style.BLUE, "o"),
    "slope_at_boundaries_anywhere": ("boundaries anywhere", style.GREY, "s"),
    "slope_at_cell_changes": ("cell changes", style.VERMILLION, "^"),
    "slope_at_cell_changes_other_paths": ("cell changes, other paths", style.ORANGE, "v"),
}
QUANTITY_LABELS = {
    "error": "error / total variance",
    "unexplained": "error / own deviation",
    "active_latents": "active latents",
}


def regions(tables: Tables, experiment: str) -> Figure:
    """Draw some paths of every site with their steps coloured by region, and the statistics over layers."""
    table = of_experiment(tables["regions"], experiment)
    statistics = of_experiment(tables["region_statistics"], experiment).dropna(
        subset="value"
    )  # nothing changes on some paths
    ends = statistics[["value", "low", "high"]].to_numpy()
    # Where few paths change, a bootstrap sample without any leaves an interval open: it is drawn as far as the axis goes.
    beyond = 2 * max(1.0, float(ends[np.isfinite(ends)].max(initial=1)))
    statistics = statistics.assign(low=statistics["low"].clip(-beyond), high=statistics["high"].clip(upper=beyond))
    sites = list(dict.fromkeys(table["site"]))
    figure, axes = panels(-(-len(sites) // 3) * 3 + 3, height=2.5, columns=3)
    for ax, site in zip(axes, sites, strict=False):
        _draw_paths(ax, table[table["site"] == site])
        ax.set_title(site, fontsize=8.5)
    layers = sorted(layer_of(site, 0) for site in sites)  # the final norm is no site, so the number of layers is free
    for spare in axes[len(sites) : -3]:
        spare.remove()
    name_outer_axes(axes[: len(sites)], 3, "fraction of the way", "relative distance")
    for ax, (name, title) in zip(axes[-3:], PROFILE.items(), strict=True):
        wanted = AT_CHANGES if name == "changes" else {name: (title, style.BLUE, "o")}
        for place, (statistic, (_, colour, marker)) in enumerate(wanted.items()):
            rows = statistics[statistics["statistic"] == statistic]
            _draw_profile(ax, rows, colour, marker, beside=0.9 * (place - 1) if len(wanted) > 1 else 0)
        of_panel = statistics[statistics["statistic"].isin(wanted)]
        drawn = of_panel["high"].where(of_panel["high"] < beyond, of_panel["value"])
        ax.set(title=title, xlabel="blocks before the site", xlim=(layers[0] - 2.5, layers[-1] + 2.5))
        ax.set(ylim=(0, 1.1 * max(1, drawn.max())) if len(drawn) else (0, 1), xticks=layers)
        if drawn.empty:
            ax.text(layers[0], 0.5, "no path changes its region", ha="center", fontsize=8.5, color=style.GREY)
    _draw_shifted(axes[-3], statistics[statistics["statistic"] == "slope_at_region_changes_shifted"])
    axes[-2].axhline(1, color=style.GREY, linewidth=0.9, linestyle=NULL_DASH)
    shown = [entry for name, entry in AT_CHANGES.items() if (statistics["statistic"] == name).any()]
    handles = [Line2D([], [], color=c, marker=m, markersize=4.5, linestyle="", label=text) for text, c, m in shown]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


def _draw_paths(ax: Axes, table: pd.DataFrame) -> None:
    """Draw the path of each of the first prompts, a point a step; cell changes are ticks across it."""
    first = table[table["prompt"].isin(np.sort(table["prompt"].unique())[:PATHS_SHOWN])]
    for _, path in first.drop_duplicates(["prompt", "step"]).groupby("prompt"):
        path = path.sort_values("step")
        ax.plot(path["fraction"], path["relative_distance"], color="#BBBBBB", linewidth=0.7, zorder=1)
        colours = [REGION_COLOURS[region % len(REGION_COLOURS)] for region in path["region"]]
        ax.scatter(path["fraction"], path["relative_distance"], c=colours, s=9, linewidths=0, zorder=2)
        crossed = path[path["cell_changed"].fillna(False).astype(bool)]
        ax.scatter(crossed["fraction"], crossed["relative_distance"], marker="|", c=style.BLACK, s=60, linewidths=1)
    ax.plot([0, 1], [0, 1], color=style.GREY, linewidth=0.9, linestyle=NULL_DASH, zorder=0)
    ax.set(xlim=(0, 1), ylim=(0, 1))


def _draw_profile(ax: Axes, rows: pd.DataFrame, colour: str, marker: str, beside: float = 0) -> None:
    for row in records(rows):
        layer = layer_of(row.site, 0) + beside
        ax.plot([layer, layer], [row.low, row.high], color=colour, linewidth=1.4)
        ax.plot([layer], [row.value], color=colour, marker=marker, markersize=4.5)


def _draw_shifted(ax: Axes, rows: pd.DataFrame) -> None:
    """Draw the range that shifted changes would have, as grey bars behind the points."""
    for row in records(rows):
        layer = layer_of(row.site, 0)
        ax.plot([layer, layer], [row.low, row.high], color="#DDDDDD", linewidth=7, solid_capstyle="butt", zorder=0)


def regions_caption(tables: Tables, experiment: str) -> str:
    """Say what was walked, how many paths, and what the marks are."""
    table, statistics = (
        of_experiment(tables["regions"], experiment),
        of_experiment(tables["region_statistics"], experiment),
    )
    late, weights = table["read_hook"].iloc[0], " and ".join(table["weights"].unique())
    cells = " Black bars across a path: the cell of the dictionary changes." if table["cell"].notna().any() else ""
    return (
        f"Study {experiment} of regions ({weights} weights): activations of {plural(table['prompt'].nunique(), 'prompt')} "
        f"walked to those of others, {plural(int(statistics['n_pairs'].max()), 'path')} per site of "
        f"{table['step'].max() + 1} points each. Above: {plural(min(PATHS_SHOWN, table['prompt'].nunique()), 'path')}; "
        f"the distance at {late} from the base's output over the sum of distances from the outputs at both ends, coloured "
        f"by the nearest cluster of undisturbed outputs; dotted, the straight line.{cells} Below: mean slope of the L2 "
        "distance at steps where the region changes, over the path's mean slope; grey bars are the 95% range of changes "
        "shifted round their paths, grey squares what boundaries anywhere on the output's trajectory would give; the "
        "median over paths of the steepest slope (1, dotted: a straight line); and how many regions a path visits. Bars "
        f"are 95% intervals over {counted(statistics['n_prompts'].unique())} prompts."
    )


def spikes(tables: Tables, experiment: str) -> Figure:
    """Draw the read-outs between real and between random vectors, a row of panels for each fit."""
    table = of_experiment(tables["spikes"], experiment)
    fits = list(dict.fromkeys(table["fit"]))
    figure, axes = panels(3 * len(fits), height=1.75, columns=3, sharex=True)
    known = False
    for column, quantity in enumerate(QUANTITIES.values()):
        summary = medians(table, quantity)
        for row, fit in enumerate(fits):
            ax, here = axes[3 * row + column], summary[summary["fit"] == fit]
            for source, line in groups(here, "source"):
                _draw_band(ax, line, style.colour(str(source)))
                if line["known"].notna().any():
                    ax.plot(line["fraction"], line["known"], color=style.BLACK, linewidth=1.1, linestyle=OTHERS_DASH)
                    known = True
            ax.set(xlim=(0, 1), ylim=(0, None))
            ax.set_title(QUANTITY_LABELS[quantity] if row == 0 else "")
            ax.set_ylabel(fit if column == 0 else "", fontsize=8.5)
            ax.set_xlabel("fraction of the way" if row == len(fits) - 1 else "")
    handles = [
        Line2D([], [], color=style.colour(source), linewidth=2, label=f"between {style.label(source)} vectors")
        for source in table["source"].unique()
    ]
    closed = Line2D([], [], color=style.BLACK, linewidth=1.1, linestyle=OTHERS_DASH, label="closed form, orthonormal")
    figure.legend(handles=handles + [closed] * known, loc="outside lower center", ncols=3)
    return figure


def _draw_band(ax: Axes, line: pd.DataFrame, colour: str) -> None:
    line = line.sort_values("fraction")
    ax.fill_between(
        line["fraction"], line["lower_quartile"], line["upper_quartile"], color=colour, alpha=0.18, linewidth=0
    )
    ax.plot(line["fraction"], line["median"], color=colour, linewidth=1.8)


def spikes_caption(tables: Tables, experiment: str) -> str:
    """Say which pairs, how many, and by how much read-outs rise half-way."""
    table = of_experiment(tables["spikes"], experiment)
    statistics = of_experiment(tables["spike_statistics"], experiment)
    hook = table["hook"].iloc[0]
    pairs = counted(statistics["n_pairs"].unique())
    share = statistics[statistics["statistic"] == "unexplained_bump"]
    both = share[share["source"] == "real_minus_covariance_random"]
    bumps = "; ".join(f"{r.fit} {r.value:+.3f} [{r.low:+.3f}, {r.high:+.3f}]" for r in records(both))
    return (
        f"Read-outs of dictionaries at {hook} along {pairs} segments between activations of two documents, and between "
        "vectors with the same mean and covariance: medians and quartiles. Left: squared error of the reconstruction "
        "over the total variance; half-way there is less to reconstruct, so it falls even for a linear dictionary. Middle: "
        "the same over the point's own squared deviation from the mean, which is free of that. Right: active latents; for "
        "TopK the positive pre-activations. Rise of the middle quantity half-way, between real minus between random "
        f"vectors: {bumps}."
    )


def toy_caption(tables: Tables) -> str:
    """Say what the toy is, and what its known answer is."""
    return (
        "The toy of superposition: sparse sums of unit directions (n in the name of a fit), read out with the true "
        "dictionary under a threshold and under TopK. Dashed: the median of the closed form for orthonormal directions, in which "
        "feature i has the size (1 − a) fᵢ + a gᵢ at the fraction a, counts as active above the threshold and else is "
        "lost; what differs from it is interference. " + spikes_caption(tables, TOY)
    )


REGIONS = FigureSpec(
    id="regions",
    draw=regions,
    tables=("regions", "region_statistics"),
    section=SECTION,
    title="Regions between activations",
    caption=regions_caption,
)
SPIKES = FigureSpec(
    id="spikes",
    draw=spikes,
    tables=("spikes", "spike_statistics"),
    section=SECTION,
    title="Between activations",
    caption=spikes_caption,
)
KINDS = (REGIONS, SPIKES)
"""Of which every experiment has one."""
FIGURES = (replace(SPIKES.of(TOY), id=TOY, title="Between sparse sums of known features", caption=toy_caption),)
