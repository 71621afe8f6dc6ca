"""Every language has every node's name and every text that the page's modules say."""

import json
import re
from collections import defaultdict
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


def labels(language: str) -> dict[str, set[str]]:
    """What the page shows for each name of an input, an output or an option, on whichever node."""
    nodes, texts, found = read(language, "nodeDefs.json"), read(language, "main.json")["mmdiff"], defaultdict(set)
    for kind, node in SCHEMA.items():
        inputs, outputs = (nodes[kind].get(group, {}) for group in ("inputs", "outputs"))
        for one in node["inputs"]:
            found[one["id"]].add(inputs.get(one["id"], {}).get("name", one["id"]))
            for option in one.get("options", ()):
                found[option].add(texts.get(option, option))
        for place, one in enumerate(node["outputs"]):
            found[one["name"]].add(outputs.get(str(place), {}).get("name", one["name"]))
    return found


def glossary(language: str) -> dict[str, str]:
    """The terms of a language, by the English ones."""
    table = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    first, *rows = (row.split(" | ") for row in re.findall(r"^\| (.+) \|$", table, re.MULTILINE))
    return {row[0]: row[first.index(language)] for row in rows}


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_node_is_called_as_in_the_glossary(language):
    nodes, terms = read(language, "nodeDefs.json"), glossary(language)
    assert {kind: terms[node["name"]] for kind, node in SCHEMA.items()} == {
        kind: node["display_name"] for kind, node in nodes.items()
    }


@pytest.mark.parametrize("language", LANGUAGES)
def test_tooltips_call_options_what_the_page_shows(language):
    shown = labels(language)
    options = [option for option in labelled_options() if option not in shown[option]]
    assert options
    for kind, node in read(language, "nodeDefs.json").items():
        for text in (node["description"], *(texts.get("tooltip", "") for texts in node.get("inputs", {}).values())):
            for option in options:
                rest = re.sub("|".join(map(re.escape, shown[option])), "", text)
                assert not re.search(rf"(?<![A-Za-z]){option}(?![A-Za-z])", rest), (kind, text)


@pytest.mark.parametrize("language", LANGUAGES)
def test_markers_and_options_in_tooltips_are_written_as_they_are_meant(language):
    """The page shows tooltips as they are, and takes a `|` in any other text for two plural forms."""
    for node in read(language, "nodeDefs.json").values():
        assert "|" not in re.sub(r"\{'\|'\}", "", node["description"])
        for texts in node.get("inputs", {}).values():
            assert "{'" not in texts.get("tooltip", "")


def labelled_options() -> set[str]:
    """Of the lists that are not the user's files, but for names of drawings, of versions and of recognisers."""
    return {
        option
        for node, declared in SCHEMA.items()
        for one in declared["inputs"]
        for option in one.get("options", ())
        if node != "MMDiffDemoSubject" and option not in ("v1", "v2", "buffalo_l", "dlib")
    }


def test_every_option_has_a_label():
    assert labelled_options() and labelled_options() <= SAID


def help_page(name: str, language: str | None = None) -> str:
    docs = ROOT / "js" / "docs"
    return (docs / f"{name}.md" if language is None else docs / name / f"{language}.md").read_text(encoding="utf-8")


INPUTS = re.compile(r"(?:^\| [^|]*`\w+`[^|]* \|.*\n)+", re.MULTILINE)
"""The table of inputs: the first whose rows begin with a name."""


def cells_of(text: str) -> list[str]:
    """How a help page's table names its inputs, a cell a row: each as the node shows it, with its name in workflows."""
    table = INPUTS.search(text)
    return [row.split(" | ")[0] for row in table[0].splitlines()] if table else []


def inputs_of(text: str) -> list[str]:
    return [name for cell in cells_of(text) for name in re.findall(r"`(\w+)`", cell)]


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_has_every_help_page(language):
    """Under the node's name there, with its inputs, the markers, and a picture that is shipped."""
    for name in SCHEMA:
        text = help_page(name, language)
        assert text.startswith(f"# {read(language, 'nodeDefs.json')[name]['display_name']}\n"), name
        assert inputs_of(text) == inputs_of(help_page(name)), name
        pictures = re.findall(r"!\[.+?\]\((.+?)\)", text)
        assert pictures == [f"{name}.jpg"] and (ROOT / "js" / "docs" / pictures[0]).exists(), name


@pytest.mark.parametrize("language", [None, *LANGUAGES])
def test_a_help_page_calls_inputs_what_the_node_shows(language):
    """Sockets of subjects count from 1 there."""
    nodes = {} if language is None else read(language, "nodeDefs.json")
    subject = "subject {number}" if language is None else read(language, "main.json")["mmdiff"]["subject {number}"]
    for name in SCHEMA:
        inputs = nodes.get(name, {}).get("inputs", {})
        labels = {one: texts["name"] for one, texts in inputs.items() if texts.get("name", one) != one}
        cells = "".join(cells_of(help_page(name, language)))
        for one in set(labels) & set(inputs_of(help_page(name, language))):
            assert f"{labels[one]} `{one}`" in cells, (name, one)
        if name == "MMDiffBindSubjects":
            first, second = (subject.format(number=number) for number in (1, 2))
            assert f"{first}, {second}, ... (`subject_0`, `subject_1`)" in cells


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_translated_help_page_names_what_the_page_shows(language):
    """A name in workflows stands behind its label; emphasised is a label or a file, bold a node or a question."""
    shown = labels(language)
    opened = {path.stem for folder in ("subgraphs", "example_workflows") for path in (ROOT / folder).glob("*.json")}
    names = opened.union(*shown.values())
    nodes = {node["display_name"] for node in read(language, "nodeDefs.json").values()}
    nodes.add(glossary(language)["Load Image (ComfyUI's own)"])
    for kind in SCHEMA:
        text = help_page(kind, language)
        for code in re.finditer(r"`([^`]+)`", text):
            told = shown.get(code[1], {code[1]})
            labelled = any(text[: code.start()].endswith(f"{label} ") for label in told)
            assert code[1] in told or labelled, (kind, code[0], told)
        for bold in re.findall(r"\*\*(.+?)\*\*", text):
            assert bold in nodes or bold[-1] in "?？", (kind, bold)
        for name in re.findall(r"(?<!\*)\*([^*\n]+)\*(?!\*)", text):
            assert name in names, (kind, name)


def test_the_markers_come_before_the_inputs():
    for name in ("MMDiffBindSubjects", "MMDiffEncodeSubject", "MMDiffApplyAttention"):
        for text in (help_page(name), *(help_page(name, language) for language in LANGUAGES)):
            assert text.index("<|subj") < INPUTS.search(text).start(), name


def test_pictures_of_the_help_are_small():
    assert sum(path.stat().st_size for path in (ROOT / "js" / "docs").rglob("*.jpg")) < 1_500_000
