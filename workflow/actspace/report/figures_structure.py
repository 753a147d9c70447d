"""The figure about structure beyond covariance: each fit to real activations against the same fit to nulls of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from actspace.report import style
from actspace.report.figures_dictionaries import DATA, SECTION, draw_fits, extent, family_key, places
from actspace.report.spec import FigureSpec, Tables, panels, plural
from actspace.report.summaries import groups

BITS = "bits_per_vector"
SHOWN = {
    "difference": "unexplained: null minus real (A)",
    "relative": "as a share: 1 - real / null",
}


def drawn(tables: Tables) -> pd.DataFrame:
    """Return the fits that have a place on a logarithmic axis of bits, with the null as the kind of data."""
    table = tables["dictionary_structure"]
    if BITS not in table:
        return table.iloc[:0]
    names = {"null": "data", "value": "difference", "low": "difference_low", "high": "difference_high"}
    return table[np.isfinite(table[BITS]) & (table[BITS] > 0)].rename(columns=names)


def has_structure(tables: Tables) -> bool:
    """Tell whether there is a fit to compare whose description length is known."""
    return not drawn(tables).empty


def structure(tables: Tables) -> Figure:
    """Draw what nulls leave unexplained beyond real data against the description length, absolute and as a share."""
    fits = drawn(tables)
    parts = [(name, rows, metric) for name, rows in places(fits) for metric in SHOWN]
    figure, axes = panels(len(parts), height=3.4, columns=2)
    for ax, (name, rows, metric) in zip(axes, parts, strict=True):
        draw_fits(ax, rows.assign(line=rows["n_latents"].where(rows["fit"].str.contains("-n"), 0)), BITS, metric)
        ax.axhline(0, color=style.GREY, linewidth=0.8, linestyle=":")
        style.logarithmic(ax, "x")
        ax.set(title=name, xlabel="description length, bits per vector", ylabel=SHOWN[metric])
    family_key(figure, fits)
    return figure


def structure_caption(tables: Tables) -> str:
    """Say what is subtracted from what, and how many fits beat each null."""
    fits = drawn(tables)
    found = [
        f"{DATA[data].described}: {int((rows['real_beats_null'] == 'yes').sum())} of "
        f"{plural(len(rows), 'fit')} above zero with the whole interval, "
        f"{int((rows['real_beats_null'] == 'no').sum())} with none of it"
        for data, rows in groups(fits, "data")
    ]
    return (
        "Structure beyond a null of the data: variance left unexplained (definition A) of the null minus that of real "
        "activations, by the same method with the same settings on as many rows (left), and as a share of what the "
        "null leaves (right), against the bits that tell which latents of the fit to real activations fire and how "
        f"strongly. At zero (dotted) real activations hold nothing for the method that the null lacks. "
        f"{'; '.join(found)}.{_of_pca(fits)} Evaluated on {extent(fits)}; bars are 95% intervals over documents, for "
        "these very fits."
    )


def _of_pca(fits: pd.DataFrame) -> str:
    """Say how far PCA is from the Gaussian null, where there is a PCA."""
    pca = fits[(fits["family"] == "pca") & (fits["data"] == "gaussian")]
    if pca.empty:
        return ""
    return (
        " PCA sees the covariance alone: that its difference from the Gaussian null is not zero but "
        f"{pca['difference'].min():.2g} to {pca['difference'].max():.2g} is owed to training and held-out text, whose "
        "covariances differ."
    )


FIGURES = (
    FigureSpec(
        id="structure",
        draw=structure,
        tables=("dictionary_structure",),
        section=SECTION,
        title="Structure beyond covariance",
        caption=structure_caption,
        has_rows=has_structure,
    ),
)
