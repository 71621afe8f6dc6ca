"""The command line, as a user calls it."""

import json
import subprocess
import sys
from pathlib import Path

import torch
from safetensors import safe_open

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
