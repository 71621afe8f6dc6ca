"""Every language has every node's name and every text that the page's modules say."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LANGUAGES = sorted(path.name for path in (ROOT / "locales").iterdir() if path.name != "en")  # English is in the code
SCHEMA = json.loads((ROOT / "tests" / "data" / "schema.json").read_text())
SAID = {
    text
    for path in (ROOT / "js").glob("*.js")
    for text in re.findall(r'\bt\(\s*"((?:[^"\\]|\\.)+)"', path.read_text(encoding="utf-8"))
}
SAME = {"mmdiff", "clip", "vae"}
"""Names that are the same in every language."""
GROWING = {"subjects", "more_images"}
"""Groups of sockets, which the host does not look up."""


def read(language: str, name: str) -> dict:
    return json.loads((ROOT / "locales" / language / name).read_text(encoding="utf-8"))


def test_the_languages():
    assert {"zh", "ja", "ko", "de", "fr", "es", "ru"} <= set(LANGUAGES)
    assert len(SAID) > 10


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_has_every_text(language):
    texts = read(language, "main.json")["mmdiff"]
    assert set(texts) == SAID
    for text, translated in texts.items():
        assert sorted(re.findall(r"\{\w+\}", text)) == sorted(re.findall(r"\{\w+\}", translated)), text


@pytest.mark.parametrize("language", ["en", *LANGUAGES])
def test_a_language_has_every_command(language):
    """The page takes what a command's button says from here alone, in English too."""
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "js").glob("*.js"))
    commands = re.findall(r'COMMAND = "(mm-diff\.\w+)"', source)
    said = read(language, "commands.json")
    assert commands and set(said) == {name.replace(".", "_") for name in commands}
    assert all(one["label"] for one in said.values())


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_has_every_node_and_no_other(language):
    nodes = read(language, "nodeDefs.json")
    assert set(nodes) == set(SCHEMA)
    for name, node in SCHEMA.items():
        inputs = {one["id"]: one for one in node["inputs"] if one["id"] not in GROWING}
        told = nodes[name].get("inputs", {})
        assert nodes[name]["display_name"], name
        assert {one for one, texts in told.items() if texts.get("name")} == inputs.keys() - SAME, name
        assert {one for one, texts in told.items() if texts.get("tooltip")} == {
            one for one, declared in inputs.items() if declared["tooltip"]
        }, name
        assert set(nodes[name].get("outputs", {})) <= {str(place) for place in range(len(node["outputs"]))}


@pytest.mark.parametrize("language", LANGUAGES)
def test_markers_and_options_in_tooltips_are_written_as_they_are_meant(language):
    """The page shows tooltips as they are, and takes a `|` in any other text for two plural forms."""
    for node in read(language, "nodeDefs.json").values():
        assert "|" not in re.sub(r"\{'\|'\}", "", node["description"])
        for texts in node.get("inputs", {}).values():
            assert "{'" not in texts.get("tooltip", "")


def test_every_option_has_a_label():
    """Of the lists that are not the user's files, but for names of drawings, of versions and of recognisers."""
    options = {
        option
        for node, declared in SCHEMA.items()
        for one in declared["inputs"]
        for option in one.get("options", ())
        if node != "MMDiffDemoSubject" and option not in ("v1", "v2", "buffalo_l", "dlib")
    }
    assert options and options <= SAID
