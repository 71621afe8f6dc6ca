"""The command line, as a user calls it."""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import torch
from safetensors import safe_open

from mmdiff_core.__main__ import PACKAGES
from mmdiff_core.demo import CHECKPOINT

ROOT = Path(__file__).parents[2]


def call(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "mmdiff_core", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_convert_and_inspect_a_checkpoint(tmp_path):
    assert call("convert", CHECKPOINT, tmp_path / "copy.safetensors").returncode == 0
    with safe_open(CHECKPOINT, "pt") as a, safe_open(tmp_path / "copy.safetensors", "pt") as b:
        assert json.loads(a.metadata()["mmdiff"]) == json.loads(b.metadata()["mmdiff"])
        assert all(torch.equal(a.get_tensor(key), b.get_tensor(key)) for key in a.keys())  # noqa: SIM118
    shown = call("inspect", CHECKPOINT)
    assert shown.returncode == 0 and "20 attention layers" in shown.stdout and "rank 32" in shown.stdout


def test_bad_input_is_one_sentence(tmp_path):
    (tmp_path / "page.safetensors").write_text("<!DOCTYPE html><p>sign in")
    (tmp_path / "note.png").write_text("not a picture")
    for arguments in (
        ("inspect", tmp_path / "missing.safetensors"),
        ("inspect", tmp_path / "page.safetensors"),
        ("convert", tmp_path, tmp_path / "out.safetensors"),
        ("demo", "--image", tmp_path / "note.png", "--out", tmp_path),
    ):
        done = call(*arguments)
        assert done.returncode == 1 and str(tmp_path) in done.stderr, (arguments, done.stderr)
        assert "Traceback" not in done.stderr


WITHOUT = """
import sys
from mmdiff_core.__main__ import PACKAGES, main
sys.modules.update(dict.fromkeys(PACKAGES))  # as if none were installed
for words in sys.stdin.read().splitlines():
    sys.argv[1:] = words.split()
    assert main() == 1, words
"""


def test_every_command_says_which_package_is_missing(tmp_path):
    commands = [
        "demo --out out",
        "train --config none.yaml",
        "evaluate dreambench . --out out",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    options = {"cwd": tmp_path, "env": environment, "text": True, "capture_output": True}
    done = subprocess.run([sys.executable, "-c", WITHOUT], input="\n".join(commands), **options)
    assert done.returncode == 0, done.stderr
    said = done.stderr.splitlines()
    assert len(said) == len(commands)
    assert all("which is not installed: pip install" in line for line in said), said
    assert not list(tmp_path.iterdir())


def test_the_world_says_which_package_is_missing(tmp_path):
    build = """
import runpy, sys
sys.modules["resvg_py"] = None  # as if it were not installed
sys.argv = ["build", "atlas.npz"]
runpy.run_module("mmdiff_core.world.build", run_name="__main__")
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", build], cwd=tmp_path, env=environment, text=True, capture_output=True)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "Drawing the artwork needs resvg_py, which is not installed: pip install '.[world]' in a checkout"
    ]
    assert not list(tmp_path.iterdir())


def test_the_extras_suffice_for_what_the_commands_import():
    """What is missing is named by what pip calls it, and the extra installs the same."""
    project = (ROOT / "pyproject.toml").read_text()
    (draw,) = re.findall(r"^draw = (\[.*?\])", project, re.MULTILINE)
    assert sorted(json.loads(draw)) == sorted(PACKAGES.values())
    assert {name: importlib.metadata.packages_distributions()[name][0].lower() for name in PACKAGES} == PACKAGES
