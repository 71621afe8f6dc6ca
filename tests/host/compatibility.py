"""Write docs/compatibility.md from the tests with other nodes by their own code.

    COMFYUI_DIR=~/ComfyUI:~/ComfyUI-0.16.4 NEIGHBOURS_DIR=~/packs python tests/host/compatibility.py

NEIGHBOURS_DIR: see others.py. A test says by `@pytest.mark.neighbour(name, repository, what is run, in which orders)`
that it is a row.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ROOT = Path(__file__).parents[2]
HEAD = """# Other nodes

Made by `python tests/host/compatibility.py` from the tests, on a CPU, with the nodes' own code and small models of
random weights. *Right*: every test of the row passed; what it compares is in the test. *Order*: whether the node stood
before or after **Apply MM-Diff Attention** on the model.

"""


Results = dict[tuple[str, ...], set[str]]
"""A row of the table to what its tests came to in one host."""


def results(host: Path) -> Results:
    """Run the marked tests in a host."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "tests/host", "-q", "-m", "neighbour", f"--junitxml={report}"]
        command += ["-o", "junit_family=xunit1"]  # which has properties of a test
        subprocess.run(command, cwd=ROOT, env={**os.environ, "COMFYUI_DIR": str(host)}, check=False)
        return read(report)


def read(report: Path) -> Results:
    """What stands in pytest's report."""
    rows: Results = {}
    for case in ElementTree.parse(report).iter("testcase"):
        for told in case.iter("property"):
            if told.get("name") == "neighbour":
                rows.setdefault(tuple(json.loads(told.get("value"))), set()).add(_came_to(case))
    return rows


def _came_to(case: ElementTree.Element) -> str:
    if (skipped := case.find("skipped")) is not None:
        return f"not run: {skipped.get('message')}"
    return "right" if case.find("failure") is None and case.find("error") is None else "WRONG"


def version(host: Path) -> str:
    return re.search(r'"(.+?)"', (host / "comfyui_version.py").read_text())[1]


def commit(repository: str) -> str:
    """Which version of a pack was run; that of the host is at the head of its column."""
    path = Path(os.environ.get("NEIGHBOURS_DIR", "")) / repository.rpartition("/")[2]
    if repository == "Comfy-Org/ComfyUI" or not path.is_dir():
        return ""
    asked = ["git", "-C", str(path), "log", "-1", "--format=%h of %cs"]
    return f" {subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()}"


def table(found: dict[str, Results]) -> str:
    """The page. found: the version of each host to its results."""
    rows = list(dict.fromkeys(row for one in found.values() for row in one))
    lines = [
        "| node | of | what was run | order | " + " | ".join(f"ComfyUI {one}" for one in found) + " |",
        "|---|---|---|---|" + "---|" * len(found),
    ]
    for row in sorted(rows, key=lambda row: (row[1] != "Comfy-Org/ComfyUI", row[1], row[0])):
        name, repository, run, order = row
        came = [", ".join(sorted(one.get(row, {"not run"}))) for one in found.values()]
        lines.append("| " + " | ".join([name, f"{repository}{commit(repository)}", run, order, *came]) + " |")
    return HEAD + "\n".join(lines) + "\n"


def main() -> None:
    hosts = [Path(folder).expanduser() for folder in os.environ["COMFYUI_DIR"].split(os.pathsep)]
    (ROOT / "docs" / "compatibility.md").write_text(table({version(host): results(host) for host in hosts}))


if __name__ == "__main__":
    main()
