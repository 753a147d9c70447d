"""Figures about perturbations: the curves of each experiment and its controls, and what all such figures share."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from actspace.report import style
from actspace.report.spec import FigureSpec, Tables, counted, panels, plural
from actspace.report.summaries import curve_summary, end_sites, groups, layers, with_readouts

SECTION = "Perturbations"
READOUT_LABELS = {
    "kl_base_pert_nats": "KL divergence (nats)",
    "sqrt_2kl": "√(2 KL)",
    "l2_late": "L2 at a late layer",
    "cosine_late": "cosine at a late layer",
}
NULLS = {"sqrt_2kl": "local_sqrt_2kl", "l2_late": "local_l2"}
NULL_DASH = (0, (1, 2))
PATH_LABELS = {
    "sphere": "angle from the base (degrees)",
    "straight": "distance from the base / its norm",
    "absolute": "distance from the base",
    "interpolate": "fraction of the way to the target",
}
PATH_TITLES = {
    "sphere": "on the sphere",
    "straight": "straight",
    "absolute": "absolute length",
    "interpolate": "to the target",
}
COLUMNS = 4
"""Panels side by side, at most."""


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
    return [path for path in PATH_LABELS if (table["path"] == path).any()]


def sites_of(table: pd.DataFrame) -> list[str]:
    """Return the sites in the table, from the first layer to the last."""
    return [str(site) for site in table["site"].iloc[layers(table).argsort(kind="stable")].unique()]


def shown(table: pd.DataFrame) -> list[tuple[str, str]]:
    """Return the paths and sites that get a column of panels: first and last site, and no more paths than fit."""
    sites, paths = sites_of(end_sites(table)), paths_of(table)
    return [(path, site) for path in paths[: COLUMNS // len(sites)] for site in sites]


def at(table: pd.DataFrame, path: str, site: str) -> pd.DataFrame:
    """Return the rows of one path at one site."""
    return table[(table["path"] == path) & (table["site"] == site)]


def column_title(table: pd.DataFrame, path: str, site: str) -> str:
    """Name a column by its path, and by its site where there are several."""
    return PATH_TITLES[path] if len(sites_of(table)) == 1 else f"{PATH_TITLES[path]}\n{site}"


def title_size(table: pd.DataFrame) -> float:
    """Return the size of column titles: smaller where they name sites."""
    return 10 if len(sites_of(table)) == 1 else 8


def what_is_shown(table: pd.DataFrame) -> str:
    """Say which sites and paths have no panel, if any."""
    places, sites, paths = shown(table), sites_of(table), paths_of(table)
    here = list(dict.fromkeys(path for path, _ in places))
    said = f" Shown at the first and the last of {len(sites)} sites." if len(sites) > 1 else ""
    return said + (f" Shown on {len(here)} of {len(paths)} paths." if len(here) < len(paths) else "")


def label_path(ax: Axes, path: str) -> None:
    """Write what the horizontal axis is, on several lines where panels are narrow."""
    label = PATH_LABELS[path]
    ax.set_xlabel(textwrap.fill(label, 18) if _narrow(ax) else label)


def _narrow(ax: Axes) -> bool:
    return ax.get_position().width < 0.3


def ticks_of_path(ax: Axes, path: str, end: float) -> None:
    """Place ticks every 30 or 60 degrees on the sphere and at fifths or halves of another path, up to its end."""
    narrow = _narrow(ax)
    if path == "sphere":
        ax.set_xticks(np.arange(0, end + 1, 60 if narrow else 30))
    else:
        ticks = np.linspace(0, end, 3 if narrow else 6)
        ax.set_xticks(ticks, [f"{tick:.3g}" for tick in ticks])


def curves(tables: Tables, experiment: str) -> Figure:
    """Draw one curve per prompt and family thin, and the median of the family's curves thick, for each read-out."""
    table = with_readouts(of_experiment(tables["perturbation_curves"], experiment))
    summary, places = curve_summary(table), shown(table)
    figure, axes = panels(len(READOUT_LABELS) * len(places), height=2.2, columns=len(places), sharey="row")
    for row, (readout, title) in enumerate(READOUT_LABELS.items()):
        for column, place in enumerate(places):
            ax, path = axes[row * len(places) + column], place[0]
            here, medians = at(table, *place), at(summary, *place)
            _draw_curves(ax, here, readout)
            _draw_null(ax, medians[medians["readout"] == NULLS.get(readout)], table)
            _draw_medians(ax, medians[medians["readout"] == readout], table)
            _fit(ax, table[readout], readout)
            ax.set_ylabel(title if column == 0 else "")
            if row == len(READOUT_LABELS) - 1:
                label_path(ax, path)
            ticks_of_path(ax, path, float(here["position"].max()))
            if row == 0:
                ax.set_title(column_title(table, *place), fontsize=title_size(table))
    family_key(figure, table, extra=[null_key()])
    return figure


