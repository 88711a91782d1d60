"""Pages as people see them: in Chromium, without a window."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((path for path in map(shutil.which, NAMES) if path), None)
LOCAL = ("file:", "data:", "blob:")
SERIOUS = ("serious", "critical")


@dataclass
class View:
    """page: Playwright's. complaints: what the browser's console says, and failed scripts.
    requests: what it asks a network for."""

    page: Any
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

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
        page.on("console", lambda message: view.complaints.append(message.text)
                if message.type in ("error", "warning") else None)  # fmt: skip
        page.on("pageerror", lambda error: view.complaints.append(str(error)))
        page.on("request", lambda request: view.requests.append(request.url)
                if not request.url.startswith(LOCAL) else None)  # fmt: skip
        try:
            page.goto(url)
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
