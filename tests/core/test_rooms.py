"""The rooms of the core, by its own import statements: dependencies point one way."""

import ast
from pathlib import Path

import pytest

CORE = Path(__file__).parents[2] / "mmdiff_core"
FLOORS = [
    {"errors", "chance"},
    {"files", "named", "picture_files", "photo", "prompt", "spec", "sheet"},
    {"face", "model", "data", "cutout"},
    {"checkpoint", "constraint", "subject", "world"},
    {"drawing", "cast"},
    {"training", "evaluation", "demo", "annotation"},
]
"""From the bottom up. What is not listed is a face of its own: the package, its command line, and what they open."""


def imported(path: Path) -> set[str]:
    """The rooms that a file of the core imports from, also inside functions."""
    package = ["mmdiff_core", *path.relative_to(CORE).parts[:-1]]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            names = [*base, *(node.module or "").split(".")]
            rooms = [names[1]] if len(names) > 1 and names[1] else [alias.name for alias in node.names]
            found |= set(rooms) if names[0] == "mmdiff_core" else {names[0]}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
    return found


def files(room: str) -> list[Path]:
    return [CORE / f"{room}.py"] if (CORE / f"{room}.py").is_file() else sorted((CORE / room).rglob("*.py"))


@pytest.mark.parametrize("floor", range(len(FLOORS)))
def test_a_room_stands_on_lower_floors_only(floor):
    for room in FLOORS[floor]:
        above = set().union(*FLOORS[floor:]) - {room}
        assert files(room), f"{room} is gone; take it out of this list"
        for path in files(room):
            assert not imported(path) & above, path


def test_the_core_knows_no_host():
    assert not [path for path in CORE.rglob("*.py") if imported(path) & {"comfy", "comfy_api", "folder_paths", "nodes"}]
