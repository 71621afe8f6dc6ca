"""Graphs in the real front end: the shipped workflows, growing sockets, the search, the help."""

import io
import itertools
import json
import re

import pytest
from live_server import OTHERS, ROOT, STAND_INS, not_at_hand, with_stand_ins
from pages import PLAIN, at_rest, load, overlaps, run, template, vue_nodes
from PIL import Image

SHIPPED = [
    pytest.param(path, id=path.stem, marks=pytest.mark.skipif(bool(missing), reason=f"no checkout of {missing}"))
    for path in sorted((ROOT / "example_workflows").glob("*.json"))
    for missing in [not_at_hand(path)]
]
BLUEPRINTS = sorted(path.stem for path in (ROOT / "subgraphs").glob("*.json"))
HOLLOW = 7  # the shape of an optional socket
SERIAL = itertools.count()
OURS = sorted(path.stem for path in (ROOT / "js" / "docs").glob("*.md"))


def posted(page) -> dict:
    """What the page would post to the server: node number to (class, inputs)."""
    prompt = page.evaluate("async () => (await app.graphToPrompt()).output")
    return {number: (node["class_type"], node["inputs"]) for number, node in prompt.items()}


def add(page, kind: str, x: int, y: int) -> int:
    """The number of a new node at a place of the canvas."""
    return page.evaluate(
        """([kind, x, y]) => {
            const node = LiteGraph.createNode(kind)
            node.pos = [x, y]
            app.graph.add(node)
            return node.id
        }""",
        [kind, x, y],
    )


def place(page, number: int, slot: str) -> tuple[float, float]:
    """Where on the page the dot of a node's socket is: an input by name, or its first output."""
    return tuple(
        page.evaluate(
            """([number, slot]) => {
                const node = app.graph.getNodeById(number)
                const index = node.inputs.findIndex((one) => one.name === slot)
                const dot = index < 0 ? node.getOutputPos(0) : node.getInputPos(index)
                const [x, y] = app.canvas.ds.convertOffsetToCanvas(dot)
                const canvas = app.canvas.canvas.getBoundingClientRect()
                return [x + canvas.left, y + canvas.top]
            }""",
            [number, slot],
        )
    )


def subjects(page, number: int) -> list[str]:
    names = page.evaluate("number => app.graph.getNodeById(number).inputs.map((one) => one.name)", number)
    return [name.removeprefix("subjects.") for name in names if name.startswith("subjects.")]


@pytest.mark.parametrize("path", SHIPPED)
def test_a_shipped_workflow_opens_whole_and_posts_what_it_should(page, path):
    graph = json.loads(path.read_text())
    page.evaluate("graph => app.loadGraphData(graph)", graph)
    nodes = page.evaluate(
        """HOLLOW => app.graph.nodes.map((node) => ({
            id: node.id,
            known: node.type in LiteGraph.registered_node_types || node.isSubgraphNode(),
            open: node.inputs.filter((one) => !one.widget && one.link == null && one.shape !== HOLLOW)
                .map((one) => one.name),
            values: node.serialize().widgets_values,
        }))""",
        HOLLOW,
    )
    assert [node["id"] for node in nodes if not node["known"]] == [], "nodes nobody knows"
    assert {node["id"]: node["open"] for node in nodes if node["open"]} == {}, "required sockets without a link"
    saved = {str(node["id"]): node.get("widgets_values") for node in graph["nodes"]}
    assert {str(node["id"]): node["values"] for node in nodes} == saved, "no value shifted to another widget"
    wanted = json.loads((ROOT / "tests" / "host" / "workflows" / path.name).read_text())
    assert posted(page) == {number: (node["class_type"], node["inputs"]) for number, node in wanted.items()}


def draw_with_the_demo_model(page) -> None:
    """Whatever hangs on the loaders of a general checkpoint and its base, and on the empty latent, hangs on the demo
    model's; the loaders stay where they are."""
    page.evaluate(
        """() => {
            const demo = LiteGraph.createNode("MMDiffLoadDemo")
            demo.pos = [-1000, 0]
            app.graph.add(demo)
            const taken = {
                CheckpointLoaderSimple: ["model", "clip", "vae"], MMDiffLoad: ["mmdiff"],
                CLIPVisionLoader: ["clip_vision"], EmptyLatentImage: ["latent"],
            }
            for (const node of [...app.graph.nodes]) {
                for (const [slot, name] of (taken[node.type] ?? []).entries()) {
                    const links = [...(node.outputs[slot].links ?? [])].map((id) => app.graph.getLink(id))
                    for (const link of links) {
                        demo.connect(name, app.graph.getNodeById(link.target_id), link.target_slot)
                    }
                }
            }
        }"""
    )


