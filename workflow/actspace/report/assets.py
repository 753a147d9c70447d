"""Style and script of the page: ours, and those of the library that draws curves; no other script may run in the page."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

HERE = Path(__file__).parent
STYLES = ("vendor/uPlot.min.css", "page.css")
LICENCE = "vendor/uPlot.LICENSE.txt"
SCRIPTS = ("vendor/uPlot.iife.min.js", "page.js")


def style() -> str:
    """Return all styles as one text."""
    return "\n".join(map(_text, STYLES))


def script() -> str:
    """Return all scripts as one text, after the licence that the library wants to be kept with it."""
    return "\n".join([f"/* uPlot:\n{_text(LICENCE)}*/", *map(_text, SCRIPTS)])


def policy(script: str) -> str:
    """Return the page's content security policy: nothing is loaded, and of all scripts this one alone runs."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:"


def _text(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")
