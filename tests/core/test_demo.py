"""The model that ships with the pack, outside of a host: real pictures, and who is in them."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from mmdiff_core.demo import FOLDER, SUBJECTS
from mmdiff_core.drawing.drawer import load
from mmdiff_core.photo import prepare_photos
from mmdiff_core.picture_files import read_pixels
from tests.likeness import NAMES, alone, from_left

ROOT = Path(__file__).parents[2]
SCENES = ("on the beach", "in the forest", "in space", "in a kitchen")
PAIRS = (("penguin", "fire engine"), ("popcorn", "kiwi"), ("ladybug", "owl"))


def call(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "mmdiff_core", "demo", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def run():
    return load(FOLDER)


def photos(*names: str) -> torch.Tensor:
    """(S, 3, P, P) references of bundled subjects."""
    return torch.cat([prepare_photos(read_pixels(SUBJECTS / f"{name}.png")[None], 64) for name in names])


def share(run, references: list[torch.Tensor], wanted: list[str]) -> float:
    """The share of pictures of a subject, each in every scene, that show who is wanted."""
    right = []
    for scene in SCENES:
        prompts = [f"a toy{'<|subj|>' * len(one)} {scene}" for one in references]
        pictures = run(prompts, references, list(range(len(references))))
        right += [alone(picture) == name for picture, name in zip(pictures, wanted, strict=True)]
    return sum(right) / len(right)


def test_an_unseen_subject_is_who_is_drawn(run):
    """Likest to the right one of 24 in far more pictures than words alone would make it."""
    references = [photos(name) for name in NAMES]
    found = share(run, references, list(NAMES))
    floor = share(run, [torch.zeros(0, 3, 64, 64)] * len(NAMES), list(NAMES))
    print(f"right in {found:.2f} of the pictures, without a reference in {floor:.2f}")
    assert found >= floor + 0.7


def test_references_that_are_swapped_swap_the_subjects(run):
    for first, second in PAIRS:
        prompt = "a toy<|subj|> to the left of a toy<|subj|> in a meadow"
        one, other = run([prompt] * 2, [photos(first, second), photos(second, first)], [3, 3])
        assert from_left(one) == [first, second] and from_left(other) == [second, first]


def test_the_command_draws_the_bundled_subjects(tmp_path):
    done = call("--out", tmp_path)
    assert done.returncode == 0, done.stderr
    sheet = Image.open(tmp_path / "sheet.png")
    pictures = sorted(tmp_path.glob("[0-9]*.png"))
    assert len(pictures) == 6 and all(Image.open(picture).size == (128, 128) for picture in pictures)
    assert sheet.width > 5 * 128 and str(tmp_path / "sheet.png") in done.stdout


def test_the_command_draws_ones_own(tmp_path):
    """A photo with a background and a turned one, in one picture."""
    own = ROOT / "assets" / "cat.jpg"
    prompt = "a toy<|subj|> and a toy<|subj|> in the snow"
    done = call("--image", own, "--image", SUBJECTS / "owl.png", "--prompt", prompt, "--out", tmp_path, "--seed", 5)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in sorted(tmp_path.glob("[0-9]*.png"))] == ["01.png"]


def test_the_command_cuts_a_subject_out_of_its_plain_ground(tmp_path):
    """As Encode Subject does, and it says so."""
    with Image.open(SUBJECTS / "owl.png") as opened:
        owl = opened.convert("RGBA")
    paper = Image.new("RGB", (3 * owl.width, 2 * owl.height), "white")
    paper.paste(owl, (owl.width, owl.height // 2), owl)
    paper.save(tmp_path / "paper.png")
    done = call("--image", tmp_path / "paper.png", "--prompt", "a toy<|subj|> in the snow", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "paper.png: The subject was cut out of its plain background." in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--image", "missing.png"), "missing.png can't be read as a picture"),
        (("--image", "owl.png", "--prompt", "a toy on the beach"), "0 <|subj|>, and --image was given 1 times"),
        (("--image", "owl.png", "--prompt", "a toy<|subj:Owl|> on the beach"), "no subject has that name"),
        (("--image", "owl.png", "--prompt", "so " * 40 + "a toy<|subj|>"), "behind the 40 tokens"),
        (("--image", "owl.png", "--prompt", "a toy<|subj|> and a toy<|subj|>"), "<|subj|>"),
        (("--image", "owl.png", "--image", "owl.png", "--image", "owl.png"), "--prompt"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, arguments, said):
    done = call(*(str(SUBJECTS / one) if one.endswith(".png") else one for one in arguments), "--out", tmp_path / "out")
    assert done.returncode == 1 and said in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cant_be_written_is_named_before_anything_is_drawn(tmp_path):
    (tmp_path / "out").write_text("a file")
    done = call("--out", tmp_path / "out")
    assert done.returncode == 1 and "--out" in done.stderr and "picture/s" not in done.stderr, done.stderr


def test_the_readmes_command_takes_paths_from_where_it_is_called(tmp_path, monkeypatch):
    import dev

    asked = []
    monkeypatch.setattr(dev, "own_python", lambda: sys.executable)
    monkeypatch.setattr(
        subprocess, "run", lambda command, **options: asked.append(options) or SimpleNamespace(returncode=0)
    )
    monkeypatch.chdir(tmp_path)
    dev.demo("--image", "mine.png")
    assert asked[0]["cwd"] == tmp_path and asked[0]["env"]["PYTHONPATH"] == str(ROOT)


def test_it_fits_where_it_is_shipped():
    assert sum(path.stat().st_size for path in FOLDER.rglob("*")) <= 25e6
