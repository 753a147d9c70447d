import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_report_synthetic import study_tables

from actspace import claims
from actspace.errors import StudyError
from actspace.provenance import sha256_of
from actspace.report import assets, explore, page
from actspace.report.figures import FIGURES

HOSTILE = "<script>alert('x')</script><img src=x onerror=alert(1)>"

TIMINGS = ["rule", "jobs", "total_s", "longest_s", "max_rss_mb"]


@pytest.fixture(scope="module")
def parts():
    tables = study_tables(n_prompts=2, n_draws=1)
    metrics = tables["dictionary_metrics"]
    tables["dictionary_metrics"] = metrics[metrics["family"] != "l1"]
    shown = [FIGURES[i] for i in ("unexplained_variance", "probe_layers", "comparisons")]
    views = explore.views(tables)
    return {
        "title": "Study: smoke",
        "model": "a small model",
        "corpus": "some text",
        "date": "2026-01-02",
        "study": {"seed": 0, "captures": {"early": {"hooks": ["blocks.1.hook_resid_pre", "blocks.9.hook_resid_post"]}}},
        "claims": claims.evaluate(tables),
        "untested": claims.untested(tables),
        "figures": [
            page.PageFigure(f.id, f.section, f.title, f.svg(tables), f.caption(tables), views.get(f.id)) for f in shown
        ],
        "tables": [page.PageTable("Toy", "tables/toy truth.csv", tables["toy_truth"].head(3))],
        "environment": {"torch": "2.13.0"},
        "provenance": {"cost": {"token passes": "12"}},
        "timings": pd.DataFrame([("sae", 2, 90.0, 61.5, 812.0)], columns=TIMINGS),
    }


@pytest.fixture(scope="module")
def html(parts):
    return page.render(**parts)


class Outline(HTMLParser):
    """Collects start tags, and notes an end tag that does not close the open element."""

    VOID = ("meta", "br", "img", "use", "path", "image", "stop")

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.wrong = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag in self.VOID:
            return
        if self.open.pop() != tag:
            self.wrong.append(tag)


def outline(html: str) -> Outline:
    parser = Outline()
    parser.feed(html)
    return parser


def test_page_is_balanced_and_loads_nothing(html):
    found = outline(html)
    assert found.wrong == []
    assert found.open == []
    names = {tag for tag, _ in found.tags}
    assert not names & {"link", "iframe", "object", "embed", "base"}
    for _, attributes in found.tags:
        for name in ("src", "href", "xlink:href"):
            target = attributes.get(name) or "#"
            assert target.startswith(("#", "data:image/png", "tables/")), target
    assert [a for tag, a in found.tags if tag == "script"] == [{}]
    assert "@import" not in html
    assert "url(http" not in html


def test_the_policy_lets_the_page_s_own_script_run_and_no_other(html):
    (policy,) = [a["content"] for _, a in outline(html).tags if a.get("http-equiv") == "Content-Security-Policy"]
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:"


def test_all_ids_are_unique_and_all_anchors_exist(html):
    found = outline(html)
    ids = [a["id"] for _, a in found.tags if "id" in a]
    assert len(ids) == len(set(ids))
    anchors = {a["href"][1:] for tag, a in found.tags if tag == "a" and a.get("href", "").startswith("#")}
    assert anchors <= set(ids)
    assert {"fig-unexplained_variance", "claim-plateaus", "settings", "provenance"} <= anchors | set(ids)


def test_each_claim_shows_verdict_in_words_value_interval_source_and_note(parts, html):
    text = re.sub(r"\s+", " ", html)
    for claim in parts["claims"].itertuples():
        card = next(part for part in text.split('<details class="claim">') if f'id="claim-{claim.id}"' in part)
        card = card.split("</details>")[0]
        assert re.search(rf'class="badge {claim.verdict}">.*?</span> {claim.verdict}</span>', card)
        assert page.number(claim.value, 3) in card
        assert page.number(claim.high, 3) in card
        assert "<b>Source</b>" in card


def test_claims_that_were_not_tested_are_listed_with_the_reason(html):
    assert "Not tested in this study" in html
    assert "no l1 fit to real activations" in html


def test_the_tally_counts_the_verdicts(parts):
    few = parts["claims"].head(3).assign(verdict=["holds", "holds", "undecided"])
    text = re.sub(r"\s+", " ", page.render(**{**parts, "claims": few}))
    assert "Of 3 claims that this study tests, <strong>2</strong> hold, <strong>0</strong> fail, " in text
    assert "<strong>1</strong> is undecided." in text


def test_settings_and_provenance_come_last_and_in_full(html):
    order = [
        'id="claims"',
        "<figure",
        *(f'id="{part}"' for part in ("settings", "environment", "provenance", "timings")),
    ]
    assert sorted(order, key=html.index) == order
    assert "captures.early.hooks" in html
    assert "blocks.1.hook_resid_pre, blocks.9.hook_resid_post" in html
    assert "cost.token passes" in html


