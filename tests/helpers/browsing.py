"""A real browser, headless: what it says on its console, what it is refused, what it shows."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

CHROMIUM = os.environ.get("ZTP_TEST_CHROMIUM") or shutil.which("chromium")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
WIDTHS = (1280, 400)
"""In pixels: a desk, and a phone."""


@dataclass
class Browser:
    """A page, with what went wrong on it."""

    page: Any
    errors: list[str] = field(default_factory=list)

    def open(self, address: str) -> None:
        """Go there, until nothing more is loaded."""
        self.page.goto(address)
        self.page.wait_for_load_state("networkidle")

    def widest(self) -> int:
        """By how many pixels the page is wider than its window."""
        over: int = self.page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        return over


@contextmanager
def browser(width: int) -> Iterator[Browser]:
    """Errors are what the console calls one, exceptions, and answers of status 400 and more."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": width, "height": 900})
        found = Browser(page)
        page.on("console", lambda m: found.errors.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: found.errors.append(str(error)))
        page.on(
            "response",
            lambda r: found.errors.append(f"{r.status} {r.url}") if r.status >= 400 else None,
        )
        yield found
        chromium.close()
