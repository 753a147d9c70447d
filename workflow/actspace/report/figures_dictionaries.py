"""Figures about clustering and sparse autoencoders."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from actspace.dictionaries.fits import per_fit
from actspace.report import style
from actspace.report.spec import FigureSpec, Tables, counted, panels, plural
from actspace.report.summaries import groups, records

SECTION = "Clustering and sparse autoencoders"
DEFINITIONS = {
    "fvu_per_row": "B: mean over rows",
    "fvu_per_dimension": "C: mean over dimensions",
    "fvu_residual_variance": "V: variance of the residual",
    "fvu_uncentred": "Z: relative to zero",
}


class KindOfData(NamedTuple):
    """How a kind of data is drawn, and called: in the key, and in captions."""

    line: str
    face: str | None
    """Filling of markers; None: the colour of the family."""
    label: str
    what: str
    face_name: str
    line_name: str

    @property
    def described(self) -> str:
        """What it is, and how to know it."""
        return f"{self.what} ({self.face_name}, {self.line_name})"


DATA = {
    "real": KindOfData("-", None, "real activations", "real activations", "filled", "solid"),
    "gaussian": KindOfData(
        "--", "white", "Gaussian surrogate", "Gaussian data with the same mean and covariance", "hollow", "dashed"
    ),
    "shuffled": KindOfData(
        ":", "#DDDDDD", "shuffled dimensions", "activations with each dimension shuffled", "pale", "dotted"
    ),
    "untrained": KindOfData(
        "-.", "#AAAAAA", "untrained model", "activations of the model with random weights", "grey", "dash-dotted"
    ),
}
SIDESTEP = 1.1
"""Factor of L0 between families that would stand on one another."""


def places(fits: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the fits of one hook point of one capture at a time, with a name for its panel."""
    for (capture, hook), rows in groups(fits, "capture", "hook"):
        yield place_name(capture, hook), rows


def place_name(capture: str, hook: str) -> str:
    """Name the panel of a hook point."""
    return f"{hook} ({capture})"


def side_by_side(fits: pd.DataFrame) -> pd.DataFrame:
    """Move families apart all of whose fits have one active latent, or less where none is, so that none hides another."""
    most = fits.groupby("family")["l0"].max().round(6)
    alone = [family for family in style.MARKERS if most.get(family, 0) == 1]
    steps = fits["family"].map({family: i - (len(alone) - 1) / 2 for i, family in enumerate(alone)}).fillna(0)
    return fits.assign(l0=fits["l0"] * SIDESTEP**steps)


def draw_against_l0(ax: Axes, fits: pd.DataFrame, metric: str) -> None:
    """Draw one line per family, dictionary size and kind of data against L0, with the table's intervals."""
    # What has no setting but its size needs no line per size: the names of SAEs alone hold one beside it.
    sizes = fits["n_latents"].where(fits["fit"].str.contains("-n"), 0)
    draw_fits(ax, fits.assign(line=sizes), "l0", metric)
    style.logarithmic(ax, "x")
    ax.set_xlabel("active latents per token (L0)")


def draw_fits(ax: Axes, fits: pd.DataFrame, x: str, metric: str) -> None:
    """Draw a metric against a column, joined by family, kind of data and the column `line`, with the table's intervals.

    Points straight above one another are not joined.
    """
    for (family, data, _), rows in groups(fits, "family", "data", "line"):
        rows = rows.sort_values(x)
        kind = DATA[data]
        below, above = rows[metric] - rows[f"{metric}_low"], rows[f"{metric}_high"] - rows[metric]
        ax.errorbar(
            rows[x],
            rows[metric],
            yerr=[below.clip(lower=0).fillna(0), above.clip(lower=0).fillna(0)],
            color=style.colour(family),
            linestyle="none" if rows[x].round(6).nunique() == 1 else kind.line,
            marker=style.MARKERS.get(family, "o"),
            markerfacecolor=kind.face or style.colour(family),
            markersize=5,
            linewidth=1.2,
            capsize=2,
            elinewidth=1,
        )
    ax.margins(x=0.12)


def name_sizes(ax: Axes, fits: pd.DataFrame) -> None:
    """Write the number of clusters to the left of the smallest and of the largest k-means fits to real data."""
    clusters = fits[(fits["family"] == "kmeans") & (fits["data"] == "real")].sort_values("n_latents")
    at: dict[str, Any] = {"textcoords": "offset points", "xytext": (-6, -3), "fontsize": 7.5, "color": style.GREY}
    for fit in records(pd.concat([clusters.head(1), clusters.tail(1)])):
        ax.annotate(f"K = {fit.n_latents}", (fit.l0, fit.fvu_pooled), ha="right", **at)


