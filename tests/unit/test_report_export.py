"""Figures as files: small, the same on every run, with fonts that publishers accept; colours for every reader."""

import io
import re
import xml.etree.ElementTree as ET
from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from actspace import stages
from actspace.report import export, style

ABOUT = ("lines", "Lines & <more>", "Two *lines* of a_b {{ x }}.")


def figure() -> Figure:
    with style.theme():
        drawn = Figure(figsize=(2, 1), layout="constrained")
        for number, ax in enumerate(drawn.subplots(1, 2)):
            ax.plot([0, 1, 2], [0, number, 0.3], marker="o", color=style.BLUE)
            ax.set_title("√(2 KL)")
    return drawn


@pytest.mark.parametrize(
    ("path", "shorter"),
    [
        ("M 10 20 L 30 20 L 30 50.126 ", "m10 20l20 0 0 30.13"),
        ("M 1 1 L 2 0.5 z M 5 5 L 4 4 ", "m1 1l1-.5zm4 4l-1-1"),
        ("M 0 0 Q 1 2 3 4 C 4 5 6 7 8 9 ", "m0 0q1 2 3 4c1 1 3 3 5 5"),
    ],
)
def test_paths_are_relative_and_end_where_they_ended(path, shorter):
    assert export.compact(path) == shorter


def test_rounding_does_not_add_up_along_a_path():
    steps = np.cumsum(np.full(1000, 0.0049))
    path = export.compact("M 0 0 " + " ".join(f"L {x:.4f} 0" for x in steps))
    numbers = [float(n) for n in re.findall(r"-?\.?\d+(?:\.\d+)?", path.replace("m0 0l", ""))]
    assert sum(numbers[::2]) == pytest.approx(4.9, abs=0.006)


def test_the_rules_name_the_kinds_of_files_that_are_written():
    assert tuple(export.KINDS) == stages.FIGURE_FILES


@pytest.mark.parametrize("kind", export.KINDS)
def test_the_same_figure_gives_the_same_bytes(kind):
    first, second = (export.KINDS[kind](figure(), *ABOUT) for _ in range(2))
    assert first == second


def test_one_drawing_gives_all_files_alike():
    drawn = figure()
    files = {kind: write(drawn, *ABOUT) for kind, write in export.KINDS.items()}
    assert Image.open(io.BytesIO(files["png"])).size == (600, 300)
    assert ET.fromstring(files["svg"]).get("viewBox") == "0 0 144 72"


def test_a_pdf_holds_its_fonts_as_truetype_and_no_date():
    pdf = export.to_pdf(figure(), *ABOUT)
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf
    assert b"CreationDate" not in pdf


def test_text_stays_text_and_styles_count_in_their_figure_alone():
    svg = export.to_svg(figure(), *ABOUT).decode()
    assert svg.count(">√(2 KL)</text>") == 2
    (sheet,) = re.findall(r"<style>(.*?)</style>", svg)
    rules = re.findall(r"([^{}]+){", sheet)
    assert len(rules) > 5
    assert all(rule.startswith("#lines-svg") for rule in rules)
    assert "style=" not in svg


def test_a_caption_is_text_for_snakemake_whatever_it_holds():
    jinja = pytest.importorskip("jinja2")
    docutils = pytest.importorskip("docutils.core")
    rst = jinja.Environment().from_string(export.to_rst(figure(), *ABOUT).decode()).render()
    body = docutils.publish_parts(rst, writer="html")["body"]
    assert body.strip() == "<p>Two *lines* of a_b {{ x }}.</p>"


# Machado, Oliveira & Fernandes (2009), severity 1, on linear RGB.
DEFICIENCIES = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
PALETTE = [getattr(style, n) for n in ("BLACK", "ORANGE", "SKY", "GREEN", "BLUE", "VERMILLION", "PURPLE", "GREY")]
LAB = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def linear(colour: str) -> np.ndarray:
    rgb = np.array(to_rgb(colour))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    """Return CIE L*a*b* of linear RGB, by its definition."""
    ratio = (LAB @ rgb.clip(0, 1)) / LAB.sum(1)
    f = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_any_two_colours_differ_for_colour_blind_readers(deficiency):
    seen = {colour: lab(np.array(DEFICIENCIES[deficiency]) @ linear(colour)) for colour in PALETTE}
    distances = {pair: float(np.linalg.norm(seen[pair[0]] - seen[pair[1]])) for pair in combinations(PALETTE, 2)}
    # A difference of 2.3 is just noticeable side by side; thin lines need several times that.
    assert min(distances.values()) > 8, min(distances, key=distances.__getitem__)
