"""Every language has every node's name and every text that the page's modules say."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LANGUAGES = sorted(path.name for path in (ROOT / "locales").iterdir())
SCHEMA = json.loads((ROOT / "tests" / "data" / "schema.json").read_text())
SAID = {
    text
    for path in (ROOT / "js").glob("*.js")
    for text in re.findall(r'\bt\(\s*"((?:[^"\\]|\\.)+)"', path.read_text(encoding="utf-8"))
}
EVERYWHERE = {"mmdiff", "clip", "vae", "subjects", "more_images"}
"""Names that are the same in every language, and sockets that grow, which the host does not look up."""


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


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_has_every_node_and_no_other(language):
    nodes = read(language, "nodeDefs.json")
    assert set(nodes) == set(SCHEMA)
    for name, node in SCHEMA.items():
        inputs = {one["id"] for one in node["inputs"]} - EVERYWHERE
        assert nodes[name]["display_name"], name
        assert set(nodes[name].get("inputs", {})) == inputs, name
        assert set(nodes[name].get("outputs", {})) <= {str(place) for place in range(len(node["outputs"]))}
