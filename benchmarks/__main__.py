"""Run every benchmark, each in a process of its own, write results.json and print the table: `python -m benchmarks`."""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
IMPORTS = 5


def measured(*module_and_arguments: str) -> dict[str, Any]:
    """What a benchmark's last line says."""
    print("running", *module_and_arguments, file=sys.stderr)
    command = [sys.executable, "-m", *module_and_arguments]
    done = subprocess.run(command, cwd=HERE.parent, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def table(results: dict[str, Any]) -> str:
    """The results in Markdown."""
    steps = {name: results[name]["rows"] for name in ("sdxl", "sd15") if name in results}
    lines = [
        "| step with over step without | " + " | ".join(f"{name}: time | {name}: operations" for name in steps) + " |",
        "|---" * (1 + 2 * len(steps)) + "|",
    ]
    for row in next(iter(steps.values()), ()):
        cells = [f"{rows[row]['step ratio']:.4f} | {rows[row]['operations ratio']:.3f}" for rows in steps.values()]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    lines += ["", "| | |", "|---|---|"]
    for part in ("cost", "imports"):
        for name, value in results.get(part, {}).items():
            lines.append(f"| {name} | {value:.3g} |" if isinstance(value, float) else f"| {name} | {value} |")
    return "\n".join(lines)


def main() -> None:
    """Benchmarks that are not asked for keep their last results."""
    choices = ("sdxl", "sd15", "cost", "imports")
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("only", nargs="*", choices=[[], *choices], metavar="{" + ",".join(choices) + "}")
    parser.add_argument("--passes", default=3, type=int, help="whole steps of each kind; default 3")
    given = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in given.only or choices:
        if name == "imports":
            runs = [measured("benchmarks.imports") for _ in range(IMPORTS)]
            results[name] = {**runs[0], "import, s": median(run["import, s"] for run in runs)}
        elif name == "cost":
            results[name] = measured("benchmarks.cost")
        else:
            results[name] = measured("benchmarks.step", name, str(given.passes))
        results[name]["machine"] = f"{platform.machine()}, one thread"
        RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
