"""The page of a whole study, with every figure and table, in Chromium."""

from __future__ import annotations

import pytest
from tiny import TinyStudy

from browser import needs_chromium, visit

pytestmark = needs_chromium


@pytest.mark.parametrize(
    ("screen", "scheme"), [("desktop", "light"), pytest.param("small phone", "dark", marks=pytest.mark.slow)]
)
def test_the_report_of_a_study_is_quiet_fits_the_window_and_is_accessible(finished: TinyStudy, screen, scheme):
    with visit(finished.results / "report.html", screen, scheme) as seen:
        seen.open_explorers()
        assert seen.overflow() <= 0
        assert seen.violations() == []
        assert seen.errors == []
        assert seen.requests == []


@pytest.mark.slow
def test_the_keyboard_reaches_every_control_of_the_report_of_a_study(finished: TinyStudy):
    with visit(finished.results / "report.html") as seen:
        seen.open_explorers()
        assert seen.unreachable() == []
