"""Figures about what dictionaries cost and what their latents do: size, bits, firing frequencies, agreement."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from actspace.dictionaries.fits import MOST_ROWS, N_ATOMS, per_fit
from actspace.report import style
from actspace.report.figures_dictionaries import (
    DATA,
    SECTION,
    draw_fits,
    extent,
    family_key,
    fit_colours,
    place_name,
    places,
)
from actspace.report.spec import FigureSpec, Tables, counted, panels, plural
from actspace.report.summaries import groups

RESOLUTION = 0.005
"""Points of matches that are closer than this, a quarter of their size, are drawn as one."""
BITS, BOUND = "bits_per_vector", "rate_distortion"


def bits(tables: Tables) -> Figure:
    """Draw the pooled unexplained variance of every fit against its description length, and the Gaussian bound."""
    fits = per_fit(tables["dictionary_metrics"])
    fits = fits[np.isfinite(fits[BITS]) & (fits[BITS] > 0)]
    parts = list(places(fits))
    figure, axes = panels(len(parts), height=3.6, columns=2, sharey=True)
    for ax, (name, rows) in zip(axes, parts, strict=True):
        sizes_of_saes = rows["n_latents"].where(rows["fit"].str.contains("-n"), 0)
        draw_fits(ax, rows.assign(line=sizes_of_saes), BITS, "fvu_pooled")
        if BOUND in tables:
            draw_bound(ax, tables[BOUND], name)
        ax.set(title=name, ylim=(0, None), xlabel="description length, bits per vector")
        style.logarithmic(ax, "x")
    axes[0].set_ylabel("fraction of variance unexplained (A)")
    bound = Line2D([], [], color=style.BLACK, linewidth=1, linestyle=":", label="Gaussian rate-distortion bound")
    family_key(figure, fits, [bound] if BOUND in tables else [])
    return figure


def has_bits(tables: Tables) -> bool:
    """Tell whether the description length of any fit was measured."""
    return BITS in set(tables["dictionary_metrics"]["metric"])


def draw_bound(ax: Axes, table: pd.DataFrame, name: str) -> None:
    """Draw the least unexplained variance of Gaussian data at each number of bits, as far as the panel goes."""
    left, right = ax.get_xlim()
    for (capture, hook), rows in groups(table, "capture", "hook"):
        if place_name(capture, hook) == name:
            rows = rows[rows["bits"].between(left, right)].sort_values("bits")
            ax.plot(rows["bits"], rows["fvu_bound"], color=style.BLACK, linewidth=1, linestyle=":")


def setting(fits: pd.DataFrame) -> pd.Series:
    """Name what fits share that differ in size and seed alone: the sparsity, or nothing where size is the setting."""
    sparsity = fits["fit"].astype(str).str.extract(r"-([ctj][\d.]+)", expand=False).fillna(fits["k"].astype(str))
    return sparsity.where(fits["fit"].astype(str).str.contains("-n"), "")


def bits_caption(tables: Tables) -> str:
    """Say what is counted, of how many fits."""
    fits = per_fit(tables["dictionary_metrics"])
    bound = (
        " Dotted: the least that any code of Gaussian data with this covariance can leave at so many bits; real "
        "activations below it are merely not Gaussian."
        if BOUND in tables
        else ""
    )
    return (
        f"Fraction of variance unexplained (A) by {plural(len(fits), 'fit')} against the bits it takes to say which "
        "latents fire (as if they fired independently, at their training frequencies; log2 K for K clusters) and how "
        "strongly (rounded so coarsely that the unexplained variance rises by 1%). Filled, solid: real activations; "
        f"hollow, dashed or dotted: data without structure. Evaluated on {extent(fits)}; bars are 95% intervals over "
        f"documents.{bound}"
    )


def sizes(tables: Tables) -> Figure:
    """Draw the pooled unexplained variance of every fit against the number of its latents."""
    fits = per_fit(tables["dictionary_metrics"])
    parts = list(places(fits))
    figure, axes = panels(len(parts), height=3.4, columns=2, sharey=True)
    for ax, (name, rows) in zip(axes, parts, strict=True):
        draw_fits(ax, rows.assign(line=setting(rows)), "n_latents", "fvu_pooled")
        style.logarithmic(ax, "x")
        name_settings(ax, rows)
        ax.set(title=name, ylim=(0, None), xlabel="latents or clusters in the dictionary")
    axes[0].set_ylabel("fraction of variance unexplained (A)")
    family_key(figure, fits)
    return figure


def name_settings(ax: Axes, fits: pd.DataFrame) -> None:
    """Write its sparsity beside the largest fit of each line of SAEs to real data."""
    real = fits[fits["data"] == "real"].assign(line=setting(fits))
    largest = real[real["line"] != ""].sort_values("n_latents").groupby(["family", "line"]).tail(1)
    largest = largest.assign(text=largest["l0"].map("{:.0f}".format) if "l0" in fits else largest["line"])
    at: dict[str, Any] = {"textcoords": "offset points", "xytext": (6, -3), "fontsize": 7, "color": style.GREY}
    for x, column in groups(largest.sort_values("fvu_pooled"), "n_latents"):
        # Fits that are closer than a line of text share one.
        apart = column["fvu_pooled"].diff() > 0.04 * ax.dataLim.ymax
        for _, near in groups(column.assign(label=apart.cumsum()), "label"):
            text = "L0 = " if "l0" in fits else ""
            ax.annotate(text + ", ".join(near["text"].unique()), (x, near["fvu_pooled"].mean()), **at)


def sizes_caption(tables: Tables) -> str:
    """Say how many fits of which sizes."""
    fits = per_fit(tables["dictionary_metrics"])
    return (
        f"Fraction of variance unexplained (A) by {plural(len(fits), 'fit')} with {counted(fits['n_latents'])} latents "
        "or clusters; lines join fits of one family and sparsity, and L0 is the mean number of active latents. Filled, "
        "solid: real activations; hollow, dashed or dotted: data without structure. Evaluated on "
        f"{extent(fits)}; bars are 95% intervals over documents."
    )


def densities(tables: Tables) -> Figure:
    """Draw how often the latents of each fit to real activations fire, a panel for each family at each hook point."""
    table = fired(tables)
    parts = [
        (f"{style.label(family)}, {hook}", rows)
        for (capture, hook, family), rows in groups(table, "capture", "hook", "family")
    ]
    figure, axes = panels(len(parts), height=2.7, columns=2, sharex=True)
    for ax, (title, rows) in zip(axes, parts, strict=True):
        shades = fit_colours(dict.fromkeys(rows.sort_values(["n_latents", "k", "fit"])["fit"].astype(str)))
        for fit, bins in groups(rows.sort_values(["n_latents", "k", "fit"]), "fit"):
            draw_density(ax, bins, shades[str(fit)], f"{short(str(fit))}: {dead_share(bins):.1%} dead")
        ax.set_title(title, fontsize=8.5)
        # The key stands above the bars: each of its lines takes some 8% of a panel.
        room = 1 - 0.06 - 0.08 * len(shades)
        ax.set(ylabel="share of latents", xlabel="log10 of the firing frequency", ylim=(0, ax.dataLim.ymax / room))
        ax.tick_params(labelbottom=True)
        ax.legend(fontsize=7, loc="upper left")
    return figure


def fired(tables: Tables) -> pd.DataFrame:
    """Return the rows of fits to real activations, of the first seed, whose latents do not all fire always as PCA's do."""
    table = tables["dictionary_densities"]
    table = table[(table["data"] == "real") & (table["family"] != "pca")]
    return table[table["seed"] == table["seed"].min()]


