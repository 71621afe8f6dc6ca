"""Training runs as arms: they draw the same case from the same noise, and what they were trained to see decides."""

import pytest
import torch

pytest.importorskip("diffusers")

from tiny_base import make_base, make_vision, settings  # noqa: E402
from tiny_world import make_atlas  # noqa: E402
from yaml import safe_dump  # noqa: E402

from mmdiff_core import MMDiffError  # noqa: E402
from mmdiff_core.cutout import plain_ground  # noqa: E402
from mmdiff_core.drawing.drawer import load  # noqa: E402
from mmdiff_core.evaluation.cases import read_json, read_picture  # noqa: E402
from mmdiff_core.evaluation.world import benchmark as world_benchmark  # noqa: E402
from mmdiff_core.evaluation.world.net_training import train_nets  # noqa: E402
from mmdiff_core.training.config import read_config  # noqa: E402
from mmdiff_core.training.start import train  # noqa: E402


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
    run = load(folder / "full")
    red, blue = torch.zeros(2, 1, 3, 40, 40)
    red[:, 0], blue[:, 2] = 1, 1
    picture = draw(run, red)
    assert picture.shape == (3, 32, 32) and picture.min() >= 0 and picture.max() <= 1
    assert torch.equal(picture, draw(run, red)) and torch.equal(picture, draw(load(folder / "full"), red))
    assert not torch.equal(picture, draw(run, blue))
    assert not torch.allclose(picture, draw(run, red, seed=5), atol=1e-3)
    assert not torch.equal(picture, draw(run, red, prompt="a blue box<|subj|> on a table"))
    pair = run(["a box<|subj|> and a cup<|subj|>", "a box<|subj|>"], [torch.cat((red, blue)), red], [1, 2])
    assert pair.shape == (2, 3, 32, 32), "cases of one and of two subjects in one batch"


def test_a_text_only_arm_does_not_see_references(folder):
    run = load(folder / "text")
    red, blue = torch.zeros(1, 3, 40, 40), torch.ones(1, 3, 40, 40)
    assert torch.equal(draw(run, red), draw(run, blue))


def test_cut_out_a_subject_fills_its_photo_wherever_it_was(folder):
    """As Encode Subject shows it: on a plain ground, what ground, and where the subject is, decide nothing."""
    small, moved = (torch.full((1, 3, 40, 40), ground) for ground in (0.0, 0.9))
    for photo, at in ((small, 4), (moved, 20)):
        photo[..., at : at + 12, at : at + 12] = torch.tensor([0.8, 0.1, 0.3]).view(3, 1, 1)
        photo[..., at + 4 : at + 8, at + 2 : at + 6] = torch.tensor([0.1, 0.2, 0.9]).view(3, 1, 1)
    whole, cut = load(folder / "full"), load(folder / "full", cut_out=True)
    assert torch.allclose(draw(cut, small), draw(cut, moved), atol=0.005)
    assert not torch.allclose(draw(whole, small), draw(whole, moved), atol=0.03)
    assert cut.source != whole.source and cut.about.endswith(", cut out")
    noise = torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(draw(cut, noise), draw(whole, noise), atol=0.005), "no plain ground: as it is"


def test_all_arms_start_from_the_same_noise(folder):
    full, other = (load(folder / name) for name in ("full", "other"))
    assert torch.equal(full.noise([4]), other.noise([4])) and not torch.equal(full.noise([4]), full.noise([5]))


def test_names_bind_whatever_their_order(folder):
    drawer = load(folder / "full")
    red, blue = torch.zeros(2, 1, 3, 40, 40)
    red[:, 0], blue[:, 2] = 1, 1
    both, swapped = torch.cat((red, blue)), torch.cat((blue, red))
    prompt = "a box<|subj:picture {}|> and a cup<|subj:picture {}|>"
    one = draw(drawer, both, prompt=prompt.format(1, 2))
    assert not torch.equal(one, draw(drawer, both, prompt=prompt.format(2, 1)))
    # The same photos by the same words, whichever is called picture 1: one softmax over the same tokens.
    assert torch.allclose(one, draw(drawer, swapped, prompt=prompt.format(2, 1)), atol=1e-4)


