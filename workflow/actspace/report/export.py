"""Figures as files: SVG for the page, PDF and PNG for papers; the same bytes for the same figure."""

from __future__ import annotations

import base64
import io
import logging
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from PIL import Image

from actspace.report import style

SVG, XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"
ET.register_namespace("", SVG[1:-1])
ET.register_namespace("xlink", XLINK[1:-1])
PAPER_DPI = 300
DIGITS = 2
"""Decimals of a coordinate in points: a hundredth is nothing that an eye can see."""
COLOURS_OF_IMAGES = 64
"""Clouds of lines need few colours; a palette takes a third of the bytes."""
logging.getLogger("fontTools").setLevel(logging.WARNING)  # it tells of every table of every font
REFERENCE = re.compile(r"#([^)\s]+)")
FONT = re.compile(r"font-family: [^;]*;?")
NOT_INHERITED = re.compile(r"(^|;)opacity:")


def to_svg(figure: Figure, figure_id: str, title: str, description: str) -> bytes:
    """Render a figure as a small SVG document.

    Parameters
    ----------
    figure_id : str
        Prefix of all ids inside: figures on one page share neither clip paths nor styles.
    title, description : str
        Read out by screen readers in place of the picture.

    Returns
    -------
    An XML document in UTF-8 without references to anything outside itself
    """
    with mpl.rc_context({"svg.hashsalt": figure_id}):
        drawn = _saved(figure, format="svg", metadata={"Date": None, "Creator": None})
    root = ET.fromstring(drawn)
    for metadata in root.findall(f"{SVG}metadata"):  # names addresses outside, and nothing needs it
        root.remove(metadata)
    for element in root.iter():
        _shorten(element)
    _share_styles(root, f"{figure_id}-svg")
    _rename_ids(root, figure_id)
    _dissolve_groups(root)
    _describe(root, figure_id, title, description)
    return ET.tostring(root, encoding="unicode").encode()


def to_pdf(figure: Figure, figure_id: str, title: str, description: str) -> bytes:
    """Render a figure as PDF for papers, with its fonts embedded; what is a picture on the page is a finer one here."""
    about = {"CreationDate": None, "Title": title, "Subject": description}
    return _saved(figure, format="pdf", dpi=PAPER_DPI, metadata=about)


def to_png(figure: Figure, figure_id: str, title: str, description: str) -> bytes:
    """Render a figure as PNG for papers and slides."""
    about = {"Software": None, "Title": title, "Description": description}
    return _saved(figure, format="png", dpi=PAPER_DPI, metadata=about)


def to_rst(figure: Figure, figure_id: str, title: str, description: str) -> bytes:
    """Write the caption as Snakemake reads it: as a template that leads to reStructuredText, in which names may hold anything."""
    marked = re.sub(r"([\\`*_|<>])", r"\\\1", description)
    return f"{{% raw %}}{marked}{{% endraw %}}\n".encode()


KINDS: dict[str, Callable[[Figure, str, str, str], bytes]] = {
    "svg": to_svg,
    "pdf": to_pdf,
    "png": to_png,
    "rst": to_rst,
}
"""What a figure is written as, by the ending of the file."""


def _saved(figure: Figure, **options: Any) -> bytes:
    buffer = io.BytesIO()
    with mpl.rc_context(style.RC):
        figure.savefig(buffer, facecolor="white", **options)
    # The first file settles the layout: the others are quicker, and place everything alike.
    figure.set_layout_engine("none")
    return buffer.getvalue()


def _shorten(element: ET.Element) -> None:
    """Write the numbers of an element in as few characters as they need."""
    element.tail = None
    if element.text and not element.text.strip():
        element.text = None
    for name, value in element.attrib.items():
        if name == "d":
            element.set(name, compact(value))
        elif name in ("x", "y", "width", "height", "transform"):
            element.set(name, re.sub(r"-?\d+\.\d+", lambda n: _number(round(float(n.group()) * 10**DIGITS)), value))
        elif value.startswith("data:image/png"):
            element.set(name, _smaller(value))
    if re.match(r"rotate\(-?0 ", element.get("transform", "")):
        del element.attrib["transform"]


def compact(path: str) -> str:
    """Write the absolute path of a drawing with relative commands, rounded without drift.

    Parameters
    ----------
    path : str
        Of the commands M, L, Q, C and z.
    """
    written, last, start, before = [], (0, 0), (0, 0), ""
    for command, text in re.findall(r"([MLQCz])([^MLQCz]*)", path):
        ends = [round(float(number) * 10**DIGITS) for number in text.split()]
        steps = [end - last[i % 2] for i, end in enumerate(ends)]
        letter = "l" if command == before == "M" else command.lower()
        written += ["" if letter == before and letter != "m" else letter, *map(_number, steps)]
        last = (ends[-2], ends[-1]) if ends else start
        start, before = (last if command == "M" else start), letter
    # Numbers need a blank between them unless a sign or a letter stands there.
    return re.sub(r" (?=[-a-z])|(?<=[a-z]) ", "", " ".join(filter(None, written)))


