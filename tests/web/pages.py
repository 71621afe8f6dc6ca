"""What tests do with a page of the front end."""

import json

from live_server import ROOT


def template(name: str) -> dict:
    """A shipped workflow."""
    return json.loads((ROOT / "example_workflows" / f"{name}.json").read_text())


def load(page, graph: dict) -> None:
    page.evaluate("graph => app.loadGraphData(graph)", graph)


def vue_nodes(page, on: bool) -> None:
    """Choose the renderer: the classic canvas, or Nodes 2.0."""
    page.evaluate("on => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', on)", on)


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
