"""What saved workflows count on: node ids, names and order of inputs and outputs, held to a frozen snapshot.

Run as a script, this file writes the snapshot anew.
"""

import copy
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SNAPSHOT = ROOT / "tests" / "data" / "schema.json"
RENEW = (
    "Saved workflows count on the frozen schema: only optional inputs may be added, behind the present ones. If the "
    "change is meant, run `COMFYUI_DIR=... python tests/host/test_schema.py` and commit tests/data/schema.json."
)
LISTS_OF_FILES = {"checkpoint", "subject"}
"""Combos whose options are the user's files."""


def described_input(one) -> dict:
    found = {"id": one.id, "type": one.get_io_type(), "optional": bool(one.optional), "tooltip": bool(one.tooltip)}
    for field in ("default", "min", "max", "options"):
        value = getattr(one, field, None)
        if value is not None and not (field == "options" and one.id in LISTS_OF_FILES):
            found[field] = value
    if (template := getattr(one, "template", None)) is not None:
        found["template"] = {
            **described_input(template.input),
            **({"prefix": template.prefix} if hasattr(template, "prefix") else {"names": template.names}),
            "min": template.min,
            "max": len(template.names),
        }
        found["tooltip"] = found["template"]["tooltip"]  # shown on each of its sockets
    return found


def described(pack) -> dict:
    """Every node by its id, in the form of the snapshot."""
    schemas = [node.GET_SCHEMA() for node in pack.values()]
    return {
        schema.node_id: {
            "name": schema.display_name,
            "category": schema.category,
            "output_node": schema.is_output_node,
            "inputs": [described_input(one) for one in schema.inputs],
            "outputs": [{"name": one.display_name, "type": one.io_type} for one in schema.outputs],
        }
        for schema in schemas
    }


def differences(frozen: dict, found: dict) -> list[str]:
    """A line for each way in which nodes differ from the frozen ones; new optional inputs at the end do not count."""
    lines = [f"{node}: is in the snapshot, not in the pack" for node in frozen.keys() - found.keys()]
    lines += [f"{node}: is in the pack, not in the snapshot" for node in found.keys() - frozen.keys()]
    for node in frozen.keys() & found.keys():
        old, new = frozen[node], found[node]
        lines += [
            f"{node}: {key} is {new[key]!r}, was {old[key]!r}"
            for key in old
            if key != "inputs" and new[key] != old[key]
        ]
        present, added = new["inputs"][: len(old["inputs"])], new["inputs"][len(old["inputs"]) :]
        if present != old["inputs"]:
            changed = [(a, b) for a, b in zip(present, old["inputs"], strict=False) if a != b]
            is_now, was = changed[0] if changed else ("gone", old["inputs"][len(present)])
            lines.append(f"{node}: an input is {is_now}, was {was}")
        lines += [f"{node}: the new input {one['id']} is not optional" for one in added if not one["optional"]]
    return lines


def test_the_contract_is_kept(pack):
    found = differences(json.loads(SNAPSHOT.read_text()), json.loads(json.dumps(described(pack))))
    assert not found, "\n".join([*found, RENEW])


def _appended(node, **fields):
    node["inputs"].append({"id": "extra", "type": "INT", "optional": True, "tooltip": True, **fields})


CHANGES = {
    "renamed input": lambda node: node["inputs"][0].update(id="other"),
    "another type": lambda node: node["inputs"][0].update(type="IMAGE"),
    "another order": lambda node: node["inputs"].reverse(),
    "lost input": lambda node: node["inputs"].pop(),
    "now required": lambda node: node["inputs"][-1].update(optional=False),
    "another default": lambda node: node["inputs"][2].update(default=1.0),
    "another range": lambda node: node["inputs"][2].update(max=1.0),
    "lost option": lambda node: node["inputs"][-1]["options"].pop(),
    "input in front": lambda node: node["inputs"].insert(0, {"id": "extra", "type": "INT", "optional": True}),
    "required input behind": lambda node: _appended(node, optional=False),
    "renamed output": lambda node: node["outputs"][0].update(name="other"),
    "another output": lambda node: node["outputs"].insert(0, {"name": "mask", "type": "MASK"}),
    "another name": lambda node: node.update(name="Apply"),
    "another category": lambda node: node.update(category="other"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_of_a_node_is_seen(change):
    frozen = json.loads(SNAPSHOT.read_text())
    found = copy.deepcopy(frozen)
    change(found["MMDiffApplyAttention"])
    assert len(differences(frozen, found)) == 1


def test_a_node_more_or_less_is_seen():
    frozen = json.loads(SNAPSHOT.read_text())
    fewer = {node: schema for node, schema in frozen.items() if node != "MMDiffLoad"}
    assert differences(frozen, fewer) and differences(fewer, frozen)


def test_an_optional_input_behind_the_others_is_allowed():
    frozen = json.loads(SNAPSHOT.read_text())
    found = copy.deepcopy(frozen)
    for node in found.values():
        _appended(node)
    assert not differences(frozen, found)


def test_every_node_says_what_it_is(pack):
    for name, node in pack.items():
        schema = node.GET_SCHEMA()
        assert schema.description and schema.display_name, f"{name} has no description or name"
        assert schema.search_aliases, f"{name} has no search aliases"
        without = [one["id"] for one in map(described_input, schema.inputs) if not one["tooltip"]]
        assert not without, f"{name}: no tooltip on {', '.join(without)}"
        assert all(one.display_name for one in schema.outputs), f"{name} has an output without a name"


def test_an_error_says_which_node(pack):
    with pytest.raises(ValueError, match="^Load MM-Diff: There is no checkpoint 'nowhere'"):
        pack["MMDiffLoad"].execute(checkpoint="nowhere")
    with pytest.raises(ValueError, match="^Load Subject: There is no subject 'nobody"):
        pack["MMDiffLoadSubject"].execute(subject="nobody")
    without = [name for name, node in pack.items() if "Node" not in [base.__name__ for base in node.__mro__]]
    assert not without, f"{', '.join(without)}: no types.Node, whose errors begin with its name"


def test_every_node_has_a_help_page(pack):
    """The host's page shows `docs/<node id>.md` of what the pack serves to the browser."""
    missing = [name for name in pack if not (ROOT / "js" / "docs" / f"{name}.md").is_file()]
    assert not missing, f"js/docs lacks the pages of {', '.join(missing)}"


def first(one: dict) -> str:
    """An input's name, or that of the first socket that grows from it."""
    template = one.get("template")
    if template is None:
        return one["id"]
    return f"{template['prefix']}0" if "prefix" in template else template["names"][0]


def test_the_help_pages_name_every_input(pack):
    for name, node in described(pack).items():
        page = ROOT / "js" / "docs" / f"{name}.md"
        if page.is_file():
            text = page.read_text()
            seen = [first(one) for one in node["inputs"]]
            without = [name for name in seen if f"`{name}`" not in text]
            assert not without, f"{page.relative_to(ROOT)} does not explain {', '.join(without)}"


if __name__ == "__main__":
    import asyncio

    import conftest  # noqa: F401  (puts the host on the path)

    import nodes

    asyncio.run(nodes.load_custom_node(str(ROOT)))
    ours = {name: node for name, node in nodes.NODE_CLASS_MAPPINGS.items() if name.startswith("MMDiff")}
    SNAPSHOT.write_text(json.dumps(described(ours), indent=1) + "\n")
