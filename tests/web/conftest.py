"""A real server, and its front end in a real browser: `page` is a fresh page of it, at rest."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

HOST = Path(__file__).parents[1] / "host"
COMFYUI = os.environ.get("COMFYUI_DIR")
NAMES = ("chromium", "google-chrome", "google-chrome-stable", "chromium-browser", "chrome")
BROWSER = next((found for name in NAMES if (found := shutil.which(name))), None)

if COMFYUI:
    sys.path[:0] = [str(HOST), str(Path(__file__).parent)]
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
    from live_server import ROOT, Server

    folder = tmp_path_factory.mktemp("web")
    (folder / "input").mkdir()
    shutil.copy(ROOT / "assets" / "cat.jpg", folder / "input" / "example.png")
    settings = folder / "user" / "default" / "comfy.settings.json"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps({"Comfy.TutorialCompleted": True}))  # or a new user's dialog covers the graph
    with Server(folder) as running:
        yield running


@pytest.fixture(scope="package")
def browser(server):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, server):
    """An empty graph; a test fails if the page throws, or complains about this pack."""
    errors = []
    page = browser.new_page(viewport={"width": 1600, "height": 1000})
    page.set_default_timeout(60_000)  # a busy machine takes its time
    page.on("pageerror", lambda error: errors.append(str(error)))

    def listen(message):
        ours = any("mm-diff" in text for text in (message.text, message.location["url"]))
        asked_in_vain = message.text.startswith("Failed to load resource")  # a help page in the user's language
        if message.type in ("error", "warning") and ours and not asked_in_vain:
            errors.append(message.text)

    page.on("console", listen)
    page.goto(server.url)
    page.wait_for_function("window.app?.vueAppReady && app.extensionManager?.workflow?.activeWorkflow")
    page.evaluate("app.extensionManager.setting.set('Comfy.VueNodes.Enabled', false)")  # the server remembers it
    page.evaluate("app.loadGraphData({nodes: [], links: [], version: 0.4})")
    yield page
    page.close()
    assert not errors, errors
