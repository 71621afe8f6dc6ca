"""A real server, and its front end in a real browser: `page` is a fresh page of it, at rest."""

import os
import sys
from pathlib import Path

import pytest

COMFYUI = os.environ.get("COMFYUI_DIR")

if COMFYUI:
    sys.path[:0] = [str(Path(__file__).parents[1] / "host"), str(Path(__file__).parent)]
    from pages import BROWSER, NAMES, launch, server_in, to_empty_graph
else:
    collect_ignore_glob = ["test_*.py"]


def pytest_report_header() -> str:
    if not COMFYUI:
        return "browser tests: NOT RUN, COMFYUI_DIR is not set"
    return (
        f"browser tests: {BROWSER}" if BROWSER else "browser tests: NOT RUN, there is no Chromium or Chrome on the PATH"
    )


@pytest.fixture(scope="package")
def server(tmp_path_factory):
    if not BROWSER:
        pytest.skip(f"no browser on the PATH; wanted is one of {', '.join(NAMES)}")
    with server_in(tmp_path_factory.mktemp("web")) as running:
        yield running


@pytest.fixture(scope="module")  # while it lives its event loop runs, beside which host tests start none
def browser(server):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, server):
    """An empty graph; a test fails if the page throws, or complains about this pack."""
    errors = []
    page = browser.new_page(viewport={"width": 1600, "height": 1000})
    page.on("pageerror", lambda error: errors.append(str(error)))

    def listen(message):
        ours = any("mm-diff" in text for text in (message.text, message.location["url"]))
        asked_in_vain = message.text.startswith("Failed to load resource")  # a help page in the user's language
        if message.type in ("error", "warning") and ours and not asked_in_vain:
            errors.append(message.text)

    page.on("console", listen)
    to_empty_graph(page, server.url)
    yield page
    page.close()
    assert not errors, errors
