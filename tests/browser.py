"""Headless Chromium, the system's own, for tests of the page: nothing is downloaded, and every request and error is noted."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, sync_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium or Chrome on this machine")
SCREENS = {"desktop": (1280, 900), "phone": (390, 844), "small phone": (320, 568)}
CONTROLS = "a[href], button, select, input, summary, [tabindex='0']"


@dataclass
class Visit:
    """A page that was opened, and what happened there."""

    page: Page
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def open_explorers(self) -> None:
        """Open everything that folds."""
        self.page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        filled = self.page.locator("details.explore .choices")
        filled.nth(self.page.locator("details.explore").count() - 1).wait_for(state="attached")

    def overflow(self) -> int:
        """Return by how many pixels the page is wider than the window."""
        return self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")

    def violations(self) -> list[str]:
        """Return what axe-core finds, with the first place of each."""
        found = Axe().run(self.page).response["violations"]
        return [f"{v['impact']}: {v['id']}: {v['nodes'][0]['html'][:200]}" for v in found]

    def unreachable(self) -> list[str]:
        """Return the visible controls that Tab does not reach."""
        listed = f"[...document.querySelectorAll({CONTROLS!r})].filter((e) => e.checkVisibility())"
        count = self.page.evaluate(f"window.waiting = new Set({listed}); window.waiting.size")
        for _ in range(count + 5):
            self.page.keyboard.press("Tab")
            self.page.evaluate("window.waiting.delete(document.activeElement)")
        return self.page.evaluate("[...window.waiting].map((e) => e.outerHTML.slice(0, 120))")


@contextmanager
def visit(path: Path, screen: str = "desktop", scheme: str = "light", scripts: bool = True) -> Iterator[Visit]:
    """Open a file in a fresh browser."""
    width, height = SCREENS[screen]
    with sync_playwright() as driver:
        # Chromium's own sandbox cannot start for root, as tests run in containers.
        sandbox = hasattr(os, "geteuid") and os.geteuid() != 0
        browser = driver.chromium.launch(executable_path=CHROMIUM, chromium_sandbox=sandbox)
        page = browser.new_page(
            viewport={"width": width, "height": height}, color_scheme=scheme, java_script_enabled=scripts
        )
        seen = Visit(page)
        page.on("console", lambda message: seen.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: seen.errors.append(str(error)))
        page.on("dialog", lambda dialog: (seen.errors.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: seen.requests.append(request.url))
        page.goto(path.as_uri())
        seen.requests.remove(path.as_uri())
        yield seen
        browser.close()