def null_key() -> Line2D:
    """Return the entry of the local-linear null in a legend."""
    return Line2D([], [], color=style.GREY, linewidth=0.9, linestyle=NULL_DASH, label="local-linear null")


def _fit(ax: Axes, values: pd.Series, readout: str) -> None:
    """Fit the vertical axis to nearly all measured values: a few curves, and a null, may leave it."""
    if readout == "cosine_late":
        ax.set_ylim(min(0.0, float(values.min())) - 0.04, 1.04)
    else:
        ax.set_ylim(0, 1.04 * min(float(values.max()), 1.5 * float(values.quantile(0.98))) or 1.0)


def _draw_null(ax: Axes, summary: pd.DataFrame, table: pd.DataFrame) -> None:
    for base, direction, rows in families(summary):
        line = rows.sort_values("position")
        colour = look(table, base, direction)["color"]
        ax.plot(line["position"], line["median"], color=colour, linewidth=0.9, linestyle=NULL_DASH)


def _draw_curves(ax: Axes, table: pd.DataFrame, readout: str) -> None:
    clouds = list(families(table))
    for base, direction, rows in clouds:
        rows = rows[rows["draw"] == rows["draw"].min()]
        wide = rows.pivot(index=["weights", "prompt"], columns="step", values=["position", readout])
        lines = [list(zip(line["position"], line[readout], strict=True)) for _, line in wide.iterrows()]
        colour = look(table, base, direction)["color"]
        # Hundreds of lines as vectors would be megabytes; as one picture they are some kilobytes.
        alpha = 0.45 if len(clouds) <= 2 else 0.3
        ax.add_collection(LineCollection(lines, colors=colour, linewidths=0.45, alpha=alpha, rasterized=True))
    ax.autoscale_view()
    ax.set(xlim=(0, None), ylim=(0, None))


def _draw_medians(ax: Axes, summary: pd.DataFrame, table: pd.DataFrame, band: bool = False) -> None:
    for base, direction, rows in families(summary):
        key, line = look(table, base, direction), rows.sort_values("position")
        ax.plot(line["position"], line["median"], color="white", linewidth=3.4)
        ax.plot(line["position"], line["median"], color=key["color"], linestyle=key["linestyle"], linewidth=2)
        if band:
            between = (line["lower_quartile"], line["upper_quartile"])
            ax.fill_between(line["position"], *between, color=key["color"], alpha=0.13, linewidth=0)
    ax.set(xlim=(0, None), ylim=(0, None))


def curves_caption(tables: Tables, experiment: str) -> str:
    """Say which experiment, at which site, with how many prompts and directions."""
    table = of_experiment(tables["perturbation_curves"], experiment)
    late = " and ".join(sorted(set(table["read_hook"])))
    return (
        f"{setting_of(table)}{what_is_shown(table)} Thin lines are single curves, one per prompt and family; thick lines "
        "the median of all curves at each step. From top to bottom: KL divergence of the next-token distribution from "
        "the undisturbed one; √(2 KL), in which even a linear model rises at once; L2 distance and cosine to the "
        f"undisturbed activation at {late}. Dotted: median of what the metric at the base predicts for a model that is "
        "as linear along the path as at its start, above which the end of a plateau rises. Where few curves are far above all others, they leave the "
        "panel."
    )


