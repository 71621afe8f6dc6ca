"""Training runs as arms: they draw the same case from the same noise, and what they were trained to see decides."""

import pytest
import torch

pytest.importorskip("diffusers")

from tiny_base import make_base, make_vision, settings  # noqa: E402
from tiny_world import make_atlas  # noqa: E402
from yaml import safe_dump  # noqa: E402

from mmdiff_core import MMDiffError  # noqa: E402
from mmdiff_core.evaluation import world_benchmark  # noqa: E402
from mmdiff_core.evaluation.cases import read_json  # noqa: E402
from mmdiff_core.evaluation.net_training import train_nets  # noqa: E402
from mmdiff_core.evaluation.run import Run  # noqa: E402
from mmdiff_core.training.config import read_config  # noqa: E402
from mmdiff_core.training.trainer import train  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A base, and three runs on scenes of the tiny world: full, another seed, and one that never sees subjects."""
    folder = tmp_path_factory.mktemp("runs")
    make_base(folder / "base")
    make_vision(folder / "vision")
    atlas = make_atlas(folder / "atlas.npz")
    data = {"kind": "world", "options": {"atlas": str(atlas), "split": "val"}}
    arms = {"full": {}, "other": {"seed": 5}, "text": {"drop": {"image": 1.0, "text": 0.0, "both": 0.0}}}
    for name, sections in arms.items():
        given = {"train": {"steps": 1, "lr": 0.05}, "samples": {"steps": 2}, "out": str(folder / name), **sections}
        (folder / f"{name}.yaml").write_text(safe_dump(settings(folder, data=data, **given)))
        train(read_config(folder / f"{name}.yaml"), resume=False)
    train_nets(atlas, folder / "nets.safetensors", 1, lambda line: None)
    return folder


def draw(run, references, seed=4, prompt="a red box<|subj|> on a table"):
    return run([prompt], [references], [seed])[0]


def test_a_run_draws_from_prompt_references_and_seed(folder):
    run = Run.of_training(folder / "full")
    red, blue = torch.zeros(2, 1, 3, 40, 40)
    red[:, 0], blue[:, 2] = 1, 1
    picture = draw(run, red)
    assert picture.shape == (3, 32, 32) and picture.min() >= 0 and picture.max() <= 1
    assert torch.equal(picture, draw(run, red)) and torch.equal(picture, draw(Run.of_training(folder / "full"), red))
    assert not torch.equal(picture, draw(run, blue))
    assert not torch.allclose(picture, draw(run, red, seed=5), atol=1e-3)
    assert not torch.equal(picture, draw(run, red, prompt="a blue box<|subj|> on a table"))
    pair = run(["a box<|subj|> and a cup<|subj|>", "a box<|subj|>"], [torch.cat((red, blue)), red], [1, 2])
    assert pair.shape == (2, 3, 32, 32), "cases of one and of two subjects in one batch"


def test_a_text_only_arm_does_not_see_references(folder):
    run = Run.of_training(folder / "text")
    red, blue = torch.zeros(1, 3, 40, 40), torch.ones(1, 3, 40, 40)
    assert torch.equal(draw(run, red), draw(run, blue))


def test_all_arms_start_from_the_same_noise(folder, monkeypatch):
    noise = []

    def record(trainee, batch, unconditional, steps, guidance):
        noise.append(batch.randn((4, 16, 16), "noise"))
        return torch.zeros(1, 3, 32, 32)

    monkeypatch.setattr("mmdiff_core.evaluation.run.sample", record)
    for name, seed in (("full", 4), ("other", 4), ("full", 5)):
        draw(Run.of_training(folder / name), torch.zeros(1, 3, 28, 28), seed)
    assert torch.equal(noise[0], noise[1]) and not torch.equal(noise[0], noise[2])


def test_arms_are_compared_case_by_case(folder, tmp_path):
    arms = [f"{name}={folder / name}" for name in ("full", "other", "text")]
    options = world_benchmark.Options(
        folder / "atlas.npz", tmp_path, arms, folder / "nets.safetensors", number=6, resolution=32, photo=28
    )
    world_benchmark.run(options)
    found = read_json(tmp_path / "results.json")
    assert found["full"] == "full" and {"other", "text"} < set(found["differences"])
    values = found["values"]["full"]["image attention, own"]
    even = found["values"]["oracle: even attention"]["image attention, own"]
    assert values.keys() == even.keys() and all(0 < value < 1 for value in values.values())
    assert "text attention, own" in found["values"]["text"] and "image attention, own" not in found["values"]["text"]
    with pytest.raises(MMDiffError, match="holds pictures of another run"):
        world_benchmark.run(world_benchmark.Options(**{**vars(options), "arms": [f"full={folder / 'other'}"]}))


def test_a_state_that_is_no_run_is_refused(folder, tmp_path):
    (tmp_path / "state.safetensors").write_bytes((folder / "nets.safetensors").read_bytes())
    with pytest.raises(MMDiffError, match="is no state of a training run"):
        Run.of_training(tmp_path)
