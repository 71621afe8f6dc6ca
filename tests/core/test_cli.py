"""The command line, as a user calls it."""

import json
import subprocess
import sys
from pathlib import Path

import torch
from PIL import Image
from safetensors import safe_open

from mmdiff_core import load_checkpoint, load_subject

ROOT = Path(__file__).parents[2]


def call(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "mmdiff_core", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_demo_writes_a_subject_of_a_photo(tmp_path):
    photo = tmp_path / "photo.png"
    Image.linear_gradient("L").resize((90, 60)).convert("RGB").save(photo)
    done = call("demo", "--image", photo, "--out", tmp_path / "out", "--name", "Ada")
    assert done.returncode == 0, done.stderr
    subject = load_subject(tmp_path / "out" / "Ada.safetensors")
    mmdiff = load_checkpoint(tmp_path / "out" / "checkpoint.safetensors")
    assert subject.source == mmdiff.source and subject.tokens.shape == (4, mmdiff.heads.context_width)
    assert subject.tokens.isfinite().all() and subject.tokens.std() > 0
    assert Image.open(tmp_path / "out" / "prepared.png").getpixel((112, 0)) == (0, 0, 0), "padding is black"
    assert "Ada.safetensors: 4 tokens" in done.stdout


def test_demo_of_another_photo_is_another_subject(tmp_path):
    for number, color in enumerate(("red", "blue")):
        Image.new("RGB", (64, 64), color).save(tmp_path / f"{number}.png")
        assert call("demo", "--image", tmp_path / f"{number}.png", "--out", tmp_path, "--name", number).returncode == 0
    red, blue = (load_subject(tmp_path / f"{number}.safetensors") for number in (0, 1))
    assert not torch.allclose(red.tokens, blue.tokens)


def test_convert_and_inspect_a_checkpoint(tmp_path):
    assert call("demo", "--out", tmp_path).returncode == 0
    made = tmp_path / "checkpoint.safetensors"
    assert call("convert", made, tmp_path / "copy.safetensors").returncode == 0
    with safe_open(made, "pt") as a, safe_open(tmp_path / "copy.safetensors", "pt") as b:
        assert json.loads(a.metadata()["mmdiff"]) == json.loads(b.metadata()["mmdiff"])
        assert all(torch.equal(a.get_tensor(key), b.get_tensor(key)) for key in a.keys())  # noqa: SIM118
    shown = call("inspect", made)
    assert shown.returncode == 0 and "4 attention layers" in shown.stdout and "rank 8" in shown.stdout


def test_bad_input_is_one_sentence(tmp_path):
    (tmp_path / "page.safetensors").write_text("<!DOCTYPE html><p>sign in")
    (tmp_path / "note.png").write_text("not a picture")
    for arguments in (
        ("inspect", tmp_path / "missing.safetensors"),
        ("inspect", tmp_path / "page.safetensors"),
        ("convert", tmp_path, tmp_path / "out.safetensors"),
        ("demo", "--image", tmp_path / "note.png", "--out", tmp_path),
        ("demo", "--name", "../../cat", "--out", tmp_path),
    ):
        done = call(*arguments)
        assert done.returncode == 1 and str(tmp_path) in done.stderr, (arguments, done.stderr)
        assert "Traceback" not in done.stderr
