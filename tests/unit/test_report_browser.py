"""The page as a reader meets it: in Chromium, on a desktop and on phones, light and dark, by mouse and by keyboard."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from test_report_synthetic import study_tables

from actspace import claims
from actspace.report import explore, page
from actspace.report.figures import FIGURES, available_figures
from browser import SCREENS, Visit, needs_chromium, visit

pytestmark = needs_chromium
HOSTILE = "</script><script>document.title = 'taken'</script><img src=x onerror=alert(1)>"
SHOWN = ("probe_layers", "generalization", "unexplained_variance", "training_curves", "curves_plateaus")


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    found = study_tables(n_prompts=2, n_draws=1)
    summary = found["probe_summary"]
    found["probe_summary"] = summary.replace({"train_set": {"cities": HOSTILE}, "test_set": {"cities": HOSTILE}})
    return found


@pytest.fixture(scope="module")
def path(tables, tmp_path_factory) -> Path:
    """A page with an interactive view of every kind, and hostile text wherever text comes from a study."""
    specs, views = available_figures(tables), explore.views(tables)
    small = (
        '<svg role="img" aria-label="drawing" viewBox="0 0 400 200" width="900"><rect width="400" height="9"/></svg>'
    )
    html = page.render(
        title=HOSTILE,
        model=HOSTILE,
        corpus=HOSTILE,
        date="2026-01-02",
        study={"note": HOSTILE},
        claims=claims.evaluate(tables).assign(note=HOSTILE),
        untested=claims.untested(tables),
        figures=[page.PageFigure(i, specs[i].section, specs[i].title, small, HOSTILE, views[i]) for i in SHOWN],
        tables=[page.PageTable("Numbers", "tables/numbers.csv", pd.DataFrame({"n": [0.5, None, -2e-9, float("inf"), 10.0], HOSTILE: HOSTILE}))],
        environment={"torch": "2.13.0"},
        provenance={"files": "12"},
        timings=pd.DataFrame([("sae", 2, 61.5, 40.0, 812.0)], columns=["rule", "jobs", "total_s", "longest_s", "max_rss_mb"]),
    )  # fmt: skip
    file = tmp_path_factory.mktemp("page") / "report.html"
    file.write_text(html, encoding="utf-8")
    return file


@pytest.fixture
def desktop(path):
    with visit(path) as seen:
        yield seen


MOST_TELLING = (("desktop", "light"), ("small phone", "dark"))
"""Screens and schemes of every run of the tests; the others are left to the slow ones."""


@pytest.mark.parametrize(
    ("screen", "scheme"),
    [
        pytest.param(screen, scheme, marks=() if (screen, scheme) in MOST_TELLING else pytest.mark.slow)
        for screen in SCREENS
        for scheme in ("light", "dark")
    ],
)
def test_the_page_is_quiet_fits_the_window_and_is_accessible(path, screen, scheme):
    with visit(path, screen, scheme) as seen:
        seen.open_explorers()
        assert seen.overflow() <= 0
        assert seen.violations() == []
        assert seen.errors == []
        assert seen.requests == []


@pytest.mark.parametrize("screen", ["desktop", "phone"])
def test_the_keyboard_reaches_every_control(path, screen):
    with visit(path, screen) as seen:
        seen.open_explorers()
        assert seen.unreachable() == []


def test_hostile_text_is_shown_as_text(desktop: Visit):
    desktop.open_explorers()
    assert desktop.page.title() == HOSTILE
    assert HOSTILE in desktop.page.locator("h1").inner_text()
    assert HOSTILE in desktop.page.locator("#fig-probe_layers option").all_inner_texts()
    assert desktop.page.locator("img").count() == 0


def test_no_script_but_the_bundled_one_runs(desktop: Visit):
    inject = "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.ran = 1'}))"
    assert desktop.page.evaluate(f"{inject}; window.ran") is None
    assert "Content Security Policy" in desktop.errors[0]


@pytest.mark.slow  # as other tests that run beside it would make it late
def test_the_page_opens_in_under_two_seconds(desktop: Visit):
    assert desktop.page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd") < 2000


def test_without_scripts_the_page_shows_figures_and_tables_alone(path):
    with visit(path, scripts=False) as seen:
        assert seen.page.locator("figure summary:visible, table button").count() == 0
        assert seen.page.locator("figure svg:visible").count() == len(SHOWN)


def column(seen: Visit, table: str) -> list[str]:
    return seen.page.locator(f"{table} tbody tr td:first-child").all_inner_texts()


def test_tables_sort_by_number_with_missing_values_last(desktop: Visit):
    table = "#tables table.sortable"
    head = desktop.page.locator(f"{table} th").first
    head.locator("button").click()
    assert column(desktop, table) == ["−2e-09", "0.5", "10", "∞", "–"]
    assert head.get_attribute("aria-sort") == "ascending"
    desktop.page.keyboard.press("Enter")
    assert column(desktop, table) == ["∞", "10", "0.5", "−2e-09", "–"]
    assert head.get_attribute("aria-sort") == "descending"


def shown_values(seen: Visit, figure: str) -> dict[str, str]:
    rows = seen.page.locator(f"#fig-{figure} .explore tbody tr")
    return {row.locator("th").inner_text(): row.locator("td").first.inner_text() for row in rows.all()}


def test_arrow_keys_move_along_a_curve_and_show_the_values_of_the_table(desktop: Visit, tables):
    desktop.page.locator("#fig-probe_layers summary").press("Enter")
    slider = desktop.page.locator("#fig-probe_layers input")
    slider.press("Home")
    slider.press("ArrowRight")
    assert slider.get_attribute("aria-valuetext") == "layer (0: embedding) 3"
    rows = tables["probe_summary"].query("layer == 3 and train_set == test_set == @HOSTILE").set_index("probe")["value"]
    shown = shown_values(desktop, "probe_layers")
    assert float(shown["mass-mean"]) == pytest.approx(rows["mass_mean"], rel=6e-3)
    assert float(shown["shuffled labels"]) == pytest.approx(rows["shuffled_labels"], rel=6e-3)


def test_the_pointer_moves_along_a_curve(desktop: Visit):
    desktop.page.locator("#fig-curves_plateaus summary").click()
    over = desktop.page.locator("#fig-curves_plateaus .u-over")
    over.hover(position={"x": 5, "y": 50})
    assert desktop.page.locator("#fig-curves_plateaus output").inner_text() == "0"
    assert set(shown_values(desktop, "curves_plateaus").values()) == {"0"}


def test_a_choice_shows_what_the_static_figure_has_no_panel_for(desktop: Visit, tables):
    desktop.page.locator("#fig-generalization summary").click()
    desktop.page.get_by_label("hook point").select_option("blocks.2.hook_resid_post")
    cell = desktop.page.locator("#fig-generalization tbody td").first.inner_text()
    rows = tables["probe_summary"].query("layer == 3 and probe == 'logistic_regression' and test_set == @HOSTILE")
    assert float(cell) == pytest.approx(rows["value"].iloc[0], rel=6e-3)


def test_a_choice_that_was_not_measured_says_so(desktop: Visit):
    desktop.page.locator("#fig-probe_layers summary").click()
    desktop.page.get_by_label("trained on").select_option("elements")
    assert desktop.page.locator("#fig-probe_layers").get_by_text("Not measured for this choice.").is_visible()


def test_figures_of_the_registry_that_have_a_view_exist():
    assert set(explore.VIEWS) <= set(FIGURES)
