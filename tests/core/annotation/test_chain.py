"""Forty pictures become a checkpoint that others use, and nothing about it is lost on the way."""

import base64
import io
import json
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open

pytest.importorskip("diffusers")

import chain  # noqa: E402

from mmdiff_core import MMDiffError, load_checkpoint  # noqa: E402
from mmdiff_core.__main__ import main  # noqa: E402
from mmdiff_core.packing import Wording, pack  # noqa: E402

WORDS = Wording("Boxes", "me", "CC0-1.0")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return chain.make(tmp_path_factory.mktemp("chain"))


def metadata(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return file.metadata()


def test_every_picture_is_a_record_and_the_run_is_evaluated(made):
    assert len(made.written.names) == chain.PICTURES and made.written.people == 4
    rows = [json.loads(line) for line in (made.run / "losses.jsonl").read_text().splitlines()]
    assert len(rows) == chain.STEPS and any(row["image"] for row in rows), "pairs constrain the image branch"
    assert len(made.values["full"]["dino"]) == 2


def test_the_packed_file_is_the_runs_checkpoint(made):
    trained, packed = load_checkpoint(max(made.run.glob("step-*"))), load_checkpoint(made.packed)
    assert packed.spec == trained.spec and packed.source == trained.source
    theirs = packed.tensors()
    assert all(torch.equal(value, theirs[key]) for key, value in trained.tensors().items())


def test_the_file_and_its_card_say_what_the_run_knows(made):
    about, card = metadata(made.packed), made.packed.with_suffix(".md").read_text()
    assert about["modelspec.license"] == "CC0-1.0" and about["modelspec.title"] == "Boxes <1>"
    assert about["modelspec.architecture"] == "stable-diffusion-v1/mm-diff"
    kind, _, content = about["modelspec.thumbnail"].partition(",")
    assert kind == "data:image/jpeg;base64" and max(Image.open(io.BytesIO(base64.b64decode(content))).size) <= 512
    for words in (
        'license: "CC0-1.0"',
        "# Boxes <1>",
        "Boxes in the dust.",
        "`boxes.safetensors`",
        "| steps | 3 |",
        "| data | annotated, records |",
        "loss `denoise`, mean of the last 3 steps",
        "| dino |",
    ):
        assert words in card, words
    assert str(made.run) not in card, "no path of the machine it was made on"


def test_half_as_large(made, tmp_path):
    pack(made.run, tmp_path / "half.safetensors", WORDS, half=True)
    assert (tmp_path / "half.safetensors").stat().st_size < 0.7 * made.packed.stat().st_size
    whole, half = load_checkpoint(made.packed), load_checkpoint(tmp_path / "half.safetensors")
    for key, value in whole.heads.state_dict().items():
        assert torch.allclose(half.heads.state_dict()[key], value, rtol=1e-3, atol=1e-4)


def test_what_can_t_be_packed_is_named(made, tmp_path):
    with pytest.raises(MMDiffError, match="holds no step-"):
        pack(tmp_path, tmp_path / "a.safetensors", WORDS)
    with pytest.raises(MMDiffError, match="must end in .safetensors"):
        pack(made.run, tmp_path / "a.bin", WORDS)
    with pytest.raises(MMDiffError, match="There is a file .*boxes.safetensors already"):
        pack(made.run, made.packed, WORDS)
    with pytest.raises(MMDiffError, match="no results.md"):
        pack(made.run, tmp_path / "a.safetensors", WORDS, results=tmp_path)
    with pytest.raises(MMDiffError, match="can't be read as a picture"):
        pack(made.run, tmp_path / "a.safetensors", WORDS, thumbnail=made.run / "losses.jsonl")
    assert not list(tmp_path.iterdir())


def test_the_command(made, tmp_path, monkeypatch, capsys):
    out = tmp_path / "mine.safetensors"
    given = ["pack", str(made.run), str(out), "--author", "me", "--license", "MIT"]
    monkeypatch.setattr(sys, "argv", ["mm-diff", *given])
    assert main() == 0, capsys.readouterr().err
    assert "mine.md" in capsys.readouterr().out and metadata(out)["modelspec.title"] == "mine"