@pytest.mark.parametrize("vue", [False, True], ids=["canvas", "vue nodes"])
@pytest.mark.parametrize("path", SHIPPED)
def test_a_shipped_workflow_has_no_node_over_another(page, path, vue):
    """Before and after a run, when reports and previews are in the nodes, of photos of which there is something to say.
    Large models' templates run on small ones, but for the one with the model of another pack."""
    vue_nodes(page, vue)
    graph = json.loads(path.read_text())
    graph["extra"]["linearMode"] = False  # an App shows no nodes
    load(page, graph)
    at_rest(page)
    assert overlaps(page) == []
    if any(node["properties"].get("cnr_id") in OTHERS for node in graph["nodes"]):
        return
    for node in graph["nodes"]:
        if node["type"] in ("LoadImage", "MMDiffDemoSubject"):
            node |= {"type": "LoadImage", "widgets_values": [PLAIN, "image"]}
        if node["type"] == "MMDiffEncodeSubject":  # the host shows no pictures of what it remembers
            node["widgets_values"][1] = 1 + next(SERIAL) / 1000
        if "(SDXL)" in path.stem:
            node["type"] = STAND_INS.get(node["type"], node["type"])
            if node["type"] == "KSampler":
                node["widgets_values"][2] = 1  # step
    load(page, graph)
    if "SD1.5" in path.stem:
        draw_with_the_demo_model(page)
    run(page)
    at_rest(page)
    said = page.evaluate("app.graph.nodes.flatMap((node) => node.widgets ?? []).map((one) => one.element?.textContent)")
    assert "(SDXL)" in path.stem or "The subject was cut out of its plain background." in said
    assert overlaps(page) == []


def test_an_app_opens_as_an_app(page):
    """A photo, a prompt, Run: no graph in sight."""
    load(page, template("MM-Diff 1 - Draw My Subject (demo).app"))
    page.get_by_text("what to draw (<|subj|>: my picture)", exact=True).wait_for()
    page.get_by_text("my picture", exact=True).wait_for()


def test_a_socket_appears_for_the_next_subject(page):
    bind = add(page, "MMDiffBindSubjects", 500, 100)
    sources = [add(page, "MMDiffEncodeSubject", 100, 50 + 220 * number) for number in range(3)]
    assert subjects(page, bind) == ["subject_0", "subject_1"]
    for number, source in enumerate(sources):
        page.mouse.move(*place(page, source, "subject"))
        page.mouse.down()
        page.mouse.move(*place(page, bind, f"subjects.subject_{number}"), steps=8)
        page.mouse.up()
        page.wait_for_function(
            "([bind, count]) => app.graph.getNodeById(bind).inputs.filter((one) => one.link != null).length === count",
            arg=[bind, number + 1],
        )
    assert subjects(page, bind) == ["subject_0", "subject_1", "subject_2", "subject_3"]
    inputs = posted(page)[str(bind)][1]
    connected = {name: value for name, value in inputs.items() if name.startswith("subjects.")}
    assert connected == {f"subjects.subject_{number}": [str(source), 0] for number, source in enumerate(sources)}


def test_a_node_is_found_by_another_word_for_it(page):
    page.evaluate("app.extensionManager.command.execute('Workspace.SearchBox.Toggle')")
    page.keyboard.type("photomaker")
    page.get_by_text("Encode Subject", exact=True).first.click()
    page.wait_for_function("app.graph.nodes.some((node) => node.type === 'MMDiffEncodeSubject')")


