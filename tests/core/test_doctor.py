"""What is there and what is missing, told without loading any weights."""

import json
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from mmdiff_core.checkpoint import RELEASED_FILES, save_checkpoint
from mmdiff_core.demo import CHECKPOINT
from mmdiff_core.doctor import below, checkpoints, needed, report

ROOT = Path(__file__).parents[2]


def test_an_empty_comfyui_is_told_where_to_get_everything(tmp_path):
    found = needed(below(tmp_path))
    assert all(one.found == () and one.link.startswith("https://") for one in found.values())
    text = report(tmp_path)
    assert text.count("MISSING") == 4 and str(tmp_path / "mmdiff") in text


def adapter(hidden, context=768):
    """The header of an IP-Adapter Plus for SD1.5, but for its size, of tensors made for an encoder."""
    tensors = {
        "image_proj.latents": torch.zeros(1, 4, 8),
        "image_proj.proj_in.weight": torch.zeros(8, hidden),
        "image_proj.proj_in.bias": torch.zeros(8),
        "image_proj.proj_out.weight": torch.zeros(context, 8),
        "image_proj.proj_out.bias": torch.zeros(context),
        "image_proj.norm_out.weight": torch.zeros(context),
        "image_proj.norm_out.bias": torch.zeros(context),
        "image_proj.layers.0.0.norm1.weight": torch.zeros(8),
        "image_proj.layers.0.0.norm1.bias": torch.zeros(8),
        "image_proj.layers.0.0.norm2.weight": torch.zeros(8),
        "image_proj.layers.0.0.norm2.bias": torch.zeros(8),
        "image_proj.layers.0.0.to_q.weight": torch.zeros(64, 8),
        "image_proj.layers.0.0.to_kv.weight": torch.zeros(128, 8),
        "image_proj.layers.0.0.to_out.weight": torch.zeros(8, 64),
        "image_proj.layers.0.1.0.weight": torch.zeros(8),
        "image_proj.layers.0.1.0.bias": torch.zeros(8),
        "image_proj.layers.0.1.1.weight": torch.zeros(32, 8),
        "image_proj.layers.0.1.3.weight": torch.zeros(8, 32),
    }
    for number in range(1, 32, 2):
        for name in ("to_k_ip", "to_v_ip"):
            tensors[f"ip_adapter.{number}.{name}.weight"] = torch.zeros(8, context)
    return tensors


def encoder(hidden, projection):
    return {
        "vision_model.embeddings.class_embedding": torch.zeros(hidden),
        "visual_projection.weight": torch.zeros(projection, hidden),
    }


def test_checkpoints_are_named_for_what_they_are_and_want(tmp_path):
    folder, adapters = tmp_path / "mmdiff", tmp_path / "ipadapter"
    for made in (folder / "released", folder / "subjects", adapters):
        made.mkdir(parents=True)
    for name in RELEASED_FILES:
        (folder / "released" / name).touch()
    (folder / "demo.safetensors").symlink_to(CHECKPOINT)
    save_file({"a": torch.zeros(1)}, folder / "other.safetensors")
    save_file(adapter(1280), adapters / "plus.safetensors")
    (adapters / "old.bin").touch()
    (folder / "broken.safetensors").write_bytes(b"<html>")
    save_file({"a": torch.zeros(1)}, folder / "subjects" / "ada.safetensors")
    found = {name: one.what for name, one in checkpoints(below(tmp_path)).items()}
    assert found["released"] == "the released three files (SDXL, portraits)"
    assert found["demo.safetensors"].startswith("MM-Diff for SD1.5")
    assert "neither an MM-Diff checkpoint" in found["other.safetensors"]
    assert "is a web page, not weights" in found["broken.safetensors"]
    assert found["ipadapter/plus.safetensors"] == "IP-Adapter Plus for SD1.5, wants CLIP ViT-H/14"
    assert found["ipadapter/old.bin"].startswith("a pickle")
    assert len(found) == 6, "saved subjects are none"


def test_the_vision_encoder_is_known_by_its_shape_and_not_by_its_name(tmp_path):
    (tmp_path / "clip_vision").mkdir()
    save_file(encoder(1280, 1024), tmp_path / "clip_vision" / "clip-vit-large-patch14.safetensors")
    assert needed(below(tmp_path))["vision"].found == ()
    save_file(encoder(1024, 768), tmp_path / "clip_vision" / "anything.safetensors")
    assert "anything.safetensors: CLIP ViT-L/14" in needed(below(tmp_path))["vision"].found


def test_the_encoder_that_the_checkpoints_there_want_is_asked_for(tmp_path):
    for kind in ("clip_vision", "ipadapter"):
        (tmp_path / kind).mkdir()
    save_file(encoder(1024, 768), tmp_path / "clip_vision" / "large.safetensors")
    save_file(adapter(1280), tmp_path / "ipadapter" / "plus.safetensors")
    asked = needed(below(tmp_path))["vision"]
    assert asked.what == "CLIP ViT-H/14 (laion)" and asked.found == () and "h94/IP-Adapter" in asked.link
    save_file(encoder(1280, 1024), tmp_path / "clip_vision" / "huge.safetensors")
    assert "huge.safetensors: CLIP ViT-H/14" in needed(below(tmp_path))["vision"].found


def test_one_of_two_face_files_is_not_enough(tmp_path):
    folder = tmp_path / "insightface" / "models" / "buffalo_l"
    folder.mkdir(parents=True)
    (folder / "det_10g.onnx").touch()
    assert needed(below(tmp_path))["faces"].found == ()
    (folder / "w600k_r50.onnx").touch()
    assert len(needed(below(tmp_path))["faces"].found) == 2


def test_the_face_models_that_the_checkpoints_there_want_are_asked_for(tmp_path, make):
    """dlib's for a portrait by dlib, and beside the released checkpoint's where both are there."""
    (tmp_path / "mmdiff").mkdir()
    save_checkpoint(make(identity="face", recogniser="dlib"), tmp_path / "mmdiff" / "portrait.safetensors")
    asked = needed(below(tmp_path))["faces"]
    assert "dlib_face_recognition" in asked.what and "CC0" in asked.what and "buffalo_l" not in asked.what
    assert asked.found == () and "dlib-models" in asked.link and asked.folder == str(tmp_path / "dlib")
    (tmp_path / "dlib").mkdir()
    for name in ("dlib_face_recognition_resnet_model_v1.dat", "shape_predictor_5_face_landmarks.dat"):
        assert needed(below(tmp_path))["faces"].found == ()
        (tmp_path / "dlib" / name).touch()
    assert len(needed(below(tmp_path))["faces"].found) == 2
    (tmp_path / "mmdiff" / "released").mkdir()
    for name in RELEASED_FILES:
        (tmp_path / "mmdiff" / "released" / name).touch()
    asked = needed(below(tmp_path))["faces"]
    assert "buffalo_l" in asked.what and "dlib" not in asked.what and asked.found == ()


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
    json.dumps({name: one._asdict() for name, one in needed(below(tmp_path)).items()})
