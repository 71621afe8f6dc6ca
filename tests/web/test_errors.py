"""A sentence where the person looks: in the node and in a toast, without a click, in both renderers."""

import re

import pytest
from pages import load, run, template, vue_nodes

IN_NODE = "[role=alert].mmdiff-error"
IN_TOAST = ".p-toast-detail"


def demo(prompt: str, size: int = 128) -> dict:
    graph = template("MM-Diff 3 - One Subject (demo)")
    for node in graph["nodes"]:
        if node["type"] == "MMDiffBindSubjects":
            node["widgets_values"][0] = prompt
        elif node["type"] == "KSampler":
            node["widgets_values"][2] = 1
        elif node["type"] == "EmptyLatentImage":
            node["widgets_values"][:2] = size, size
    return graph


@pytest.mark.parametrize("vue", [False, True], ids=["canvas", "vue nodes"])
@pytest.mark.parametrize(
    ("prompt", "sentence"),
    [
        ("a toy<|subj|> and a toy<|subj|> on the beach", "The prompt has 2 <|subj|> markers for 1 subject"),
        ("a toy on the beach", "Subject 'penguin' stands nowhere in the prompt"),
    ],
    ids=["before anything runs", "in a run"],
)
def test_an_error_is_read_without_a_click_and_goes_when_it_is_mended(page, prompt, sentence, vue):
    vue_nodes(page, vue)
    load(page, demo(prompt))
    with pytest.raises(Exception, match=re.escape(sentence)):
        run(page)
    sentence = f"Multi-Subject Binding: {sentence}"
    for place in (IN_NODE, IN_TOAST):
        shown = page.locator(place, has_text=sentence)
        shown.wait_for()
        assert shown.count() == 1
        assert "mmdiff_core" not in shown.inner_text(), "no path of a class in front of it"
    load(page, demo("a toy<|subj|> on the beach"))
    run(page)
    assert page.locator(IN_NODE).count() == 0


def test_an_error_goes_from_the_node_with_the_next_run(page):
    load(page, demo("a toy on the beach"))
    with pytest.raises(Exception, match="stands nowhere in the prompt"):
        run(page)
    page.locator(IN_NODE).wait_for()
    before = page.evaluate("app.graph.nodes.find(node => node.type === 'MMDiffBindSubjects').serialize()")
    assert "stands nowhere" not in str(before), "an error is no input and is not saved"
    page.evaluate(
        "app.graph.nodes.find(node => node.type === 'MMDiffBindSubjects').widgets[0].value = 'a toy<|subj|> at home'"
    )
    run(page)
    page.locator(IN_NODE).wait_for(state="detached")


def test_an_error_of_somebody_else_is_left_to_them(page):
    load(page, {"nodes": [], "links": [], "version": 0.4})
    page.evaluate(
        """() => app.api.dispatchCustomEvent("execution_error", {
            node_id: "1", node_type: "KSampler", exception_type: "RuntimeError", exception_message: "no memory",
            executed: [], traceback: [], prompt_id: "x", timestamp: 0, current_inputs: {}, current_outputs: {},
        })"""
    )
    assert page.locator(IN_TOAST, has_text="no memory").count() == 0
