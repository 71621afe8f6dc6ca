"""What is there and what is missing, told without loading any weights."""

import json
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from mmdiff_core.checkpoint import RELEASED_FILES
from mmdiff_core.demo import CHECKPOINT
from mmdiff_core.doctor import LARGE, POSITIONS, below, checkpoints, report, wanted

ROOT = Path(__file__).parents[2]


def test_an_empty_comfyui_is_told_where_to_get_everything(tmp_path):
    found = wanted(below(tmp_path))
    assert all(one.found == () and one.link.startswith("https://") for one in found.values())
    text = report(tmp_path)
    assert text.count("MISSING") == 4 and str(tmp_path / "mmdiff") in text


def test_checkpoints_are_named_for_what_they_are(tmp_path):
    (tmp_path / "released").mkdir()
    for name in RELEASED_FILES:
        (tmp_path / "released" / name).touch()
    (tmp_path / "demo.safetensors").symlink_to(CHECKPOINT)
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    adapter = {"image_proj.proj.weight": torch.zeros(1), "ip_adapter.1.to_k_ip.weight": torch.zeros(1)}
    save_file(adapter, tmp_path / "adapter.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"<html>")
    (tmp_path / "subjects").mkdir()
    save_file({"a": torch.zeros(1)}, tmp_path / "subjects" / "ada.safetensors")
    found = checkpoints([tmp_path])
    assert found["released"] == "the released three files (SDXL, portraits)"
    assert found["demo.safetensors"].endswith("any subject")
    assert found["other.safetensors"] == "no checkpoint that is known here"
    assert found["broken.safetensors"].startswith("not a whole safetensors file")
    assert found["adapter.safetensors"] == "an IP-Adapter"
    assert len(found) == 5, "saved subjects are none"


def test_the_vision_encoder_is_known_by_its_shape_and_not_by_its_name(tmp_path):
    (tmp_path / "clip_vision").mkdir()
    save_file({POSITIONS: torch.zeros(LARGE)}, tmp_path / "clip_vision" / "anything.safetensors")
    save_file({POSITIONS: torch.zeros(257, 1280)}, tmp_path / "clip_vision" / "clip-vit-large-patch14.safetensors")
    assert wanted(below(tmp_path))["vision"].found == ("anything.safetensors",)


def test_one_of_two_face_files_is_not_enough(tmp_path):
    folder = tmp_path / "insightface" / "models" / "buffalo_l"
    folder.mkdir(parents=True)
    (folder / "det_10g.onnx").touch()
    assert wanted(below(tmp_path))["faces"].found == ()
    (folder / "w600k_r50.onnx").touch()
    assert len(wanted(below(tmp_path))["faces"].found) == 2


def call(*arguments):
    command = [sys.executable, "-m", "mmdiff_core", "doctor", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_the_command(tmp_path):
    (tmp_path / "models").mkdir()
    ran = call(tmp_path)
    assert ran.returncode == 0 and "MISSING  MM-Diff checkpoint" in ran.stdout
    assert "torch" in call().stdout
    wrong = call(tmp_path / "models")
    assert wrong.returncode == 1 and "has no folder `models`" in wrong.stderr


def test_what_is_found_is_plain_json(tmp_path):
    json.dumps({name: one._asdict() for name, one in wanted(below(tmp_path)).items()})