def family_key(figure: Figure, fits: pd.DataFrame, more: Sequence[Line2D] = ()) -> None:
    """Place one legend under the panels: families by colour and marker, kinds of data by line and filling."""
    there = set(fits["family"])
    families = [f for f in style.MARKERS if f in there] + sorted(there - set(style.MARKERS))
    handles = [
        Line2D([], [], color=style.colour(f), marker=style.MARKERS.get(f, "o"), label=style.label(f), linewidth=1.4)
        for f in families
    ]
    for data in dict.fromkeys(fits["data"]):
        kind = DATA[data]
        key: dict[str, Any] = {
            "color": style.GREY,
            "linestyle": kind.line,
            "marker": "o",
            "markerfacecolor": kind.face or style.GREY,
        }
        handles.append(Line2D([], [], label=kind.label, **key))
    figure.legend(handles=[*handles, *more], loc="outside lower center", ncols=3 if len(handles) > 8 else 4)


def unexplained_variance(tables: Tables) -> Figure:
    """Draw the pooled unexplained variance of every fit against its L0."""
    fits = side_by_side(per_fit(tables["dictionary_metrics"]))
    parts = list(places(fits))
    figure, axes = panels(len(parts), height=3.4 if fits["family"].nunique() <= 8 else 4.8, columns=2, sharey=True)
    for ax, (name, rows) in zip(axes, parts, strict=True):
        draw_against_l0(ax, rows, "fvu_pooled")
        name_sizes(ax, rows)
        ax.set(title=name, ylim=(0, None))
    axes[0].set_ylabel("fraction of variance unexplained (A)")
    family_key(figure, fits)
    return figure


def unexplained_variance_caption(tables: Tables) -> str:
    """Say how many fits were evaluated on how much text."""
    fits = per_fit(tables["dictionary_metrics"])
    n_real, null = int((fits["data"] == "real").sum()), fits.loc[fits["data"] != "real", "data"]
    of_nulls = [f"{n} to {DATA[str(data)].described}" for data, n in null.value_counts(sort=False).items()]
    return (
        f"Fraction of variance left unexplained (definition A, pooled over rows) by {plural(n_real, 'fit')} to real "
        f"activations (filled, solid){''.join(f', {null}' for null in of_nulls)}, against the mean number of active "
        f"latents per token (families with one stand side by side at 1). Evaluated on held-out text: {extent(fits)}. "
        "Bars are 95% intervals over documents; K is the number of clusters. "
        + (
            "What lies between a real curve and its Gaussian counterpart is structure beyond the covariance."
            if of_nulls
            else ""
        )
    )


def extent(fits: pd.DataFrame) -> str:
    """Say on how much text fits were evaluated."""
    real = fits[fits["data"] == "real"] if (fits["data"] == "real").any() else fits
    return f"{counted(real['n_rows'].unique())} token positions of {counted(real['n_documents'].unique())} documents"


def variance_definitions(tables: Tables) -> Figure:
    """Draw definitions B, C, V and Z of each fit against A; the diagonal is agreement."""
    fits = per_fit(tables["dictionary_metrics"])
    shown = [metric for metric in DEFINITIONS if metric in fits]
    figure, axes = panels(len(shown), height=2.9, columns=2, sharex=True)
    for ax, metric in zip(axes, shown, strict=True):
        for (family, data), rows in groups(fits, "family", "data"):
            key: dict[str, Any] = {"color": style.colour(family), "marker": style.MARKERS.get(family, "o")}
            face = DATA[data].face or key["color"]
            ax.plot(rows["fvu_pooled"], rows[metric], ls="none", markerfacecolor=face, markersize=5, **key)
        ax.axline((0, 0), slope=1, color=style.GREY, linewidth=0.8, linestyle=":")
        ax.set(title=DEFINITIONS[metric], ylabel="unexplained, this definition", xlim=(0, None), ylim=(0, None))
    for ax in axes[-2:]:
        ax.set_xlabel("unexplained, A: pooled")
    family_key(figure, fits)
    return figure


def variance_definitions_caption(tables: Tables) -> str:
    """Say what is compared, over how many fits."""
    fits = per_fit(tables["dictionary_metrics"])
    return (
        f"The same {plural(len(fits), 'fit')} under five definitions of unexplained variance. Each point is one fit: "
        f"its "
        "value under definition A (sum of squared residuals over sum of squared deviations from the mean) against B "
        "(mean of that ratio over rows), C (over dimensions), V (variance of the residual, blind to a constant error) "
        "and "
        f"Z (relative to zero and not to the mean). Dotted: agreement. Evaluated on {extent(fits)}."
    )


def training_curves(tables: Tables) -> Figure:
    """Draw loss, unexplained variance, L0 and dead latents of each fit over training."""
    table = tables["training_curves"]
    table = table if "data" in table else table.assign(data="real")
    keys = [key for key in ("capture", "hook") if key in table and table[key].nunique() > 1]
    wanted = {"loss": "loss", "fvu_pooled": "variance unexplained (A)", "l0": "L0", "fraction_dead": "fraction dead"}
    figure, axes = panels(len(wanted), height=2.3, columns=2, sharex=True)
    runs = [(" ".join(map(str, key[1:])), key[0], rows) for key, rows in groups(table, "data", *keys, "fit")]
    shades = fit_colours(dict.fromkeys(name for name, _, _ in runs))
    for ax, (column, title) in zip(axes, wanted.items(), strict=True):
        for name, data, rows in runs:
            rows, line = rows.sort_values("step"), DATA[data].line
            ax.plot(rows["vectors"], rows[column], color=shades[name], linestyle=line, linewidth=1.3)
        ax.set(title=title, xlabel="training vectors")
        ax.ticklabel_format(axis="x", style="sci", scilimits=(-3, 5))
    style.logarithmic(axes[0], "y")
    style.logarithmic(axes[2], "y")
    handles = [Line2D([], [], color=shade, label=name) for name, shade in shades.items()]
    for data in dict.fromkeys(table["data"]):
        key: dict[str, Any] = {"linestyle": DATA[data].line, "label": DATA[data].label}
        handles.append(Line2D([], [], color=style.GREY, **key))
    figure.legend(handles=handles, loc="outside lower center", ncols=2 if max(map(len, shades)) > 30 else 3)
    return figure