def test_a_subject_that_is_named_twice_is_one_subject(folder):
    """Both words are fused with it, and its tokens are there once."""
    drawer = load(folder / "full")
    photo = torch.rand(1, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    slots = drawer.reader.slots(["a box<|subj:picture 1|> and a cup<|subj:picture 1|>"], [photo], 28)
    assert slots.valid.tolist() == [[True]] and slots.owners.tolist() == [[0, 0]] and slots.fused.all()
    words = slots.words["l"][0]
    text = drawer.adapter.conditions(slots, 32).text[0]
    plain = drawer.adapter.conditions(drawer.reader.slots(["a box and a cup"], [photo[:0]], 28), 32).text[0]
    assert len(set(words.tolist())) == 2 and all(not torch.allclose(text[word], plain[word]) for word in words)


def test_a_word_that_the_encoder_does_not_read_is_named(folder):
    prompt = "so " * 40 + "a red box<|subj|>"
    with pytest.raises(MMDiffError, match="'box' .* behind the 77 tokens"):
        draw(load(folder / "full"), torch.zeros(1, 3, 28, 28), prompt=prompt)


def test_drawing_records_no_maps(folder, monkeypatch):
    drawer = load(folder / "full")
    monkeypatch.setattr("mmdiff_core.drawing.processors.text_maps", lambda *_: pytest.fail("a map was made"))
    draw(drawer, torch.zeros(1, 3, 28, 28))


def test_a_finished_run_draws_without_its_start(folder, tmp_path):
    start = tmp_path / "start.safetensors"
    start.write_bytes(next((folder / "full").glob("step-*")).read_bytes())
    given = settings(folder, model={"start": str(start)}, train={"steps": 1}, out=str(tmp_path / "run"))
    (tmp_path / "run.yaml").write_text(safe_dump(given))
    train(read_config(tmp_path / "run.yaml"), resume=False)
    start.unlink()
    assert draw(load(tmp_path / "run"), torch.zeros(1, 3, 28, 28)).shape == (3, 32, 32)


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
    before = (tmp_path / "pictures" / "full" / "0000.png").read_bytes()
    world_benchmark.run(world_benchmark.Options(**{**vars(options), "arms": [f"full={folder / 'other'}"]}))
    assert (tmp_path / "pictures" / "full" / "0000.png").read_bytes() != before, "other weights, other pictures"


def test_masks_cut_subjects_out_of_grounds_that_are_not_plain(folder, tmp_path):
    """And of plain ones as they are cut out of them without, but for a pixel at their edge."""
    arm = f"={folder / 'full'}"
    options = world_benchmark.Options(
        folder / "atlas.npz",
        tmp_path,
        [f"full{arm}"],
        folder / "nets.safetensors",
        measures=["scene", "attention"],
        number=16,
        resolution=32,
        photo=48,
        cut_out=[f"cut{arm}"],
        masked=[f"masked{arm}"],
    )
    world_benchmark.run(options)
    assert all(name in (tmp_path / "results.md").read_text() for name in ("`cut`", "`masked`", "cut out"))
    cases = world_benchmark.read_cases(options)[1]
    busy = {case.id for case in cases if any(plain_ground(one.movedim(0, -1)) is None for one in case.references)}
    assert 0 < len(busy) < len(cases)
    changed = {True: [], False: []}
    for case in cases:
        cut, masked = (read_picture(tmp_path / "pictures" / name / f"{case.id}.png") for name in ("cut", "masked"))
        changed[case.id in busy].append(float((cut - masked).abs().max()))
        masks = torch.stack(case.masks)
        assert masks.shape == (len(case.subjects), 48, 48) and (masks.amax((1, 2)) == 1).all()
    assert min(changed[True]) > max(changed[False])


def test_a_folder_that_does_not_draw_is_refused(folder, tmp_path):
    with pytest.raises(MMDiffError, match="has no drawing.json"):
        load(tmp_path)
    (tmp_path / "drawing.json").write_text("[]")
    with pytest.raises(MMDiffError, match="does not say how to draw"):
        load(tmp_path)
