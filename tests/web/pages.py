"""What tests, and the pictures of screenshots.py, do with a page of the front end."""

import json
import shutil
from pathlib import Path

from live_server import ROOT, Server
from PIL import Image

NAMES = ("chromium", "google-chrome", "google-chrome-stable", "chromium-browser", "chrome")
BROWSER = next((found for name in NAMES if (found := shutil.which(name))), None)
SEEN = {"Comfy.TutorialCompleted": True, "Comfy.OnboardingCoachmarks.Seen": ["appMode", "firstRun"]}
"""Settings of somebody to whom the page has shown its own introductions, which cover what is below."""
PLAIN = "plain.png"
"""A subject on a plain ground, which Encode Subject cuts out, and says so."""


def server_in(folder: Path) -> Server:
    """A server to be started in an empty folder, with two pictures in its input folder: one with a busy ground, and
    PLAIN."""
    (folder / "input").mkdir()
    shutil.copy(ROOT / "assets" / "cat.jpg", folder / "input" / "example.png")
    subject = Image.open(ROOT / "mmdiff_core" / "demo" / "subjects" / "owl.png")
    photo = Image.new("RGB", subject.size, "lightgrey")
    photo.paste(subject, mask=subject)
    photo.save(folder / "input" / PLAIN)
    settings = folder / "user" / "default" / "comfy.settings.json"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps(SEEN))
    return Server(folder)


def launch(playwright):
    """A browser without a window."""
    return playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])


def to_empty_graph(page, url: str) -> None:
    """Open the front end in the classic renderer, which the server remembers, with nothing on the graph."""
    page.set_default_timeout(300_000)  # a busy machine takes its time
    page.goto(url)
    page.wait_for_function("window.app?.vueAppReady && app.extensionManager?.workflow?.activeWorkflow")
    vue_nodes(page, False)
    load(page, {"nodes": [], "links": [], "version": 0.4})


def template(name: str) -> dict:
    """A shipped workflow."""
    return json.loads((ROOT / "example_workflows" / f"{name}.json").read_text())


def load(page, graph: dict, name: str | None = None) -> None:
    """Open a graph, in a tab of a name."""
    page.evaluate("([graph, name]) => app.loadGraphData(graph, true, true, name)", [graph, name])


def vue_nodes(page, on: bool) -> None:
    """Choose the renderer: the classic canvas, or Nodes 2.0."""
    page.evaluate("on => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', on)", on)


def look_at(page, kind: str) -> None:
    """The first node of a kind in the middle of the page, a pixel of the graph for one of the page."""
    page.evaluate(
        """kind => {
            app.canvas.ds.scale = 1
            app.canvas.centerOnNode(app.graph.nodes.find((node) => node.type === kind))
            app.canvas.setDirty(true, true)
        }""",
        kind,
    )


def at_rest(page) -> None:
    """Wait until every picture is there, and no node has moved or grown for half a second of frames."""
    page.evaluate(
        """() => new Promise((resolve) => {
            const pictures = () => [...document.images, ...app.graph.nodes.flatMap((node) => node.imgs ?? [])]
            const places = () => JSON.stringify(app.graph.nodes.map((node) => {
                const shown = document.querySelector(`[data-node-id="${node.id}"]`)?.getBoundingClientRect()
                return [...node.pos, ...node.size, shown?.height]
            }))
            let last = "", still = 0
            const look = () => {
                const now = places()
                still = now === last && pictures().every((one) => one.complete) ? still + 1 : 0
                last = now
                if (still === 30) resolve()
                else requestAnimationFrame(look)
            }
            look()
        })"""
    )


def run(page) -> None:
    """Queue the graph as the Run button does, and wait for the end. Raises with the host's message, or with what it
    refuses to run."""
    page.evaluate(
        """() => new Promise((resolve, reject) => {
            const failed = (event) => reject(event.detail.exception_message)
            app.api.addEventListener("execution_success", resolve, { once: true })
            app.api.addEventListener("execution_error", failed, { once: true })
            app.queuePrompt(0).then((taken) => taken || reject(JSON.stringify(app.lastNodeErrors)))
        })"""
    )


def overlaps(page) -> list[str]:
    """Which nodes lie over which, titles included, in either renderer."""
    return page.evaluate(
        """() => {
            const rectangles = app.graph.nodes.map((node) => {
                const shown = document.querySelector(`[data-node-id="${node.id}"]`)?.getBoundingClientRect()
                const scale = app.canvas.ds.scale
                const high = shown ? shown.height / scale - 30 : node.size[1]
                return { name: node.title, left: node.pos[0], right: node.pos[0] + node.size[0],
                         top: node.pos[1] - 30, bottom: node.pos[1] + high }
            })
            return rectangles.flatMap((a, i) => rectangles.slice(i + 1)
                .filter((b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom)
                .map((b) => `${a.name} over ${b.name}`))
        }"""
    )