def has_densities(tables: Tables) -> bool:
    """Tell whether there is a fit whose latents may be silent."""
    return not fired(tables).empty


def short(fit: str) -> str:
    """Return the name of a fit without its family."""
    return " ".join(fit.split("-")[1:])


def dead_share(bins: pd.DataFrame) -> float:
    """Return the share of latents that never fire."""
    return float(bins.loc[np.isinf(bins["log10_frequency_low"]), "latents"].sum() / bins["latents"].sum())


def draw_density(ax: Axes, bins: pd.DataFrame, shade: Any, label: str) -> None:
    """Draw the histogram of one fit as steps that begin and end at zero."""
    alive = bins[np.isfinite(bins["log10_frequency_low"])].sort_values("log10_frequency_low")
    width = (alive["log10_frequency_high"] - alive["log10_frequency_low"]).median()
    low = np.arange(alive["log10_frequency_low"].min(), -width / 2, width)
    share = (alive["latents"] / bins["latents"].sum()).to_numpy()
    place = np.rint((alive["log10_frequency_low"].to_numpy() - low[0]) / width).astype(int)
    heights = np.zeros(len(low))
    heights[place] = share
    ax.stairs(heights, np.append(low, low[-1] + width), color=shade, linewidth=1.4, label=label)


def densities_caption(tables: Tables) -> str:
    """Say over how many rows and latents."""
    table = fired(tables)
    n = table.groupby(["capture", "hook", "fit"]).ngroups
    return (
        f"How often the latents of {plural(n, 'fit')} fire: share of latents by the fraction of "
        f"{counted(table['n_rows'].unique())} held-out token positions for which they are active, on a logarithmic "
        "axis. A latent that fires for none of them counts as dead and is in the key alone."
    )


