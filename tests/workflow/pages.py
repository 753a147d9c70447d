"""What can be tested of a Markdown page: its code blocks, its links and its headings.

markdown-it-py reads them as a code host does."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "config" / "README.md", *DOCS]
MARK = re.compile(r"<!-- test: ([a-z ]+): .+ -->\s*")


@dataclass(frozen=True)
class Snippet:
    """A fenced code block; `mark` is what a comment above it says of how it is tested, empty where there is none."""

    page: Path
    line: int
    language: str
    text: str
    mark: str

    @property
    def place(self) -> str:
        """Page and line, for messages."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


@cache
def tokens(page: Path) -> list[Token]:
    """Parse a page."""
    return MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8"))


def snippets(page: Path) -> list[Snippet]:
    """List the code blocks of a page in order."""
    found, above = [], ""
    for token in tokens(page):
        if token.type in ("fence", "code_block"):
            assert token.map
            found.append(Snippet(page, token.map[0] + 1, token.info.strip(), token.content, _mark(above)))
        above = token.content if token.type == "html_block" else ""
    return found


def _mark(comment: str) -> str:
    match = MARK.fullmatch(comment)
    return match[1] if match else ""


def inline(page: Path) -> Iterator[Token]:
    """Yield what stands in the text of a page: links, images, words."""
    for token in tokens(page):
        yield from token.children or ()


def links(page: Path) -> list[str]:
    """List the targets of links and images that are no addresses."""
    found = [str(token.attrs.get("href") or token.attrs.get("src")) for token in inline(page) if token.attrs]
    return [target for target in found if not re.match(r"[a-z]+:", target)]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as code hosts name them."""
    found, seen = set(), Counter[str]()
    parsed = tokens(page)
    for opening, content in itertools.pairwise(parsed):
        if opening.type == "heading_open":
            words = "".join(child.content for child in content.children or ())
            name = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
            found.add(f"{name}-{seen[name]}" if seen[name] else name)
            seen[name] += 1
    return found
