"""The command line of the evaluation, as a user calls it."""

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from tiny_world import make_atlas

from mmdiff_core.__main__ import main

ROOT = Path(__file__).parents[3]


def call(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "mmdiff_core", "evaluate", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_cases_are_written_and_bad_input_is_one_sentence(tmp_path):
    atlas = make_atlas(tmp_path / "atlas.npz")
    done = call("world", atlas, "--out", tmp_path, "--number", 3, "--photo", 24, "--cases")
    assert done.returncode == 0 and "Wrote 3 cases" in done.stdout, done.stderr
    assert len(json.loads((tmp_path / "cases.json").read_text())) == 3
    for arguments, said in (
        (("world", atlas, "--out", tmp_path), "give --nets FILE"),
        (("dreambench", tmp_path, "--out", tmp_path, "--cases"), "no prompts_and_classes.txt"),
        (("nets", tmp_path / "none.npz", tmp_path / "nets.safetensors"), "There is no atlas"),
        (("cast", atlas, tmp_path), "has no drawing.json"),
        (("world", atlas, "--out", tmp_path, "--number", 0), "0 is not a whole number of 1 or more"),
    ):
        done = call(*arguments)
        assert done.returncode and said in done.stderr and "Traceback" not in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("command", "benchmark", "kinds"),
    [
        ("world", "world", {"--arm": "arms", "--by-word": "by_word", "--cut-out": "cut_out", "--masked": "masked"}),
        ("dreambench", "photos", {"--arm": "arms", "--cut-out": "cut_out"}),
    ],
)
def test_each_kind_of_arm_reaches_its_benchmark(command, benchmark, kinds, tmp_path, monkeypatch):
    """Twice each, since every one may come several times."""
    given = []
    module = import_module(f"mmdiff_core.evaluation.{benchmark}.benchmark")
    monkeypatch.setattr(module, "run", lambda options: given.append(options) or "")
    wanted = {option: [f"{kind}-{number}=folder" for number in (1, 2)] for option, kind in kinds.items()}
    arms = [part for option, named in wanted.items() for arm in named for part in (option, arm)]
    monkeypatch.setattr(sys, "argv", ["mm-diff", "evaluate", command, "data", "--out", str(tmp_path), *arms])
    main()
    assert {option: getattr(given[0], kind) for option, kind in kinds.items()} == wanted
