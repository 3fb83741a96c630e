"""A headless browser for the page's tests, and what a visit should not have done."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Playwright

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    *("--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-sync"),
    *("--disable-component-update", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
)
WEBGPU = "WebGPU"
"""The 3D viewer tries it first and says so when there is none; it then takes WebGL."""


@contextmanager
def launched(driver: Playwright) -> Iterator[Browser]:
    """A browser with software WebGL, or a skip where there is none."""
    path = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if path is None:
        pytest.skip("needs Chromium (Debian: apt-get install chromium)")
    browser = driver.chromium.launch(executable_path=path, args=list(FLAGS))
    try:
        yield browser
    finally:
        browser.close()


class Visit:
    """One visitor: a context of their own, whose requests and errors are noted."""

    def __init__(self, browser: Browser, url: str, **context: Any) -> None:
        context = {"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce", **context}
        self._context = browser.new_context(**context)
        self.url = url
        self.errors: list[str] = []
        self.outside: list[str] = []
        self.page: Page = self._context.new_page()
        self.page.set_default_timeout(30_000)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda line: self.errors.append(line.text) if line.type == "error" else None)
        self.page.on("request", lambda request: self._note(request.url))

    def _note(self, address: str) -> None:
        if not re.match(r"(data|blob):|https?://(127\.0\.0\.1|localhost)[:/]", address):
            self.outside.append(address)

    def open(self, query: str = "") -> Page:
        self.page.goto(self.url + query)
        self.page.wait_for_selector("#go")
        return self.page

    def close(self) -> None:
        self._context.close()

    def check_quiet(self) -> None:
        """It asked no other server for anything, and no script broke."""
        assert self.outside == []
        assert [error for error in self.errors if WEBGPU not in error] == []

    # ------------------------------------------------------------------------------------ doing

    def tab(self, name: str) -> None:
        """Open a tab, from the menu of those that have no room if need be."""
        tab = self.page.get_by_role("tab", name=name, exact=True).first
        if tab.is_visible():
            tab.click()
            return
        self.page.locator("#tabs .overflow-menu > button").click()
        self.page.locator("#tabs .overflow-dropdown").get_by_text(name, exact=True).click()

    def advanced(self) -> None:
        """Open the settings that are folded away.

        gradio makes fields when they are first shown, and what is typed into them in that very moment is lost: on a
        busy machine for a fifth of a second. No one can type as quickly; a test can.
        """
        self.page.locator("#advanced > button").click()
        self.page.wait_for_timeout(1000)

    def stop_in(self, title: str, patience_s: float) -> None:
        """Press Stop while the step of this title is being done."""
        now = self.page.locator("#live .steps li.now .title", has_text=title)
        now.wait_for(timeout=1000 * patience_s)
        self.page.locator("#stop").click()

    def notice(self, patience_s: float = 30) -> str:
        """Error that the page shows, wherever."""
        box = self.page.locator(".notice.error").first
        box.wait_for(timeout=1000 * patience_s)
        return box.inner_text()
