"""The figure of pre-activations: whether real activations stand out from random vectors before any latent is chosen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from actspace.dictionaries.fits import per_fit
from actspace.report import style
from actspace.report.figures_dictionaries import SECTION
from actspace.report.figures_latents import short
from actspace.report.spec import FigureSpec, Tables, counted, panels, plural
from actspace.report.summaries import groups

COLUMNS = 3
PLACE = ["capture", "hook", "fit"]
KINDS: dict[str, tuple[str, Any, str]] = {
    "held_out": ("real", "-", "held-out activations"),
    "covariance_random": ("covariance_random", "-.", "covariance-random vectors"),
    "isotropic": ("isotropic_random", ":", "random directions of their mean norm"),
}
"""Kinds of vectors in the order of the key: the base of perturbations that has the colour, line style, and name."""


def pre_activations(tables: Tables) -> Figure:
    """Draw the histograms of the pre-activations of each SAE, by rows and by random vectors, a panel for each."""
    table = shown(tables)
    least = per_fit(tables["dictionary_metrics"]).query("data == 'real'").set_index(PLACE)["least_active"]
    parts = list(groups(table.sort_values(["hook", "family", "n_latents", "k", "fit"]), *PLACE))
    several = table["hook"].nunique() > 1
    width = float((table["scaled_high"] - table["scaled_low"]).min())
    figure, axes = panels(len(parts), height=2.3, columns=COLUMNS, sharex=True, sharey=True)
    for ax, (place, rows) in zip(axes, parts, strict=True):
        for kind in KINDS:
            draw_histogram(ax, rows[rows["vectors"] == kind], kind, width)
        ax.axvline(least[place], color=style.BLACK, linewidth=0.9, linestyle="--")
        title = f"{style.label(rows['family'].iloc[0])} {short(str(place[2]))}"
        ax.set_title(f"{title}\n{place[1]}" if several else title, fontsize=8.5)
        ax.set_xlabel("scaled pre-activation")
        style.logarithmic(ax, "y")
        ax.tick_params(labelbottom=True)
    for ax in axes[::COLUMNS]:
        ax.set_ylabel("share of pre-activations")
    figure.legend(handles=_key(), loc="outside lower center", ncols=2)
    return figure


def shown(tables: Tables) -> pd.DataFrame:
    """Return the histograms of SAEs of real activations, of the first seed."""
    table = tables["dictionary_preactivations"]
    if table.empty:
        return table
    table = table[table["data"] == "real"]
    return table[table["seed"] == table["seed"].min()]


def has_pre_activations(tables: Tables) -> bool:
    """Tell whether there is an SAE."""
    return not shown(tables).empty


def draw_histogram(ax: Axes, bins: pd.DataFrame, kind: str, width: float) -> None:
    """Draw the share of each bin as steps; an open bin is drawn as wide as all others."""
    low = bins["scaled_low"].where(np.isfinite(bins["scaled_low"]), bins["scaled_high"] - width)
    place = np.rint((low - low.min()).to_numpy() / width).astype(int)
    heights = np.zeros(place.max() + 1)
    heights[place] = bins["pre_activations"] / bins["pre_activations"].sum()
    edges = low.min() + width * np.arange(len(heights) + 1)
    base, dash, _ = KINDS[kind]
    ax.stairs(heights, edges, color=style.colour(base), linestyle=dash, linewidth=1.3)


def _key() -> list[Line2D]:
    kinds = [Line2D([], [], color=style.colour(base), ls=dash, label=name) for base, dash, name in KINDS.values()]
    return [*kinds, Line2D([], [], color=style.BLACK, ls="--", linewidth=0.9, label="needed to be active")]


def pre_activations_caption(tables: Tables) -> str:
    """Say what is counted in which units, of how many rows, and how much of it is positive."""
    table = shown(tables)
    metrics = tables["dictionary_metrics"].merge(table[[*PLACE, "data"]].drop_duplicates())
    suffixes = {kind: "" if kind == "held_out" else f"_{kind}" for kind in KINDS}
    positive = {kind: metrics[metrics["metric"] == f"share_positive{end}"] for kind, end in suffixes.items()}
    shares = ", ".join(f"{_range(positive[kind]['value'])} of {name}" for kind, (_, _, name) in KINDS.items())
    return (
        f"Pre-activations of all latents of {plural(table.groupby(PLACE).ngroups, 'sparse autoencoder')}: share of them "
        "in bins of 1/32, on a logarithmic axis, for "
        f"{counted(positive['held_out']['n_rows'])} held-out token positions and "
        f"{counted(positive['isotropic']['n_rows'])} random vectors of each kind. They are scaled by the norm of the "
        "latent's decoder row over the root mean square distance of training activations from their mean: 1 moves the "
        f"reconstruction as far as activations lie from the mean. Above zero are {shares}. Dashed: what a latent needs on average to be "
        "active (TopK: the k-th largest of the row; L1: zero; others: the threshold). A tail that is longer than that "
        "of covariance-random vectors comes from what mean and covariance do not say."
    )


def _range(shares: pd.Series) -> str:
    low, high = f"{shares.min():.0%}", f"{shares.max():.0%}"
    return low if low == high else f"{low} to {high}"


FIGURES = (
    FigureSpec(
        id="pre_activations",
        draw=pre_activations,
        tables=("dictionary_preactivations", "dictionary_metrics"),
        section=SECTION,
        title="Pre-activations of real and random vectors",
        caption=pre_activations_caption,
        has_rows=has_pre_activations,
    ),
)
