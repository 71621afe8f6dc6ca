"""Saved subjects in the sidebar: their photo, search, put on the graph, deleted after asking."""

import urllib.error
import urllib.request

import pytest
from live_server import PATIENCE
from pages import load, run, template

NAMED = "app.graph.nodes.find((node) => node.type === 'MMDiffLoadSubject')?.widgets[0]"


def test_a_subject_is_saved_found_loaded_and_deleted(page, server):
    load(page, template("MM-Diff 3 - One Subject (demo)"))
    page.evaluate(
        """() => {
            const [save, loaded] = ["MMDiffSaveSubject", "MMDiffLoadSubject"].map((kind) => LiteGraph.createNode(kind))
            app.graph.add(save)
            app.graph.add(loaded)
            app.graph.nodes.find((node) => node.type === "MMDiffEncodeSubject").connect(0, save, 0)
        }"""
    )
    assert page.evaluate(f"{NAMED}.value") == "none saved yet", "and not undefined"
    page.evaluate("app.graph.remove(app.graph.nodes.find((node) => node.type === 'MMDiffLoadSubject'))")
    run(page)
    page.evaluate("app.extensionManager.sidebarTab.toggleSidebarTab('mm-diff.subjects')")
    card = page.locator(".mmdiff-subject", has_text="penguin")
    card.wait_for()
    page.wait_for_function("document.querySelector('.mmdiff-subject img')?.naturalWidth === 64")
    page.get_by_role("searchbox", name="Search subjects").fill("kiwi")
    card.wait_for(state="hidden")
    page.get_by_role("searchbox", name="Search subjects").fill("PENG")
    card.get_by_role("button", name="penguin", exact=True).click()
    page.wait_for_function(f"{NAMED}?.value === 'penguin'")
    card.get_by_role("button", name="Delete penguin").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    card.wait_for(state="detached")
    assert not list((server.models / "subjects").glob("*.safetensors"))


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_nothing_outside_of_the_folder_is_shown_or_deleted(server, method):
    (server.models / "subjects").mkdir(exist_ok=True)
    outside = server.models / "precious.safetensors"
    outside.write_bytes(b"precious")
    request = urllib.request.Request(f"{server.url}/mmdiff/subject?name=../precious", method=method)
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(request, timeout=PATIENCE)
    assert error.value.code == 404
    assert outside.read_bytes() == b"precious"
    outside.unlink()