def matches(tables: Tables) -> Figure:
    """Draw how well the latents of one fit find a like one in another, by what the two fits share, with the null."""
    table = tables["dictionary_matches"]
    order = [kind for kind in RELATIONS if kind in set(table["relation"])]
    rebuilt = of_sums(table)
    figure, axes = panels(
        4 if len(rebuilt) else 2, height=max(0.5 + 0.42 * len(order), 2.2 * bool(len(rebuilt))), columns=2
    )
    columns = {"mean_best_cosine": "mean cosine of best matches", "share_above_0_7": "share of matches above 0.7"}
    for ax, (column, title) in zip(axes, columns.items(), strict=False):
        for kind, y in zip(order, range(len(order)), strict=True):
            draw_matches(ax, table[table["relation"] == kind], column, y)
        ax.set_yticks(range(len(order)), [RELATIONS[kind] for kind in order] if ax is axes[0] else [""] * len(order))
        ax.set(title=title, xlim=(-0.03, 1.03), ylim=(len(order) - 0.4, -0.6))
    for ax, (kind, title) in zip(axes[2:], SPLIT.items(), strict=False):
        draw_sums(ax, rebuilt, kind)
        ax.set(title=title, xlabel="latents of the smaller fit in the sum", ylim=(0, 1.03), xticks=N_ATOMS)
    if len(rebuilt):
        axes[2].set_ylabel("unexplained share of a latent")
    figure.legend(
        handles=_match_key(kind for kind in DATA if (table["data"] == kind).any()), loc="outside lower center", ncols=3
    )
    return figure


RELATIONS = {
    "seed": "another seed",
    "size": "another size",
    "sparsity": "another sparsity",
    "family": "another family",
}


SPLIT = {"children": "latents of the larger fit with a parent", "novel": "latents without one"}


def of_sums(table: pd.DataFrame) -> pd.DataFrame:
    """Return the pairs, the smaller fit first, whose larger latents were rebuilt from the smaller fit's."""
    return table[table["n_children"].notna()] if "n_children" in table else table.iloc[:0]


def draw_sums(ax: Axes, rows: pd.DataFrame, kind: str) -> None:
    """Draw what sums of more and more latents leave, a line for each pair, and for the null of the latents of real data."""
    for pair in rows[rows[f"n_{kind}"] > 0].to_dict("records"):
        left, null = ([pair[f"{kind}_{prefix}unexplained_{n}"] for n in N_ATOMS] for prefix in ("", "random_"))
        if pair["data"] == "real":
            ax.plot(N_ATOMS, null, color=style.GREY, linewidth=0.6, zorder=1)
        ax.plot(N_ATOMS, left, color=style.BLUE, linestyle=DATA[pair["data"]].line, linewidth=0.9)


