"""The whole path of somebody new: a picture of their own, Run, the picture saved, and dropped back another day."""

import io
import re

import numpy as np
import pytest
from live_server import ROOT
from pages import load, run, template
from PIL import Image, ImageDraw

CAT = ROOT / "assets" / "cat.jpg"


def jpg() -> Image.Image:
    return Image.open(CAT).convert("RGB")


def transparent() -> Image.Image:
    return Image.open(ROOT / "mmdiff_core" / "demo" / "subjects" / "penguin.png").convert("RGBA")


def painted() -> Image.Image:
    """As the page's mask editor saves it: what was painted over is transparent."""
    picture = jpg().convert("RGBA")
    opacity = Image.new("L", picture.size, 255)
    wide, high = picture.size
    ImageDraw.Draw(opacity).ellipse((wide // 4, high // 4, 3 * wide // 4, 3 * high // 4), fill=0)
    picture.putalpha(opacity)
    return picture


def test_what_readme_says_to_search_shows_the_first_template_first(page):
    """Not so by "mm-diff": the page knows no more of a pack's templates than names, and the shortest wins."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8").replace("\n", " ")
    tab, searched, name = re.search(r"\*(\w+)\* in the sidebar, search \*(.+?)\*\. \*\*(.+?)\*\*", readme).groups()
    page.locator(".side-bar-button", has_text=tab).click()
    page.get_by_role("dialog").get_by_role("textbox").fill(searched)
    cards = page.locator("[data-testid^='template-workflow-']")
    page.wait_for_function(
        "name => document.querySelector(`[data-testid^='template-workflow-']`)?.textContent.includes(name)", arg=name
    )
    cards.first.click()
    page.get_by_text("what to draw (<|subj|>: my picture)", exact=True).wait_for()


@pytest.mark.parametrize(
    ("picture", "ending"), [(jpg, "jpg"), (transparent, "png"), (painted, "png")], ids=["jpg", "transparent", "painted"]
)
def test_a_picture_of_ones_own_is_drawn_and_its_file_gives_the_graph_back(page, server, tmp_path, picture, ending):
    file = tmp_path / f"my {picture.__name__}.{ending}"
    picture().save(file)
    server.upload(file)
    load(page, template("MM-Diff 1 - Draw My Subject (demo).app"))
    prompt = f"a toy<|subj|> in space, <b>{picture.__name__}</b>"
    page.evaluate(
        """([file, prompt]) => {
            const of = (kind, name) => app.graph.nodes.find((node) => node.type === kind).widgets
                .find((widget) => widget.name === name)
            of("LoadImage", "image").value = file
            of("MMDiffBindSubjects", "prompt").value = prompt
        }""",
        [file.name, prompt],
    )
    run(page)
    page.wait_for_function("Object.values(app.nodeOutputs).some((output) => output.images?.[0]?.type === 'output')")
    saved = page.evaluate(
        "Object.values(app.nodeOutputs).map((output) => output.images?.[0]).find((one) => one?.type === 'output')"
    )
    where = f"/view?filename={saved['filename']}&subfolder={saved['subfolder']}&type=output"
    drawn = Image.open(io.BytesIO(server.get(where)))
    assert drawn.size == (128, 128) and np.asarray(drawn.convert("L")).std() > 10
    load(page, {"nodes": [], "links": [], "version": 0.4})
    page.evaluate(
        """async (where) => {
            const picture = await (await app.api.fetchApi(where)).blob()
            const dataTransfer = new DataTransfer()
            dataTransfer.items.add(new File([picture], "drawn.png", { type: "image/png" }))
            app.canvas.canvas.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }))
        }""",
        where,
    )
    page.wait_for_function("app.graph.nodes.some((node) => node.type === 'MMDiffBindSubjects')")
    values = page.evaluate(
        """app.graph.nodes.flatMap((node) => node.widgets ?? []).map((widget) => widget.value)
            .filter((value) => typeof value === "string")"""
    )
    assert prompt in values and file.name in values
