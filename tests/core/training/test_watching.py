"""What one sees of a run: scenes held out, early figures, the page about it, and the check before it."""

import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest
import torch
from PIL import Image
from test_config import refused as refused  # a fixture
from test_training import ALL, ROOT, environment

from mmdiff_core.training.summary import read_lines

OTHER = {"options": {"records": 3}}
"""Scenes that are not those of training, as far as these can differ."""


class Figures:
    """An evaluation of one's own: how bright is what is drawn."""

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale

    def __call__(self, drawer, folder):
        drawn = drawer(["a box<|subj|>"], [torch.rand(1, 3, 28, 28)], [0])
        return {"bright <b>": self.scale * float(drawn.mean())}


class Page(HTMLParser):
    """Tags that a page opens, and the text in it."""

    def __init__(self, text):
        super().__init__()
        self.opened, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.opened.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


def test_a_run_is_watched_and_its_training_is_the_same(run, tmp_path):
    sections = {"model": ALL, "train": {"steps": 4, "batch": 2, "ema": 0.5, "lr": 1e-2}}
    watched = {
        "held": {"every": 2, "count": 3, **OTHER},
        "evaluate": {"every": 2, "kind": "test_watching:Figures", "options": {"scale": 2}},
        "samples": {"every": 4, "count": 2, "steps": 1},
    }
    bare = run("a & <i>b", **sections)
    assert run("watched", **sections, **watched) == bare
    out = tmp_path / "watched"
    held, figures = read_lines(out / "held-out.jsonl"), read_lines(out / "evaluation.jsonl")
    assert [line["step"] for line in held] == [line["step"] for line in figures] == [1, 3]
    assert held[0].keys() == {"step", "denoise", "text", "image"} and held[0] != held[1]
    assert 0 < figures[0]["bright <b>"] <= 2
    with Image.open(out / "held-out" / "step-00000004.png") as picture:
        assert picture.width > 7 * 96, "a scene, and of two subjects mask, word and photo"

    page = Page((out / "summary.html").read_text())
    tags = [tag for tag, _ in page.opened]
    assert tags.count("svg") == 5 and tags.count("img") == 2 and not {"script", "link"} & set(tags)
    assert all(attributes["src"].startswith("data:") for tag, attributes in page.opened if tag == "img")
    assert "bright <b>" in page.text and "test_watching:Figures" in page.text and "4 of 4 steps" in page.text
    escaped = Page((tmp_path / "a & <i>b" / "summary.html").read_text())
    assert "a & <i>b" in escaped.text and "i" not in {tag for tag, _ in escaped.opened}

    again = run("watched", **{**sections, "train": {**sections["train"], "steps": 5}}, **watched, resume=True)
    assert again[:4] == bare and read_lines(out / "held-out.jsonl") == held


def test_what_is_held_out_is_seen_alike_each_time(run, tmp_path):
    """The same noise and timesteps, so that without learning nothing moves."""
    run(train={"steps": 4, "batch": 2, "lr": 1e-12}, held={"every": 2, "count": 4, **OTHER})
    first, second = read_lines(tmp_path / "run" / "held-out.jsonl")
    for part in ("denoise", "text", "image"):
        assert abs(first[part] - second[part]) <= 1e-6, part


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"held": {"every": 2}}, ["held.every", "held.options", "trained on"]),
        ({"held": {"every": 2, "options": {"colour": 1}}}, ["data.options.colour"]),
        ({"held": {"count": 0}}, ["held.count", "1 or more"]),
        ({"evaluate": {"every": 2, "kind": "taste"}}, ["evaluate.kind", "'taste'", "world, photos"]),
        ({"evaluate": {"every": 2, "kind": "world"}}, ["evaluate.options.atlas", "missing"]),
        (
            {"evaluate": {"every": 2, "kind": "test_watching:Figures", "options": {"big": 1}}},
            ["evaluate.options.big", "scale"],
        ),
        ({"trackers": ["paper"]}, ["trackers", "'paper'", "tensorboard, wandb"]),
        ({"trackers": ["wandb"]}, ["trackers", "wandb", "not installed"]),
    ],
)
def test_a_bad_wish_is_refused(refused, sections, words):
    sentence = refused(**sections)
    assert all(word in sentence for word in words), sentence


def test_the_check_does_everything_but_train(write, tmp_path):
    path = write(train={"steps": 600, "batch": 2, "accumulation": 2}, model=ALL)
    command = [sys.executable, "-m", "mmdiff_core", "train", "--check", "--config", str(path)]
    done = subprocess.run(command, env=environment(), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Memory for a step: about" in done.stdout and "at most 2 subjects in one" in done.stdout
    assert re.search(r"A step takes \d+\.\d\d s, .*; 600 steps take \d", done.stdout)
    assert [one.name for one in (tmp_path / "run").iterdir()] == ["check.png"]
    with Image.open(tmp_path / "run" / "check.png") as picture:
        assert picture.height > 2 * 192


def test_the_check_finds_what_would_stop_the_run(write, tmp_path):
    from mmdiff_core import MMDiffError
    from mmdiff_core.training.check import check
    from mmdiff_core.training.config import read_config

    with pytest.raises(MMDiffError, match="not finite.*square 2"):
        check(read_config(write(data={"options": {"broken": 2}}, train={"steps": 9, "batch": 2})))