def setting_of(table: pd.DataFrame) -> str:
    """Say which experiment a table of curves or crossings is of, at which sites, with how many prompts and directions."""
    per_family = table.groupby(["base", "direction", "path", "site"])[["prompt", "draw"]].apply(
        lambda r: len(r.drop_duplicates())
    )
    sites, weights = sites_of(table), " and ".join(table["weights"].unique())
    where = sites[0] if len(sites) == 1 else f"{len(sites)} sites from {sites[0]} to {sites[-1]}"
    return (
        f"Experiment {table['experiment'].iloc[0]}: the last position of {plural(table['prompt'].nunique(), 'prompt')} "
        f"perturbed at {where} ({weights} weights), {counted(per_family.unique())} directions per family and path."
    )


def contrasted(table: pd.DataFrame, experiment: str, contrast: str) -> pd.DataFrame:
    """Return the families that two experiments share, on the first path; the former's first site, the latter's last."""
    first, second = (of_experiment(table, name) for name in (experiment, contrast))
    both = pd.concat(
        [at(first, paths_of(first)[0], sites_of(first)[0]), at(second, paths_of(second)[0], sites_of(second)[-1])]
    )
    shared = _family_set(first) & _family_set(second)
    return both[[pair in shared for pair in zip(both["base"], both["direction"], strict=True)]]


def control(tables: Tables, experiment: str, contrast: str) -> Figure:
    """Draw the medians of two experiments side by side, with quartiles over curves."""
    table = contrasted(tables["perturbation_curves"], experiment, contrast)
    summary = curve_summary(table)
    figure, axes = panels(4, height=2.4, columns=2, sharex=True)
    for row, readout in enumerate(("kl_base_pert_nats", "l2_late")):
        for column, name in enumerate((experiment, contrast)):
            ax, rows = axes[2 * row + column], of_experiment(summary, name)
            _draw_medians(ax, rows[rows["readout"] == readout], table, band=True)
            ax.set(xlabel=PATH_LABELS[rows["path"].iloc[0]] if row else "")
            ax.set_ylabel(READOUT_LABELS[readout] if column == 0 else "")
            ticks_of_path(ax, str(rows["path"].iloc[0]), float(rows["position"].max()))
            if row == 0:
                ax.set_title(f"{style.label(name)}\n{rows['site'].iloc[0]}, {rows['weights'].iloc[0]} weights")
    family_key(figure, table)
    return figure


def _family_set(table: pd.DataFrame) -> set[tuple[str, str]]:
    return set(zip(table["base"], table["direction"], strict=True))


def control_caption(tables: Tables, experiment: str, contrast: str) -> str:
    """Say what the two experiments are."""
    table = contrasted(tables["perturbation_curves"], experiment, contrast)
    both = " ".join(setting_of(of_experiment(table, name)) for name in (experiment, contrast))
    return f"{both} Lines are medians, bands quartiles over curves. The vertical scales differ between the panels."


def has_control(tables: Tables, experiment: str, contrast: str) -> bool:
    """Tell whether both experiments were run, with a family in common."""
    table = tables["perturbation_curves"]
    return bool(_family_set(of_experiment(table, experiment)) & _family_set(of_experiment(table, contrast)))


KINDS = (
    FigureSpec(
        id="curves",
        draw=curves,
        tables=("perturbation_curves",),
        section=SECTION,
        title="Curves",
        caption=curves_caption,
    ),
)
"""Of which every experiment has one."""
CONTROLS = {
    "late_layer_control": ("sensitive_directions", "late_layer", "Control: perturbing a late layer"),
    "random_weights_control": ("plateaus", "plateaus_random_weights", "Control: random weights"),
}
FIGURES = tuple(
    FigureSpec(
        id=figure_id,
        draw=partial(control, experiment=experiment, contrast=contrast),
        tables=("perturbation_curves",),
        section=SECTION,
        title=title,
        caption=partial(control_caption, experiment=experiment, contrast=contrast),
        has_rows=partial(has_control, experiment=experiment, contrast=contrast),
    )
    for figure_id, (experiment, contrast, title) in CONTROLS.items()
)
