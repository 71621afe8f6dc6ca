"""A run through the page: what the nodes say after it."""

import json

import pytest
from live_server import ROOT, STAND_INS
from pages import at_rest, load, look_at, run, template, vue_nodes

HOSTILE = '<img src=x onerror="window.pwned=1">'
REPORT = "[role=status][aria-label=Report]"


def open_two_people(page, prompt: str, name: str = "Ada") -> int:
    """The shipped workflow with the tiny loaders and one step in the page; returns the binding node's number.

    Every test has a prompt of its own: what a node said with the same one is said again.
    """
    graph = json.loads((ROOT / "example_workflows" / "MM-Diff 13 - Two People (SDXL).json").read_text())
    for node in graph["nodes"]:
        node["type"] = STAND_INS.get(node["type"], node["type"])
        if node["type"] == "KSampler":
            node["widgets_values"][2] = 1
        elif node["type"] == "MMDiffEncodeSubject" and node["widgets_values"][0] == "Ada":
            node["widgets_values"][0] = name
        elif node["type"] == "MMDiffBindSubjects":
            node["widgets_values"][0] = prompt
            number = node["id"]
    page.evaluate("graph => app.loadGraphData(graph)", graph)
    # The canvas draws no widgets of a node that is far away or out of sight.
    page.evaluate(
        "number => { app.canvas.ds.scale = 1; app.canvas.centerOnNode(app.graph.getNodeById(number)) }", number
    )
    return number


def widgets(page, number: int) -> list:
    return page.evaluate("number => app.graph.getNodeById(number).serialize().widgets_values", number)


@pytest.mark.parametrize("on", [False, True], ids=["canvas", "vue nodes"])
def test_the_report_stands_in_the_node(page, on):
    vue_nodes(page, on)
    open_two_people(page, f"a {'very ' * on}tall woman<|subj|> and a man<|subj|> at home")
    run(page)
    page.locator(REPORT, has_text="token").wait_for()
    token = 3 + on
    assert page.locator(REPORT, has_text="token").inner_text().splitlines() == [
        f"woman -> token {token} of both encoders, subject 1 'Ada'",
        f"man -> token {token + 3} of both encoders, subject 2 'Ben'",
    ]


@pytest.mark.parametrize("on", [False, True], ids=["canvas", "vue nodes"])
def test_a_report_is_as_high_as_its_text_and_leaves_the_room_to_pictures(page, on):
    vue_nodes(page, on)
    load(page, template("MM-Diff 4 - Two Subjects by Word (demo)"))
    look_at(page, "MMDiffAttentionMaps")
    run(page)
    report = page.locator(REPORT, has_text="1 penguin\n2 fire engine")
    report.wait_for()
    at_rest(page)
    assert 40 < report.bounding_box()["height"] < 80


def test_the_report_is_no_input_and_not_saved(page):
    number = open_two_people(page, "a small woman<|subj|> and a man<|subj|> at home")
    before = widgets(page, number)
    run(page)
    page.locator(REPORT, has_text="token").wait_for()
    assert widgets(page, number) == before
    prompt = page.evaluate("async () => await app.graphToPrompt()")
    assert "token" not in json.dumps(prompt), "neither in the saved workflow nor in the posted prompt"
    page.evaluate("workflow => app.loadGraphData(workflow)", prompt["workflow"])
    assert widgets(page, number) == before
    assert page.evaluate("async () => (await app.graphToPrompt()).output") == prompt["output"]


def test_the_report_comes_back_with_its_tab(page):
    open_two_people(page, "a young woman<|subj|> and a man<|subj|> at home")
    run(page)
    page.locator(REPORT, has_text="token").wait_for()
    page.evaluate("app.extensionManager.command.execute('Comfy.NewBlankWorkflow')")
    page.locator(REPORT, has_text="token").wait_for(state="detached")
    page.evaluate("app.extensionManager.command.execute('Workspace.PreviousOpenedWorkflow')")
    page.locator(REPORT, has_text="token").wait_for()
    assert page.locator(REPORT, has_text="token").inner_text().startswith("woman -> token 3")


def test_a_node_that_the_server_remembers_still_says_it(page):
    """After a run in which it was cached, and when its graph is opened in another page."""
    prompt = "an old woman<|subj|> and a man<|subj|> at home"
    number = open_two_people(page, prompt)
    run(page)
    page.locator(REPORT, has_text="token").wait_for()
    graph = page.evaluate("app.graph.serialize()")
    page.reload()
    page.wait_for_function("window.app?.vueAppReady && app.extensionManager?.workflow?.activeWorkflow")
    page.evaluate("graph => app.loadGraphData(graph)", graph)
    page.locator(REPORT, has_text="woman -> token 3").wait_for()
    open_two_people(page, prompt + " again")
    assert page.locator(REPORT, has_text="token").count() == 0, "another prompt, about which nothing was said"
    page.evaluate("([number, prompt]) => app.graph.getNodeById(number).widgets[0].value = prompt", [number, prompt])
    run(page)
    page.locator(REPORT, has_text="woman -> token 3").wait_for()


def test_markup_in_a_prompt_and_a_name_is_text(page):
    open_two_people(page, f"a woman<|subj|> and a man<|subj|> at home, {HOSTILE}", name=HOSTILE)
    run(page)
    page.locator(REPORT, has_text="token").wait_for()
    assert f"subject 1 '{HOSTILE}'" in page.locator(REPORT, has_text="token").inner_text()
    assert page.evaluate("window.pwned") is None


def test_markup_in_an_error_is_text(page):
    open_two_people(page, f"a woman<|subj:{HOSTILE}|> and a man<|subj|> at home")
    with pytest.raises(Exception, match="no subject has that name"):
        run(page)
    page.locator(".mmdiff-error", has_text=f"The prompt says <|subj:{HOSTILE}|>").wait_for()
    page.locator(".p-toast-detail", has_text=f"The prompt says <|subj:{HOSTILE}|>").wait_for()
    assert page.evaluate("window.pwned") is None