def test_timings_are_summed_up_in_words_and_listed_by_rule(parts, html):
    section = re.sub(r"\s+", " ", html[html.index('<section id="timings">') :])
    assert "2 jobs, 1.5 minutes in all" in section
    assert "<tr><td>sae</td><td>2</td><td>90</td><td>61.5</td><td>812</td></tr>" in section.replace("> <", "><")
    bare = page.render(**{**parts, "timings": parts["timings"].head(0)})
    assert "timings" not in [a.get("id") for _, a in outline(bare).tags]


def test_the_same_study_gives_the_same_page(parts, html):
    assert page.render(**parts) == html


def test_a_page_without_results_still_stands(parts):
    bare = {**parts, "claims": claims.evaluate({}), "untested": None, "figures": [], "tables": [], "timings": None}
    assert "Of 0 claims" in page.render(**bare)


def test_hostile_text_is_escaped_everywhere(parts):
    view = {"lines": [["</script><img>" + HOSTILE]]}
    figure = parts["figures"][0]._replace(title=HOSTILE, caption=HOSTILE, section=HOSTILE, view=view)
    table = page.PageTable(HOSTILE, "tables/x.csv", pd.DataFrame({HOSTILE: [HOSTILE]}))
    evil = {
        **parts,
        **dict.fromkeys(("title", "model", "corpus", "date"), HOSTILE),
        "claims": parts["claims"].assign(title=HOSTILE, note=HOSTILE, source=HOSTILE, statistic=HOSTILE),
        "untested": parts["untested"].assign(title=HOSTILE, reason=HOSTILE),
        "figures": [figure],
        "tables": [table],
        "study": {HOSTILE: HOSTILE},
        "environment": {"x": HOSTILE},
        "provenance": {"x": [HOSTILE]},
        "timings": parts["timings"].assign(rule=HOSTILE),
    }
    found = outline(page.render(**evil))
    assert not [tag for tag, attributes in found.tags if tag == "img" or "onerror" in attributes]
    assert [attributes for tag, attributes in found.tags if tag == "script"] == [{}]


@pytest.mark.parametrize(
    "payload",
    [
        "<script>1</script>",
        '<rect onload="x()"/>',
        '<image xlink:href="https://example.org/x.png"/>',
        '<use href="other.svg#a"/>',
        "<style>@import 'x.css';</style>",
        '<rect fill="url(https://example.org/#a)"/>',
        "<foreignObject/>",
    ],
)
def test_an_svg_that_is_not_only_a_drawing_is_refused(payload):
    with pytest.raises(StudyError, match="figure's SVG holds"):
        page.inline_svg(f'<svg xmlns="http://www.w3.org/2000/svg">{payload}</svg>')


@pytest.mark.parametrize("target", ["javascript:alert(1)", "/etc/passwd", "https://example.org/x.csv", "//host/x.csv"])
def test_a_link_that_leaves_the_folder_of_the_page_is_refused(target):
    with pytest.raises(StudyError, match="not relative to the page"):
        page.relative_link(target)


def test_tables_link_their_csv_and_parquet_files_quoted(html):
    assert 'href="tables/toy%20truth.csv"' in html
    assert 'href="tables/toy%20truth.parquet"' in html


def test_bundled_files_are_those_that_the_readme_beside_them_names():
    folder = Path(assets.__file__).parent / "vendor"
    listed = dict(re.findall(r"^\| `([^`]+)` .*`([0-9a-f]{64})` \|$", (folder / "README.md").read_text(), re.MULTILINE))
    others = {"README.md", *(file.name for file in folder.glob("*.LICENSE.txt"))}
    assert {file.name: sha256_of(file) for file in folder.iterdir() if file.name not in others} == listed


def test_the_bundled_script_cannot_end_its_element():
    assert not re.search(r"</script|<!--|\r", assets.script(), re.IGNORECASE)


def test_two_figures_with_one_id_are_refused(parts):
    twice = [parts["figures"][0]] * 2
    with pytest.raises(StudyError, match="share an id"):
        page.render(**{**parts, "figures": twice})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *[(0.123456, "0.1235"), (-0.5, "−0.5"), (np.inf, "∞"), (-np.inf, "−∞"), (np.nan, "–"), (None, "–")],
        *[(12, "12"), ("a", "a"), (1e-9, "1e-09"), (-1e-9, "−1e-09"), (pd.NA, "–"), (np.float64(2.0), "2")],
    ],
)
def test_numbers_are_written_for_readers(value, text):
    assert page.number(value) == text


def test_settings_are_flattened_by_path():
    settings = {"a": {"b": [1, 2], "c": {}}, "d": None, "e": [{"f": True}], "g": []}
    assert list(page.flattened(settings)) == [
        *[("a.b", "1, 2"), ("a.c", "none"), ("d", "none"), ("e.0.f", "True"), ("g", "none")]
    ]