@pytest.mark.parametrize("kind", OURS)
def test_a_help_page_names_every_input_and_no_other(server, kind):
    node = json.loads(server.get(f"/object_info/{kind}"))[kind]
    help_page = server.get(f"/extensions/mm-diff/docs/{kind}.md").decode()
    assert help_page.startswith(f"# {node['display_name']}\n")
    table = help_page.partition("| input |")[2].split("\n\n")[0]
    rows = re.findall(r"^\| (.*?`.+?) \|", table, re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    inputs = [name for group in ("required", "optional") for name in node["input"].get(group, {})]
    grown = {"subjects": ["subject_0", "subject_1"], "more_images": ["image_2"]}
    assert sorted(named) == sorted(shown for name in inputs for shown in grown.get(name, [name]))


def test_every_node_has_a_help_page(server):
    listed = json.loads(server.get("/object_info"))
    assert [name for name in sorted(listed) if name.startswith("MMDiff")] == OURS


def test_the_help_opens_beside_the_graph(page):
    number = add(page, "MMDiffBindSubjects", 500, 300)
    page.evaluate("number => app.canvas.selectNode(app.graph.getNodeById(number))", number)
    page.get_by_test_id("info-button").click()
    page.get_by_role("heading", name="Three ways to bind").wait_for()
    assert page.get_by_text("a woman<|subj|> and a man<|subj|> at home", exact=True).is_visible()


def connect(page, *links: tuple[int, str, int, str]) -> None:
    """Links from an output to an input, both by name, of nodes by number."""
    page.evaluate(
        """links => {
            for (const [from, output, to, input] of links) {
                const [source, target] = [app.graph.getNodeById(from), app.graph.getNodeById(to)]
                const place = (slots, name) => slots.findIndex((one) => one.name === name)
                source.connect(place(source.outputs, output), target, place(target.inputs, input))
            }
        }""",
        links,
    )


def found(page, name: str) -> int:
    """The number of a blueprint's node, taken from the search as a user does."""
    page.evaluate("app.extensionManager.command.execute('Workspace.SearchBox.Toggle')")
    page.keyboard.type(name)
    page.get_by_text(name, exact=True).first.click()
    return subgraph(page)


def from_the_library(page, name: str) -> int:
    """The number of a blueprint's node, taken from the folder of the sidebar that README names, put on the graph."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8").replace("\n", " ")
    tab, path = re.search(r"\*(\w+)\* in the sidebar \(\*(.+?)\*", readme).groups()
    section, *folders = path.split(" > ")
    page.locator(".side-bar-button", has_text=tab).click()
    page.get_by_role("heading", name=section).wait_for()
    tree = page.get_by_role("tree").filter(has_text=folders[0])
    for row in (*folders, name):
        tree.get_by_text(row, exact=True).click()
    page.mouse.click(1000, 500)
    return subgraph(page)


def subgraph(page) -> int:
    """The number of the node that is a subgraph, once it is there."""
    page.wait_for_function("app.graph.nodes.some((node) => node.isSubgraphNode())")
    return page.evaluate("app.graph.nodes.find((node) => node.isSubgraphNode()).id")


def draws_with_the_demo_model(page, number: int) -> None:
    """A blueprint's node knows all its inner nodes, and runs with the demo model and its subject."""
    inner = page.evaluate(
        """number => app.graph.getNodeById(number).subgraph.nodes.map((node) =>
            [node.type, node.type in LiteGraph.registered_node_types])""",
        number,
    )
    assert len(inner) > 3 and all(known for _, known in inner), inner
    demo, subject, save = (add(page, kind, 0, 0) for kind in ("MMDiffLoadDemo", "MMDiffDemoSubject", "SaveImage"))
    inputs = page.evaluate("number => app.graph.getNodeById(number).inputs.map((one) => one.name)", number)
    parts = ("model", "clip", "vae", "clip_vision", "mmdiff", "latent")
    connect(page, *((demo, part, number, part) for part in parts if part in inputs))
    images = [one for one in inputs if one.startswith("image")]
    connect(page, *((subject, "image", number, image) for image in images), (number, "image", save, "images"))
    if "subject" in inputs:
        encode = add(page, "MMDiffEncodeSubject", 0, 0)
        connect(page, *((demo, part, encode, part) for part in ("mmdiff", "clip_vision")))
        connect(page, (subject, "image", encode, "image"), (encode, "subject", number, "subject"))
    run(page)


@pytest.mark.parametrize("vue", [False, True], ids=["canvas", "vue nodes"])
@pytest.mark.parametrize("name", [name for name in BLUEPRINTS if name != "Cut Out Subject"])
def test_a_blueprint_is_found_opens_whole_and_draws_with_the_demo_model(page, name, vue):
    vue_nodes(page, vue)
    draws_with_the_demo_model(page, found(page, name))


def test_a_blueprint_from_the_node_library_draws_with_the_demo_model(page):
    draws_with_the_demo_model(page, from_the_library(page, "Draw Subject"))


def test_the_cut_out_blueprint_opens_and_cuts_out(page, server):
    """With a stand-in for BiRefNet, whose weights are not at hand; where the host has nodes for it."""
    if "RemoveBackground" not in json.loads(server.get("/object_info")):
        pytest.skip("this ComfyUI has no background removal nodes")
    number = found(page, "Cut Out Subject")
    subject, save = add(page, "MMDiffDemoSubject", 0, 0), add(page, "SaveImage", 0, 0)
    connect(page, (subject, "image", number, "image"), (number, "image", save, "images"))
    graph = page.evaluate("async () => (await app.graphToPrompt()).output")
    assert sorted(node["class_type"] for node in graph.values()) == [
        "InvertMask",
        "JoinImageWithAlpha",
        "LoadBackgroundRemovalModel",
        "MMDiffDemoSubject",
        "RemoveBackground",
        "SaveImage",
    ]
    entry = server.queue(with_stand_ins(graph))
    assert entry["status"]["status_str"] == "success", entry["status"]
    assert Image.open(io.BytesIO(server.image(entry))).mode == "RGBA"