def draw_matches(ax: Axes, rows: pd.DataFrame, column: str, y: int) -> None:
    """Draw the pairs of one relation as points, a row for each kind of data, and the range of the random null below."""
    for place, (data, some) in enumerate(groups(rows, "data")):
        values = np.unique((some[column] / RESOLUTION).round()) * RESOLUTION
        key: dict[str, Any] = {"marker": "o", "markersize": 4, "markerfacecolor": DATA[data].face or style.BLUE}
        ax.plot(values, np.full(len(values), y - 0.24 + 0.16 * place), color=style.BLUE, linestyle="none", **key)
    null = rows[f"random_{column}"]
    ax.plot([null.min(), null.max()], [y + 0.36] * 2, color=style.GREY, linewidth=3)


def _match_key(data: Iterable[str]) -> list[Line2D]:
    found = []
    for kind in data:
        key: dict[str, Any] = {"linestyle": DATA[kind].line, "markerfacecolor": DATA[kind].face or style.BLUE}
        found.append(Line2D([], [], color=style.BLUE, marker="o", label=DATA[kind].label, **key))
    return [*found, Line2D([], [], color=style.GREY, linewidth=3, label="random directions instead")]


def matches_caption(tables: Tables) -> str:
    """Say what is matched with what."""
    table = tables["dictionary_matches"]
    return (
        f"Do fits find the same directions? For {plural(len(table), 'ordered pair')} of fits to the same data, each "
        "latent of the one is matched with the most similar latent of the other by the cosine of their decoder rows "
        "(of clusters: of the deviation of the centroid from the mean centroid). Each point is a pair; dead latents "
        "count. Grey: the range of what random directions reach in place of the other's latents, as many."
        + sums_caption(table)
    )


def sums_caption(table: pd.DataFrame) -> str:
    """Say what the lower panels show, and what of the children of real data four latents leave, at the median pair."""
    rebuilt = of_sums(table)
    if rebuilt.empty:
        return ""
    real = rebuilt[(rebuilt["data"] == "real") & (rebuilt["n_children"] > 0)]
    text = (
        f" Below: do latents split into composites? For {plural(len(rebuilt), 'pair')} that differ in size, the share "
        "of a latent's direction in the larger fit that the best non-negative sum of one, two or four latents of the "
        f"smaller leaves, in the mean over at most {MOST_ROWS:,} latents with a parent (cosine above 0.7) and as many without. "
        "Dashed or dotted: data without structure. "
        "Grey: each latent of real data with all it has beside its nearest turned into a random direction. Where blue "
        "falls below grey, that remainder is made of other latents of the smaller fit"
    )
    if real.empty:
        return f"{text}."
    left = real[[f"children_{prefix}unexplained_{n}" for n, prefix in ((1, ""), (4, ""), (4, "random_"))]].median()
    return (
        f"{text}: of the children of real data one latent, the parent, leaves {left.iloc[0]:.2f} in the median of "
        f"pairs, four leave {left.iloc[1]:.2f}, and {left.iloc[2]:.2f} of the random ones."
    )


FIGURES = (
    FigureSpec(
        id="description_length",
        draw=bits,
        tables=("dictionary_metrics",),
        section=SECTION,
        title="Unexplained variance against description length",
        caption=bits_caption,
        has_rows=has_bits,
    ),
    FigureSpec(
        id="dictionary_size",
        draw=sizes,
        tables=("dictionary_metrics",),
        section=SECTION,
        title="Unexplained variance against the size of the dictionary",
        caption=sizes_caption,
    ),
    FigureSpec(
        id="densities",
        draw=densities,
        tables=("dictionary_densities",),
        section=SECTION,
        title="How often latents fire",
        caption=densities_caption,
        has_rows=has_densities,
    ),
    FigureSpec(
        id="dictionary_matches",
        draw=matches,
        tables=("dictionary_matches",),
        section=SECTION,
        title="Do fits find the same directions?",
        caption=matches_caption,
    ),
)