def fit_colours(names: Iterable[str]) -> dict[str, str]:
    """Give every fit a shade of its family's colour; a fit is named `family-...`, after its hook where there are "
    "many."""
    members: dict[str, list[str]] = {}
    for name in names:
        members.setdefault(name.split(" ")[-1].split("-")[0], []).append(name)
    shades: dict[str, str] = {}
    for family, fits in members.items():
        shades.update(zip(fits, style.shades(style.colour(family), len(fits)), strict=True))
    return shades


def training_curves_caption(tables: Tables) -> str:
    """Say how many fits were trained, and for how long."""
    table = tables["training_curves"]
    keys = [key for key in ("capture", "hook", "data", "fit") if key in table]
    ends = table.groupby(keys)["vectors"].max()
    trained = plural(len(ends), "sparse autoencoder")
    there = [DATA[data] for data in table["data"].unique() if data != "real"] if "data" in table else []
    nulls = [f"{kind.line_name}: {kind.what}" for kind in there]
    return (
        f"Training of {trained} on {counted(ends.unique())} vectors each: loss, fraction of variance unexplained "
        "(definition A), active latents per vector, and fraction of latents that are dead."
        + (f" Solid: real activations; {'; '.join(nulls)}." if nulls else "")
    )


def loss_recovered(tables: Tables) -> Figure:
    """Draw how much of the model's loss comes back when reconstructions replace activations."""
    fits = side_by_side(per_fit(tables["dictionary_metrics"]))
    shown = {m: t for m, t in RECOVERED.items() if m in fits}
    fits = fits[fits[list(shown)].notna().any(axis=1)]
    parts = [(name, rows, metric) for name, rows in places(fits) for metric in shown]
    figure, axes = panels(len(parts), height=3.0, columns=2)
    for ax, (name, rows, metric) in zip(axes, parts, strict=True):
        draw_against_l0(ax, rows, metric)
        ax.axhline(1, color=style.GREY, linewidth=0.8, linestyle=":")
        ax.set(title=name, ylabel=shown[metric])
    family_key(figure, fits)
    return figure


RECOVERED = {"ce_loss_recovered": "cross-entropy recovered", "kl_recovered": "KL divergence recovered"}


def loss_recovered_caption(tables: Tables) -> str:
    """Say what was spliced and what the numbers are relative to."""
    table = tables["dictionary_metrics"]
    rows = table[table["metric"].isin(RECOVERED)]
    return (
        f"What the model loses when the reconstructions of {plural(rows['fit'].nunique(), 'fit')} replace its "
        f"activations: "
        "1 is the undisturbed model (dotted), 0 the model with the activations set to zero. Evaluated on "
        f"{counted(rows['n_rows'].unique())} token positions of {counted(rows['n_documents'].unique())} documents; "
        f"bars "
        "are 95% intervals where the table holds them."
    )


def has_recovered(tables: Tables) -> bool:
    """Tell whether any fit was spliced into the model."""
    return bool(tables["dictionary_metrics"]["metric"].isin(RECOVERED).any())


def has_all_definitions(tables: Tables) -> bool:
    """Tell whether definition A can be set against another."""
    metrics = set(tables["dictionary_metrics"]["metric"])
    return "fvu_pooled" in metrics and bool(metrics & set(DEFINITIONS))


FIGURES = (
    FigureSpec(
        id="unexplained_variance",
        draw=unexplained_variance,
        tables=("dictionary_metrics",),
        section=SECTION,
        title="Unexplained variance against active latents",
        caption=unexplained_variance_caption,
    ),
    FigureSpec(
        id="variance_definitions",
        draw=variance_definitions,
        tables=("dictionary_metrics",),
        section=SECTION,
        title="Five definitions of unexplained variance",
        caption=variance_definitions_caption,
        has_rows=has_all_definitions,
    ),
    FigureSpec(
        id="loss_recovered",
        draw=loss_recovered,
        tables=("dictionary_metrics",),
        section=SECTION,
        title="Loss recovered by spliced reconstructions",
        caption=loss_recovered_caption,
        has_rows=has_recovered,
    ),
    FigureSpec(
        id="training_curves",
        draw=training_curves,
        tables=("training_curves",),
        section=SECTION,
        title="Training of the sparse autoencoders",
        caption=training_curves_caption,
    ),
)
