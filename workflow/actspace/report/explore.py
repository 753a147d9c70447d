"""What readers can look up beneath a figure: every line behind it, also those for which the figure has no panel.

Views come from the tables that the figures are drawn from, and are what the page's script reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import to_hex

from actspace.probes.summary import best_hook
from actspace.report import style
from actspace.report.figures_dictionaries import DATA, fit_colours
from actspace.report.figures_perturbations import PATH_LABELS, READOUT_LABELS, look
from actspace.report.spec import Tables
from actspace.report.summaries import curve_summary, groups

DIGITS, X_DIGITS = 3, 6
"""Significant digits of values, and of where they are; all digits are in the tables."""
LAYER = "layer (0: embedding)"
DASHES: dict[str, list[int]] = {"-": [], "--": [7, 4], ":": [2, 3], "-.": [7, 3, 2, 3]}
TRAINING = {"loss": "loss", "fvu_pooled": "variance unexplained (A)", "l0": "L0", "fraction_dead": "fraction dead"}


@dataclass(frozen=True)
class View:
    """Lines over x, of which those are shown that agree with what a reader chooses.

    Parameters
    ----------
    rows : DataFrame
        One row per point: `x`, `value`, `low` and `high`; `line`, its name for readers; `colour` and `dash`, as
        matplotlib writes them; and a column for each choice.
    choices : the columns to choose from
    x, y : axis labels; without them, what is chosen in the second and in the first of the choices
    interval : what `low` and `high` are
    names : what x = 0, 1, ... stand for in a view that is a matrix, with a row for every line
    start : what is chosen at first, if it is not the first value
    """

    rows: pd.DataFrame
    choices: Sequence[str]
    x: str = ""
    y: str = ""
    interval: str = "95% interval"
    logarithmic: bool = False
    names: Sequence[str] = ()
    start: Mapping[str, str] = field(default_factory=dict)

    def encoded(self) -> dict[str, Any]:
        """Return the view for JSON.

        Returns
        -------
        dict; `series` has, for every line of every choice: the places of the choices in `choices`, that of the line in
        `lines`, that of its x in `xs`, and its values, low and high ends, with None for what is missing
        """
        values = {name: list(dict.fromkeys(self.rows[name])) for name in self.choices}
        looks = self.rows.drop_duplicates("line")
        lines = {
            name: [name, colour, _dashes(dash)] for name, colour, dash in looks[["line", "colour", "dash"]].to_numpy()
        }
        places: dict[tuple[float | None, ...], int] = {}
        series = []
        for (*chosen, line), points in groups(self.rows.sort_values("x", kind="stable"), *self.choices, "line"):
            at = [values[name].index(value) for name, value in zip(self.choices, chosen, strict=True)]
            place = places.setdefault(tuple(_numbers(points["x"], X_DIGITS)), len(places))
            ends = [_numbers(points[end]) if points[end].notna().any() else [] for end in ("low", "high")]
            series.append([at, list(lines).index(line), place, _numbers(points["value"]), *ends])
        return {
            **{"x": self.x, "y": self.y, "interval": self.interval, "log": self.logarithmic, "names": list(self.names)},
            "choices": [[name, found] for name, found in values.items()],
            "start": [values[name].index(self.start.get(name, values[name][0])) for name in self.choices],
            **{"lines": list(lines.values()), "xs": [list(place) for place in places], "series": series},
        }


def views(tables: Tables) -> dict[str, dict[str, Any]]:
    """Return what can be looked up, by the id of the figure above it."""
    found = {figure: view(tables[table]) for figure, (table, view) in VIEWS.items() if len(tables.get(table, ()))}
    if len(curves := tables.get("perturbation_curves", ())):
        found |= {f"curves_{name}": perturbation_curves(rows) for name, rows in groups(curves, "experiment")}
    return {figure: view.encoded() for figure, view in found.items() if len(view.rows)}


def probe_layers(table: pd.DataFrame) -> View:
    """Every score of every probe over layers, from any training set to any test set."""
    rows = _named(table, "probe").assign(x=table["layer"])
    return View(_renamed(rows, metric="score", train_set="trained on", test_set="tested on"), PROBE_CHOICES, x=LAYER)


PROBE_CHOICES = ("score", "trained on", "tested on")


def generalization(table: pd.DataFrame) -> View:
    """The accuracy from set to set, at any layer."""
    table = table[table["metric"] == "accuracy"].sort_values("layer", kind="stable")
    tested = sorted(table["test_set"].unique())
    rows = table.assign(x=table["test_set"].map(tested.index), line=table["train_set"], colour=style.BLACK, dash="-")
    rows = _renamed(rows.assign(probe=_labels(table["probe"])), hook="hook point")
    start = {"hook point": best_hook(table)} if len(table) else {}
    return View(rows, ("hook point", "probe"), x="tested on", y="trained on", names=tested, start=start)


def probe_angles(table: pd.DataFrame) -> View:
    """The cosines of one direction with all others, over layers."""
    turned = table.rename(columns={"probe_a": "probe_b", "probe_b": "probe_a"})
    both = pd.concat([table, turned], ignore_index=True)
    rows = _named(both, "probe_b").assign(x=both["layer"], direction=_labels(both["probe_a"]))
    last = {"trained on": str(table["train_set"].iloc[-1])}
    return View(_renamed(rows, train_set="trained on"), ("direction", "trained on"), x=LAYER, y="cosine", start=last)


def dictionary_metrics(table: pd.DataFrame) -> View:
    """Every measure of every fit against its active latents."""
    fit = ["capture", "hook", "data", "fit"]
    l0 = table[table["metric"] == "l0"].set_index(fit)["value"].round(2).rename("x")
    rows = table[table["metric"] != "l0"].join(l0, on=fit).dropna(subset=["x", "value"])
    seeds = rows.groupby("family")["seed"].transform("nunique") > 1
    names = _labels(rows["family"]) + rows["n_latents"].map(", {:,} latents".format)
    rows = rows.assign(
        line=names.where(~seeds, names + ", seed " + rows["seed"].astype(str)),
        colour=rows["family"].map({name: style.colour(name) for name in rows["family"].unique()}),
        dash="-",
        measure=rows["metric"].str.replace("_", " "),
        data=rows["data"].map(lambda name: DATA[name].label),
        **{"hook point": rows["hook"] + " (" + rows["capture"] + ")"},
    )
    x = "active latents per token (L0)"
    return View(rows, ("measure", "hook point", "data"), x=x, logarithmic=True)


def training_curves(table: pd.DataFrame) -> View:
    """Every measure of every fit during its training."""
    there = {column: name for column, name in TRAINING.items() if column in table}
    fixed = ["fit", "hook", "data", "vectors"]
    rows = table.rename(columns=there).melt(fixed, list(there.values()), "measure").dropna(subset="value")
    colours = {fit: to_hex(shade) for fit, shade in fit_colours(dict.fromkeys(rows["fit"])).items()}
    rows = rows.assign(x=rows["vectors"], line=rows["fit"], colour=rows["fit"].map(colours), dash="-")
    rows = rows.assign(low=np.nan, high=np.nan, data=rows["data"].map(lambda name: DATA[name].label))
    return View(rows, ("measure", "hook", "data"), x="training vectors", interval="")


def perturbation_curves(curves: pd.DataFrame) -> View:
    """The median of every family of one experiment, for any read-out, path and site."""
    table = curve_summary(curves)
    rows = table[table["readout"].isin(READOUT_LABELS)].rename(columns={"position": "x", "median": "value"})
    rows = rows.rename(columns={"lower_quartile": "low", "upper_quartile": "high"})
    looks = {pair: look(table, *pair) for pair, _ in groups(rows, "base", "direction")}
    pairs = pd.Series(list(zip(rows["base"], rows["direction"], strict=True)), index=rows.index)
    for column, key in {"line": "label", "colour": "color", "dash": "linestyle"}.items():
        rows[column] = [looks[pair][key] for pair in pairs]
    rows = rows.assign(readout=rows["readout"].map(READOUT_LABELS), path=rows["path"].astype(str).map(PATH_LABELS))
    return View(_renamed(rows, readout="read-out"), ("read-out", "path", "site"), interval="quartiles")


VIEWS: dict[str, tuple[str, Callable[[pd.DataFrame], View]]] = {
    "probe_layers": ("probe_summary", probe_layers),
    "generalization": ("probe_summary", generalization),
    "probe_angles": ("probe_angles", probe_angles),
    "unexplained_variance": ("dictionary_metrics", dictionary_metrics),
    "training_curves": ("training_curves", training_curves),
}


def _named(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """Give every row the line of what its column names."""
    looks = {name: (style.label(name), style.colour(name), style.dash(name)) for name in rows[column].unique()}
    found = [looks[name] for name in rows[column]]
    return rows.assign(**dict(zip(("line", "colour", "dash"), zip(*found, strict=True), strict=True)))


def _labels(names: pd.Series) -> pd.Series:
    """Write names for readers, each worked out once."""
    return names.map({name: style.label(name) for name in names.unique()})


def _renamed(rows: pd.DataFrame, **columns: str) -> pd.DataFrame:
    """Rename columns, dropping those whose names they take."""
    return rows.drop(columns=[name for name in columns.values() if name in rows]).rename(columns=columns)


def _dashes(dash: Any) -> list[float]:
    """Return a line style of matplotlib as lengths of strokes and gaps."""
    return [float(length) for length in (DASHES[dash] if isinstance(dash, str) else dash[1])]


def _numbers(values: pd.Series, digits: int = DIGITS) -> list[float | None]:
    """Round to significant digits; what is not finite, JSON cannot hold."""
    return [float(f"{value:.{digits}g}") if np.isfinite(value) else None for value in values.astype(float)]
