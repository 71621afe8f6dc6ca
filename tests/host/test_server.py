"""Every example workflow on a real server over HTTP, a real photo in and a picture out."""

import io
import json
import shutil
from pathlib import Path

import pytest
from live_server import ROOT, Server, not_at_hand, with_stand_ins
from PIL import Image
from tiny_sd15 import general_checkpoint, plus_adapter

PORTRAIT, TWO_PEOPLE = "MM-Diff 11 - Draw My Portrait (SDXL).app", "MM-Diff 13 - Two People (SDXL)"
WORKFLOWS = sorted((Path(__file__).parent / "workflows").glob("*.json"))
ENLARGED = {
    "MM-Diff 5 - With and Without (demo)": (260, 128),
    "MM-Diff 9 - Hires Fix with Regions (demo)": (192, 192),
    "MM-Diff 10 - Refine Each Subject (demo)": (256, 256),
}
"""Pictures that are not of their latent's size."""


def workflow(name: str) -> dict:
    return json.loads((Path(__file__).parent / "workflows" / f"{name}.json").read_text())


def changed(graph: dict, kind: str, **inputs: object) -> dict:
    """The graph with some inputs of every node of a kind replaced."""
    return {
        number: {**node, "inputs": {**node["inputs"], **(inputs if node["class_type"] == kind else {})}}
        for number, node in graph.items()
    }


@pytest.fixture(scope="module")
def server(tmp_path_factory, pack):
    folder = tmp_path_factory.mktemp("server")
    server = Server(folder)
    general_checkpoint(pack, server.models)
    (server.models / "general.safetensors").rename(server.models / "general_sd15.safetensors")
    plus_adapter(pack, folder / "models" / "ipadapter")
    shutil.copy(ROOT / "assets" / "cat.jpg", folder / "example.png")
    with server as running:
        running.upload(folder / "example.png")
        yield running


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_makes_a_picture(server, path):
    if missing := not_at_hand(ROOT / "example_workflows" / path.name):
        pytest.skip(f"NEIGHBOURS_DIR has no checkout of {', '.join(missing)}")
    graph = changed(with_stand_ins(json.loads(path.read_text())), "KSampler", steps=2)
    entry = server.queue(graph)
    assert entry["status"]["status_str"] == "success", entry["status"]
    picture = Image.open(io.BytesIO(server.image(entry)))
    latents = [node["inputs"] for node in graph.values() if node["class_type"] == "EmptyLatentImage"]
    wanted = (latents[0]["width"], latents[0]["height"]) if latents else (128, 128)  # the demo's own latent
    assert picture.format == "PNG" and picture.size == ENLARGED.get(path.stem, wanted)
    low, high = picture.convert("L").getextrema()
    assert high - low > 20, "a picture, not one colour"


def test_what_is_cached_has_its_picture_too(server):
    graph = changed(with_stand_ins(workflow(PORTRAIT)), "KSampler", steps=1)
    first, second = (server.image(server.queue(graph)) for _ in range(2))
    assert first == second


def test_the_binding_is_reported(server):
    graph = changed(with_stand_ins(workflow(TWO_PEOPLE)), "KSampler", steps=1)
    prompt = "a tall woman<|subj|> and a man<|subj|> at home"
    graph = changed(changed(graph, "MMDiffBindSubjects", prompt=prompt), "MMDiffEncodeSubject", weight=0.9)
    entry = server.queue(graph)
    binding = next(number for number, node in graph.items() if node["class_type"] == "MMDiffBindSubjects")
    (report,) = entry["outputs"][binding]["text"]
    assert report.splitlines() == [
        "woman -> token 3 of both encoders, subject 1 'Ada'",
        "man -> token 6 of both encoders, subject 2 'Ben'",
    ]
    encoded = [
        entry["outputs"][n]["images"] for n, node in graph.items() if node["class_type"] == "MMDiffEncodeSubject"
    ]
    assert [len(images) for images in encoded] == [1, 1], "the prepared photo is previewed in the node"


def test_a_subject_is_saved_and_loaded_in_another_workflow(server):
    graph = changed(with_stand_ins(workflow(PORTRAIT)), "KSampler", steps=1)
    encode = next(number for number, node in graph.items() if node["class_type"] == "MMDiffEncodeSubject")
    bind = next(node for node in graph.values() if node["class_type"] == "MMDiffBindSubjects")
    save = {"class_type": "MMDiffSaveSubject", "inputs": {"subject": [encode, 0], "filename": "people/ada"}}
    first = server.queue({**graph, "save": save})
    assert (server.folder / "models" / "mmdiff" / "subjects" / "people" / "ada.safetensors").exists()
    bind["inputs"]["subjects.subject_0"] = ["load", 0]
    load = {"class_type": "MMDiffLoadSubject", "inputs": {"subject": "people/ada"}}
    second = server.queue({**graph, "load": load})
    assert second["status"]["status_str"] == "success", second["status"]
    pixels = [Image.open(io.BytesIO(server.image(entry))).tobytes() for entry in (first, second)]
    assert pixels[0] == pixels[1]


def test_a_saved_subject_that_was_deleted_is_saved_again(server):
    """The host has nothing to run but what says "Saved", and the file must be there."""
    graph = changed(with_stand_ins(workflow(PORTRAIT)), "KSampler", steps=1)
    encode = next(number for number, node in graph.items() if node["class_type"] == "MMDiffEncodeSubject")
    save = {"class_type": "MMDiffSaveSubject", "inputs": {"subject": [encode, 0], "filename": "kept"}}
    path = server.folder / "models" / "mmdiff" / "subjects" / "kept.safetensors"
    for _ in range(2):
        entry = server.queue({**graph, "save": save})
        assert entry["outputs"]["save"]["text"] == ["Saved 'man' as kept.safetensors."]
        path.unlink()


