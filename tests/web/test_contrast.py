"""Every text of this pack can be read: 4.5 to 1 against what is behind it, in every palette of the page."""

import pytest
from pages import load, run, template, vue_nodes

LEAST = 4.5
PALETTES = ["dark", "light", "solarized", "arc", "nord", "github"]
CONTRASTS = """() => {
    const context = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true })
    const rgba = (colour) => {
        context.clearRect(0, 0, 1, 1)
        context.fillStyle = colour
        context.fillRect(0, 0, 1, 1)
        const [r, g, b, a] = context.getImageData(0, 0, 1, 1).data
        return [r, g, b, a / 255]
    }
    const over = ([r, g, b, a], [R, G, B]) => [r * a + R * (1 - a), g * a + G * (1 - a), b * a + B * (1 - a), 1]
    const behind = (element) => {
        const layers = []
        for (let one = element; one; one = one.parentElement) {
            layers.push(rgba(getComputedStyle(one).backgroundColor))
            if (layers.at(-1)[3] === 1) break
        }
        return layers.reverse().reduce((below, layer) => over(layer, below), [0, 0, 0, 1])
    }
    const light = (colour) => {
        const [r, g, b] = colour.slice(0, 3).map((one) => one / 255)
            .map((one) => (one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4))
        return 0.2126 * r + 0.7152 * g + 0.0722 * b
    }
    const contrast = (text, ground) => {
        const [a, b] = [light(over(text, ground)), light(ground)].sort((x, y) => y - x)
        return (a + 0.05) / (b + 0.05)
    }
    const found = []
    for (const element of document.querySelectorAll(".mmdiff, .mmdiff *")) {
        const written = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim())
        const ground = behind(element)
        const text = element.placeholder || element.textContent.slice(0, 40)
        if (written) found.push([text, contrast(rgba(getComputedStyle(element).color), ground)])
        if (element.placeholder) {
            found.push([text, contrast(rgba(getComputedStyle(element, "::placeholder").color), ground)])
        }
    }
    return found
}"""


@pytest.mark.parametrize("vue", [False, True], ids=["canvas", "vue nodes"])
def test_every_text_is_read_in_every_palette(page, vue):
    """Chips, words, what is missing, a report and an error, the files of a large model, and the sidebar."""
    vue_nodes(page, vue)
    graph = template("MM-Diff 4 - Two Subjects by Word (demo)")
    (bind,) = [node for node in graph["nodes"] if node["type"] == "MMDiffBindSubjects"]
    bind["widgets_values"][0] = "a toy<|subj|> and a toy<|subj|> beside a car<|nobody|>"
    load(page, graph)
    run(page)
    page.evaluate(
        """() => {
            const load = LiteGraph.createNode("MMDiffLoad")
            load.pos = [1050, 900]
            app.graph.add(load)
            const bind = app.graph.nodes.find((node) => node.type === "MMDiffBindSubjects")
            bind.widgets[0].value = "a <|sub|> toy<|subj|>"
            document.body.dispatchEvent(new Event("change", { bubbles: true }))
            app.canvas.ds.scale = 0.8
            app.canvas.ds.offset = [-900, 50]
        }"""
    )
    with pytest.raises(Exception, match="no marker"):
        run(page)
    page.locator("[role=alert].mmdiff-error").wait_for()
    page.locator(".mmdiff-problem", has_text="CLIP ViT").wait_for()
    page.evaluate("app.extensionManager.sidebarTab.toggleSidebarTab('mm-diff.subjects')")
    page.get_by_role("searchbox", name="Search subjects").wait_for()
    worst = {}
    for palette in PALETTES:
        page.evaluate("one => app.extensionManager.setting.set('Comfy.ColorPalette', one)", palette)
        page.evaluate("() => new Promise((seen) => requestAnimationFrame(() => requestAnimationFrame(seen)))")
        measured = page.evaluate(CONTRASTS)
        assert len(measured) > 15
        worst[palette] = min(measured, key=lambda one: one[1])
    page.evaluate("app.extensionManager.setting.set('Comfy.ColorPalette', 'dark')")
    print(worst)
    assert all(contrast >= LEAST for _, contrast in worst.values()), worst
