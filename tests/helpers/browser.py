"""Pages as people see them: in Chromium, without a window."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = os.environ.get("ZTP_TEST_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
LOCAL = ("file:", "data:", "blob:")
SERIOUS = ("serious", "critical")


@dataclass
class View:
    """page: Playwright's. errors: of the console and of scripts, and answers of status 400 and
    more. warnings: of the console. requests: what it asks a network for."""

    page: Any
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def open(self, url: str) -> None:
        """Go there, until nothing more is loaded."""
        self.page.goto(url)
        self.page.wait_for_load_state("networkidle")

    def unfit(self) -> list[str]:
        """What axe finds that keeps people out, serious or worse."""
        from axe_playwright_python.sync_playwright import Axe

        found = Axe().run(self.page).response
        assert found["passes"]  # it has looked
        return [
            f"{each['id']}: {each['help']}: {each['nodes'][0]['html'][:200]}"
            for each in found["violations"]
            if each["impact"] in SERIOUS
        ]

    def overflow(self) -> int:
        """Pixels by which the page is wider than its window."""
        wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        return int(self.page.evaluate(wide))


class Browser:
    """Chromium, for many views."""

    def __init__(self, chromium: Any) -> None:
        self._chromium = chromium

    @contextmanager
    def view(
        self, url: str, *, width: int = 1280, dark: bool = False, **options: Any
    ) -> Iterator[View]:
        """A page opened in a window of its own. options: of Playwright's `new_page`."""
        page = self._chromium.new_page(
            viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light",
            **options,
        )  # fmt: skip
        view = View(page)
        said = {"error": view.errors, "warning": view.warnings}
        page.on("console", lambda message: said.get(message.type, []).append(message.text))
        page.on("pageerror", lambda error: view.errors.append(str(error)))
        page.on("response", lambda answer: view.errors.append(f"{answer.status} {answer.url}")
                if answer.status >= 400 else None)  # fmt: skip
        page.on("request", lambda request: view.requests.append(request.url)
                if not request.url.startswith(LOCAL) else None)  # fmt: skip
        try:
            view.open(url)
            yield view
        finally:
            page.close()


@contextmanager
def browser() -> Iterator[Browser]:
    """Chromium; the test is skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium")
    with playwright.sync_playwright() as started:
        # as root, as in containers, it has no sandbox to work in
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield Browser(chromium)
        chromium.close()