def test_the_first_subject_may_be_taken_off(server):
    """Muted or bypassed, its socket is empty: handled like any other, by the prompt that then has a marker too many."""
    graph = changed(with_stand_ins(workflow(TWO_PEOPLE)), "KSampler", steps=1)
    bind = next(node for node in graph.values() if node["class_type"] == "MMDiffBindSubjects")
    bind["inputs"].pop("subjects.subject_0")
    bind["inputs"]["prompt"] = "a woman<|subj|> and a man<|subj|>"
    assert "2 <|subj|> markers for 1 subject" in server.refused(graph)
    bind["inputs"]["prompt"] = "a man<|subj|>"
    assert server.queue(graph)["status"]["status_str"] == "success"


@pytest.mark.parametrize(
    ("kind", "inputs", "sentence"),
    [
        ("MMDiffBindSubjects", {"prompt": "a dog on the beach"}, "Subject 'man' stands nowhere"),
        ("MMDiffBindSubjects", {"start_percent": 0.8, "end_percent": 0.2}, "they have nothing in common"),
        ("MMDiffEncodeSubject", {"face": None}, "Connect Analyze Face"),
    ],
)
def test_bad_input_is_a_sentence_and_the_server_lives_on(server, kind, inputs, sentence):
    graph = changed(with_stand_ins(workflow(PORTRAIT)), "KSampler", steps=1)
    graph = changed(graph, kind, **{name: value for name, value in inputs.items() if value is not None})
    for name in (name for name, value in inputs.items() if value is None):
        next(node for node in graph.values() if node["class_type"] == kind)["inputs"].pop(name)
    entry = server.queue(graph)
    message = next(what for name, what in entry["status"]["messages"] if name == "execution_error")
    assert message["node_type"] == kind and sentence in message["exception_message"], message
    assert server.queue(changed(with_stand_ins(workflow(PORTRAIT)), "KSampler", steps=1))["status"]["completed"]


def test_every_node_is_listed_with_tooltips(server):
    listed = json.loads(server.get("/object_info"))
    ours = {name: node for name, node in listed.items() if name.startswith("MMDiff")}
    assert len(ours) == 12
    for name, node in ours.items():
        assert node["description"] and node["search_aliases"] and node["category"] == "MM-Diff"
        for group in ("required", "optional"):
            for inputs, (kind, *options) in node["input"].get(group, {}).items():
                if kind != "COMFY_AUTOGROW_V3":
                    assert options and options[0].get("tooltip"), f"{name}.{inputs} has no tooltip"


def test_example_workflows_and_their_posted_form_are_the_same_graph():
    for path in WORKFLOWS:
        posted = json.loads(path.read_text())
        shown = json.loads((ROOT / "example_workflows" / path.name).read_text())
        # What is inside subgraphs, the browser tests compare.
        inner = {"MarkdownNote", *(one["id"] for one in (shown.get("definitions") or {}).get("subgraphs", ()))}
        nodes = {str(node["id"]): node for node in shown["nodes"] if node["type"] not in inner}
        assert nodes.keys() == {number for number in posted if ":" not in number}
        links = {link[0]: [str(link[1]), link[2]] for link in shown["links"]}
        for number, node in nodes.items():
            assert node["type"] == posted[number]["class_type"]
            wired = {i["name"]: links[i["link"]] for i in node["inputs"] if i.get("link") is not None}
            wired = {name: source for name, source in wired.items() if source[0] in nodes}
            inputs = posted[number]["inputs"]
            joined = {name: value for name, value in inputs.items() if isinstance(value, list)}
            assert wired == {name: source for name, source in joined.items() if source[0] in nodes}
            values = [value for value in inputs.values() if not isinstance(value, list)]
            assert all(value in node["widgets_values"] for value in values), node["type"]
        assert (ROOT / "example_workflows" / path.name).with_suffix(".jpg").exists()


def test_templates_say_which_nodes_are_the_hosts(server):
    """The page offers to install what a node's `cnr_id` names, so no other pack's node passes for the host's."""
    packs = {name: one["python_module"] for name, one in json.loads(server.get("/object_info")).items()}
    own = {name for name, module in packs.items() if not module.startswith("custom_nodes.")}
    for path in WORKFLOWS:
        graph = json.loads((ROOT / "example_workflows" / path.name).read_text())
        inner = [node for one in (graph.get("definitions") or {}).get("subgraphs", []) for node in one["nodes"]]
        nodes = [node for node in graph["nodes"] + inner if node.get("properties")]
        said = {node["type"] for node in nodes if node["properties"].get("cnr_id") == "comfy-core"}
        assert not {name for name in said - own if "-" not in name}, path.stem  # with a hyphen: a blueprint's number


def test_the_host_lists_the_blueprints(server):
    listed = json.loads(server.get("/global_subgraphs"))
    ours = {number: one["name"] for number, one in listed.items() if one["info"]["node_pack"] == "custom_nodes.mm-diff"}
    files = {path.stem: path for path in (ROOT / "subgraphs").glob("*.json")}
    assert sorted(ours.values()) == sorted(files)
    for number, name in ours.items():
        assert json.loads(server.get(f"/global_subgraphs/{number}"))["data"] == files[name].read_text()


def test_every_template_has_a_thumbnail_that_one_command_makes():
    from thumbnails import CARDS

    assert sorted(CARDS) == [path.stem for path in WORKFLOWS]
