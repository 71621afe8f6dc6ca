"""What ships to be opened: templates in `example_workflows`, blueprints in `subgraphs`; read without a host."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEMPLATES = sorted((ROOT / "example_workflows").glob("*.json"))
BLUEPRINTS = sorted((ROOT / "subgraphs").glob("*.json"))
LARGE = [path for path in TEMPLATES if "(demo)" not in path.stem]
WEIGHTS = (".safetensors", ".onnx", ".bin")
OURS = ("general_sd15.safetensors", "ipadapter/ip-adapter-plus_sd15.safetensors")
"""Files of Load MM-Diff, which lists what is missing, with links, itself."""


def nodes(path: Path) -> list[dict]:
    """All nodes of a graph, those inside its subgraphs too."""
    graph = json.loads(path.read_text(encoding="utf-8"))
    inner = (graph.get("definitions") or {}).get("subgraphs", [])
    return [node for part in (graph, *inner) for node in part["nodes"]]


def notes(path: Path) -> str:
    return "\n".join(node["widgets_values"][0] for node in nodes(path) if node["type"] == "MarkdownNote")


def test_templates_are_numbered_and_the_runnable_ones_come_first():
    numbers = {int(re.match(r"MM-Diff (\d+) - ", path.name)[1]): "(demo)" in path.stem for path in TEMPLATES}
    assert sorted(numbers) == list(range(1, len(TEMPLATES) + 1))
    runnable = [numbers[number] for number in sorted(numbers)]
    assert runnable == sorted(runnable, reverse=True)


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_a_template_explains_itself_and_has_a_picture(path):
    assert notes(path).startswith("# ")
    assert path.with_suffix(".jpg").stat().st_size < 100_000
    assert (ROOT / "tests" / "host" / "workflows" / path.name).exists(), "its posted form, which the host tests run"


@pytest.mark.parametrize("path", [*TEMPLATES, *BLUEPRINTS], ids=lambda path: path.stem)
def test_every_node_says_its_pack_and_every_file_has_a_link(path):
    for node in nodes(path):
        properties = node["properties"]
        if node["type"] == "MarkdownNote":
            continue
        assert properties["cnr_id"], node["type"]
        assert properties["cnr_id"] != "mm-diff" or properties["ver"], node["type"]
        linked = {model["name"] for model in properties.get("models", ()) if model["url"].startswith("https://")}
        values = node.get("widgets_values") or []
        files = {value for value in values if isinstance(value, str) and value.endswith(WEIGHTS)}
        assert files - linked <= {*OURS}, node["type"]


def bases() -> list[tuple[str, list[str]]]:
    """Rows of docs/bases.md that say how to sample: the base, and what a note must say of it."""
    table = (ROOT / "docs" / "bases.md").read_text(encoding="utf-8").partition("| base |")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    return [
        (base, [*sampler.split(", "), steps, f"CFG {cfg}", f"weight {weight}"])
        for base, sampler, steps, cfg, weight, _ in rows
        if cfg and not base.startswith("SDXL, SD1.5")
    ]


@pytest.mark.parametrize("path", LARGE, ids=lambda path: path.stem)
def test_a_large_template_says_how_to_begin_with_its_bases_relatives(path):
    """As docs/bases.md has it; Turbo and Lightning are SDXL's alone."""
    lines = notes(path).splitlines()
    told = [row for row in bases() if "(SDXL)" in path.stem or row[0] not in ("SDXL Turbo", "Lightning")]
    assert len(told) == (4 if "(SDXL)" in path.stem else 2)
    for base, facts in told:
        name = "v-prediction" if "v-prediction" in base else base.removeprefix("SDXL ")
        (line,) = (line for line in lines if line.startswith("- **") and name in line.split("**:")[0])
        for fact in facts:
            assert fact in line.replace("*", ""), (base, fact)


@pytest.mark.parametrize("path", BLUEPRINTS, ids=lambda path: path.stem)
def test_a_blueprint_is_one_described_node(path):
    """The page names it by its file, and shows the description in the library and as its help."""
    graph = json.loads(path.read_text(encoding="utf-8"))
    (node,), (inner,) = graph["nodes"], graph["definitions"]["subgraphs"]
    assert node["type"] == inner["id"] and node["title"] == inner["name"] == path.stem
    assert inner["category"] == "MM-Diff" and len(inner["description"]) > 80
    assert graph["extra"]["BlueprintDescription"] == inner["description"]
    assert "mm-diff" in graph["extra"]["BlueprintSearchAliases"]
    assert [one["name"] for one in node["inputs"]] == [one["name"] for one in inner["inputs"]]
