"""The report of a study: one HTML file that needs nothing else: no network, and no script to be read or printed."""

from __future__ import annotations

import base64
import json
import math
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from actspace.errors import StudyError
from actspace.report import assets

HERE = Path(__file__).parent
BADGES = {"holds": "✓", "fails": "✗", "undecided": "?"}


class PageFigure(NamedTuple):
    """A figure as the page shows it; `svg` as `FigureSpec.svg` returns it, `view` as `explore.views`."""

    id: str
    section: str
    title: str
    svg: str
    caption: str
    view: Mapping[str, Any] | None = None


class PageTable(NamedTuple):
    """A table as the page shows it: where its CSV file lies, with the Parquet file beside it, and its first rows."""

    title: str
    csv: str
    preview: pd.DataFrame

    @property
    def parquet(self) -> str:
        """Where its Parquet file lies."""
        return str(Path(self.csv).with_suffix(".parquet"))


def render(
    *,
    title: str,
    model: str,
    corpus: str,
    date: str,
    study: Mapping[str, Any],
    claims: pd.DataFrame,
    figures: Sequence[PageFigure],
    tables: Sequence[PageTable],
    environment: Mapping[str, Any],
    provenance: Mapping[str, Any],
    untested: pd.DataFrame | None = None,
    timings: pd.DataFrame | None = None,
) -> str:
    """Render the report of a study.

    Parameters
    ----------
    title, model, corpus, date : str
        Shown at the top; the date is the caller's, so that the page can be made again byte by byte.
    study, environment, provenance : mapping
        The resolved config, where it ran, and what made the results; nested mappings and sequences of plain values.
    claims, untested : DataFrame
        As `claims.evaluate` and `claims.untested` return them.
    figures, tables : sequence
        In the order of the page; figures are grouped by section.
    timings : DataFrame
        As `timings.summed` returns it.

    Returns
    -------
    str, one self-contained HTML document; every text is escaped

    Raises
    ------
    StudyError
        If an SVG holds a script or refers to something outside itself, if a link is not relative, or if two figures
        share an id.
    """
    ids = [figure.id for figure in figures]
    if len(ids) != len(set(ids)):
        raise StudyError(f"report: two figures share an id ({', '.join(sorted(ids))}); give each its own")
    return template(HERE, "page.html.j2").render(
        title=title,
        model=model,
        corpus=corpus,
        date=date,
        style=Markup(assets.style()),
        script=Markup(script := assets.script()),
        policy=assets.policy(script),
        badges=BADGES,
        claims=claims.to_dict("records"),
        tally={verdict: int((claims["verdict"] == verdict).sum()) for verdict in BADGES},
        untested=[] if untested is None else untested.to_dict("records"),
        figures={figure.id: figure for figure in figures},
        sections=list(dict.fromkeys(figure.section for figure in figures)),
        tables=[(table, list(table.preview.columns), table.preview.to_numpy(dtype=object)) for table in tables],
        settings=list(flattened(study)),
        environment=list(flattened(environment)),
        provenance=list(flattened(provenance)),
        timings=() if timings is None else timings,
    )


def template(folder: Path, name: str) -> Template:
    """Return the template of a page: what is put into it is escaped, and has to be there."""
    templates = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters.update(number=number, inline=inline_svg, link=relative_link, slug=slug, packed=packed)
    return templates.get_template(name)


def number(value: object, digits: int = 4) -> str:
    """Write a cell for readers: a few significant digits, a dash for what is missing, ∞ for infinity."""
    if value is None or value is pd.NA or value is pd.NaT:
        return "–"
    if isinstance(value, Markup):
        return value
    if isinstance(value, float):
        if math.isnan(value):
            return "–"
        if math.isinf(value):
            return "∞" if value > 0 else "−∞"
        return f"{value:.{digits}g}".replace("-", "−", 1 if value < 0 else 0)
    return str(value)


def marked(before: str, token: str, after: str) -> Markup:
    """Return a piece of text for a cell, with a token in it marked; everything is escaped, line ends are shown."""
    parts = (part.replace("\n", "⏎") for part in (before, token, after))
    return Markup("{}<mark>{}</mark>{}").format(*parts)


def packed(view: Mapping[str, Any]) -> str:
    """Write a view as JSON, compressed to a third, in letters that mean nothing in HTML."""
    text = json.dumps(view, allow_nan=False, separators=(",", ":"))
    return base64.b64encode(zlib.compress(text.encode(), level=9)).decode()


def slug(text: str) -> str:
    """Turn a heading into the name of an anchor."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def relative_link(target: str) -> str:
    """Return a link to a file beside or below the page, quoted for an address."""
    if target.startswith(("/", "\\")) or ":" in target:
        raise StudyError(f"report: the link {target!r} is not relative to the page; give a path such as 'tables/x.csv'")
    return quote(target)


def inline_svg(svg: str) -> Markup:
    """Return an SVG document as a part of the page, without its XML declaration.

    Raises
    ------
    StudyError
        If it holds a script or foreign HTML, or loads anything that is not inside it.
    """
    found = re.search(r"<\s*(script|foreignObject|iframe|style\s[^>]*src)|\son\w+\s*=|javascript:", svg, re.IGNORECASE)
    outside = re.search(r"""(?:href|src)\s*=\s*["'](?!#|data:image/png)|url\(\s*["']?(?!#)|@import""", svg)
    if found or outside:
        what = (found or outside).group(0).strip()  # type: ignore[union-attr]
        raise StudyError(f"report: a figure's SVG holds {what!r}; only drawings that need nothing else can be shown")
    return Markup(re.sub(r"<\?xml.*?\?>\s*", "", svg, flags=re.DOTALL))


def flattened(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield each plain setting with its dotted path; a list of plain values stays on one line."""
    for key, value in settings.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from flattened(value, f"{path}.")
        elif isinstance(value, (list, tuple)) and any(isinstance(item, (Mapping, list, tuple)) for item in value):
            yield from flattened({str(i): item for i, item in enumerate(value)}, f"{path}.")
        elif isinstance(value, (list, tuple)):
            yield path, ", ".join(str(item) for item in value) or "none"
        else:
            yield path, "none" if value is None or value == {} else str(value)