def _number(scaled: int) -> str:
    """Write a number that is given in units of its last decimal, without zeros that mean nothing."""
    text = f"{scaled / 10**DIGITS:.{DIGITS}f}".rstrip("0").rstrip(".")
    return re.sub(r"^(-?)0(?=\.)", r"\1", text) if text != "-0" else "0"


def _smaller(data: str) -> str:
    """Reduce an embedded picture to a palette."""
    picture = Image.open(io.BytesIO(base64.b64decode(data.partition(",")[2])))
    out = io.BytesIO()
    picture.quantize(COLOURS_OF_IMAGES, method=Image.Quantize.FASTOCTREE).save(out, format="png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def _share_styles(root: ET.Element, root_id: str) -> None:
    """Write every style once, as a class that counts in this figure alone."""
    classes: dict[str, str] = {}
    names = _names()
    for element in root.iter():
        clip = f"clip-path:{element.attrib.pop('clip-path')}" if "clip-path" in element.attrib else ""
        own = re.sub(r"([:;,]) ", r"\1", FONT.sub("", element.attrib.pop("style", "")))
        if look := ";".join(filter(None, (own, clip))):
            element.set("class", classes.get(look) or classes.setdefault(look, next(names)))
    looks = {name: look for look, name in classes.items()}
    for parent in root.iter(f"{SVG}g"):
        _lift_class(parent, looks)
    root.set("id", root_id)
    rules = [f"#{root_id}{{font-family:{style.FONTS};stroke-linejoin:round;stroke-linecap:butt}}"]
    rules += [f"#{root_id} .{name}{{{look}}}" for look, name in classes.items()]
    sheet = next(root.iter(f"{SVG}style"))
    sheet.attrib.clear()
    sheet.text = "".join(rules)


def _names() -> Iterator[str]:
    """Yield a, b, ..., z, a1, b1, ..."""
    for number in count():
        yield from (f"{letter}{number or ''}" for letter in "abcdefghijklmnopqrstuvwxyz")


def _lift_class(parent: ET.Element, looks: dict[str, str]) -> None:
    """Give a group the class that all its members share, unless they would be transparent as one."""
    shared = {child.get("class") for child in parent}
    if len(parent) < 2 or len(shared) > 1 or "class" in parent.attrib:
        return
    (name,) = shared
    if name and not NOT_INHERITED.search(looks[name]):
        parent.set("class", name)
        for child in parent:
            del child.attrib["class"]


def _rename_ids(root: ET.Element, figure_id: str) -> None:
    """Keep the ids that something refers to, short and with the figure's name before them."""
    texts = [value for element in root.iter() for value in element.attrib.values() if "#" in value]
    sheet = next(root.iter(f"{SVG}style"))
    used = set(REFERENCE.findall(" ".join(texts))) | set(re.findall(r"url\(#([^)]+)\)", sheet.text or ""))
    inside = [element for element in root.iter() if element is not root and "id" in element.attrib]
    short = {
        name: f"{figure_id}-{i}" for i, name in enumerate(e.attrib["id"] for e in inside if e.attrib["id"] in used)
    }

    def renamed(text: str) -> str:
        return REFERENCE.sub(lambda found: f"#{short.get(found.group(1), found.group(1))}", text)

    for element in inside:
        name = element.attrib.pop("id")
        if name in short:
            element.set("id", short[name])
    for element in root.iter():
        element.attrib.update({name: renamed(value) for name, value in element.attrib.items() if "#" in value})
    sheet.text = re.sub(r"url\(#[^)]+\)", lambda found: renamed(found.group()), sheet.text or "")


def _dissolve_groups(parent: ET.Element) -> None:
    """Put what groups without attributes hold in their place."""
    members: list[ET.Element] = []
    for child in parent:
        _dissolve_groups(child)
        members += list(child) if child.tag == f"{SVG}g" and not child.attrib else [child]
    parent[:] = members


def _describe(root: ET.Element, figure_id: str, title: str, description: str) -> None:
    """Give the picture a title and a description."""
    root.attrib |= {"role": "img", "aria-labelledby": f"{figure_id}-title {figure_id}-description"}
    for place, (tag, text) in enumerate((("title", title), ("desc", description))):
        named = ET.Element(f"{SVG}{tag}", id=f"{figure_id}-{'title' if tag == 'title' else 'description'}")
        named.text = text
        root.insert(place, named)
