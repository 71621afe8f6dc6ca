"""The pictures of README and of the help pages: nodes and the App in the browser, after a run of the demo model.

    COMFYUI_DIR=~/ComfyUI ~/ComfyUI/.venv/bin/python tests/web/screenshots.py [words of the names]

writes them all, or those whose path has one of the words. Some help pages show a template's picture: make those first
(tests/host/thumbnails.py).
"""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "host"))

from live_server import ROOT, Server
from pages import at_rest, launch, load, look_at, run, server_in, template, to_empty_graph, vue_nodes
from PIL import Image

SHARP = 1.5  # pixels of the picture for one of the page
WIDTH = 1400  # of the App's, pixels
SUBJECTS = ROOT / "mmdiff_core" / "demo" / "subjects"
APP = "MM-Diff 1 - Draw My Subject (demo).app"
PAIR = "MM-Diff 4 - Two Subjects by Word (demo)"
PEOPLE = "MM-Diff 13 - Two People (SDXL)"
THUMBNAIL = (440, 282)
THUMBNAILS = {
    "ApplyAttention": "MM-Diff 5 - With and Without (demo)",
    "DemoSubject": APP,
    "EncodeSubject": "MM-Diff 14 - Several Photos of One Person (SDXL)",
    "LoadDemo": "MM-Diff 3 - One Subject (demo)",
    "LoadSubject": "MM-Diff 2 - Draw My Two Subjects (demo).app",
    "PlaceSubject": "MM-Diff 9 - Hires Fix with Regions (demo)",
    "SaveSubject": "MM-Diff 3 - One Subject (demo)",
}
"""Help pages that show the picture of a template."""


def picture(png: bytes) -> Image.Image:
    return Image.open(io.BytesIO(png)).convert("RGB")


def node(page, kind: str, size: tuple[int, int]) -> Image.Image:
    """The first node of a kind, of a size in pixels of the graph, in Nodes 2.0."""
    number = page.evaluate(
        """([kind, size]) => {
            const node = app.graph.nodes.find((one) => one.type === kind)
            node.setSize(size)
            return node.id
        }""",
        [kind, size],
    )
    look_at(page, kind)
    at_rest(page)
    return picture(page.locator(f'[data-node-id="{number}"]').screenshot())


def app_mode(page, server: Server) -> Image.Image:
    """The App with a picture of one's own and what came of it."""
    load(page, template(APP), APP)
    inputs = page.get_by_test_id("linear-widgets")
    inputs.locator("input[type=file]").set_input_files(SUBJECTS / "owl.png")
    inputs.locator("textarea").fill("a toy<|subj|> in the snow")
    inputs.locator("img[src*='owl']").wait_for()
    page.get_by_test_id("linear-run-button").get_by_role("button", name="Run").click()
    page.locator("img[src*='mm-diff_0']").locator("visible=true").first.wait_for()
    page.mouse.move(10, 600)
    page.get_by_text("Job queued").first.wait_for(state="hidden")
    at_rest(page)
    shown = picture(page.screenshot())
    return shown.resize((WIDTH, WIDTH * shown.height // shown.width), Image.Resampling.LANCZOS)


def binding(page, server: Server) -> Image.Image:
    load(page, template(PAIR))
    run(page)
    return node(page, "MMDiffBindSubjects", (430, 560))


def maps(page, server: Server) -> Image.Image:
    load(page, template(PAIR))
    run(page)
    return node(page, "MMDiffAttentionMaps", (430, 560))


def cast(page, server: Server) -> Image.Image:
    """What Check Cast shows of eight pictures, four in a row."""
    load(page, template("MM-Diff 7 - Keep Pictures with Everyone (demo)"))
    run(page)
    files = page.evaluate("app.nodeOutputs[app.graph.nodes.find((one) => one.type === 'MMDiffCheckCast').id].images")
    sheet, side = Image.new("RGB", (880, 440)), 220
    for number, file in enumerate(files):
        shown = picture(server.get("/view?filename={filename}&subfolder={subfolder}&type={type}".format(**file)))
        sheet.paste(shown.resize((side, side), Image.Resampling.LANCZOS), (side * (number % 4), side * (number // 4)))
    return sheet


def missing(kind: str) -> Callable[..., Image.Image]:
    """A node of a large model, where none of its files is there."""

    def shown(page, server: Server) -> Image.Image:
        load(page, template(PEOPLE))
        page.locator(".mmdiff-problem").first.wait_for()
        page.evaluate(
            """folder => {
                const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
                while (texts.nextNode()) texts.currentNode.data = texts.currentNode.data.replace(folder, "ComfyUI")
            }""",
            str(server.folder),
        )
        return node(page, kind, (330, 300))

    return shown


PICTURES = {
    "docs/app.jpg": app_mode,
    "docs/binding.png": binding,
    "docs/maps.jpg": maps,
    "js/docs/MMDiffBindSubjects.jpg": binding,
    "js/docs/MMDiffAttentionMaps.jpg": maps,
    "js/docs/MMDiffCheckCast.jpg": cast,
    "js/docs/MMDiffLoad.jpg": missing("MMDiffLoad"),
    "js/docs/MMDiffAnalyzeFace.jpg": missing("MMDiffAnalyzeFace"),
}


def save(shown: Image.Image, path: str) -> None:
    if path.endswith(".png"):
        shown.quantize(256).save(ROOT / path, optimize=True)
    else:
        shown.save(ROOT / path, quality=85)
    print(path, flush=True)


def main(words: list[str]) -> None:
    from playwright.sync_api import sync_playwright

    def wanted(path: str) -> bool:
        return not words or any(word in path for word in words)

    for kind, name in THUMBNAILS.items():
        path = f"js/docs/MMDiff{kind}.jpg"
        if wanted(path):
            with Image.open(ROOT / "example_workflows" / f"{name}.jpg") as opened:
                save(opened.resize(THUMBNAIL, Image.Resampling.LANCZOS), path)
    todo = {path: make for path, make in PICTURES.items() if wanted(path)}
    with tempfile.TemporaryDirectory() as folder, server_in(Path(folder)) as server, sync_playwright() as playwright:
        browser = launch(playwright)
        for path, make in todo.items():
            page = browser.new_page(viewport={"width": 1400, "height": 1000}, device_scale_factor=SHARP)
            to_empty_graph(page, server.url)
            vue_nodes(page, True)
            save(make(page, server), path)
            page.close()


if __name__ == "__main__":
    main(sys.argv[1:])
