"""The command line of the evaluation, as a user calls it."""

import json
import subprocess
import sys
from pathlib import Path

from tiny_world import make_atlas

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
