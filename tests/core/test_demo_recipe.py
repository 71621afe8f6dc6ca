"""How the demo model is made: the encoder that is written by hand, where attention is led, Muon's steps, and that what
was done is not done again."""

import dataclasses
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("diffusers")

from diffusers import AutoencoderTiny  # noqa: E402

sys.path.append(str(Path(__file__).parent / "evaluation"))

from tiny_world import make_atlas  # noqa: E402

from mmdiff_core.demo import FOLDER  # noqa: E402
from mmdiff_core.drawing.drawer import load  # noqa: E402
from mmdiff_core.files import read_safetensors  # noqa: E402
from mmdiff_core.training.config import read_config  # noqa: E402
from mmdiff_core.training.start import train  # noqa: E402
from mmdiff_core.world.atlas import Atlas  # noqa: E402
from recipes.demo import base, by_noise, decoder, imitate, make, pack  # noqa: E402
from recipes.demo.decoder import SCALE, make_vae  # noqa: E402
from recipes.demo.latents import Components, LatentScenes  # noqa: E402
from recipes.demo.muon import Muon  # noqa: E402
from recipes.demo.routing import Watched, misled, shown  # noqa: E402
from tests.arithmetic import EQUAL, error


def encoded(vae: AutoencoderTiny, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return vae.encode(images).latents / SCALE


def test_the_encoder_computes_the_components():
    """On noise, which leaves no pixel of a block out."""
    components, images = Components.load(FOLDER / "components.safetensors"), torch.rand(2, 3, 32, 48) * 2 - 1
    found = encoded(make_vae(components), images)
    assert error(found, components.encode(images)) <= EQUAL
    assert found.std() > 0.1


def test_the_shipped_encoder_does_too():
    components, images = Components.load(FOLDER / "components.safetensors"), torch.rand(1, 3, 32, 32) * 2 - 1
    vae = AutoencoderTiny.from_pretrained(FOLDER / "vae")
    assert vae.config.scaling_factor == pytest.approx(1 / SCALE)
    assert torch.allclose(encoded(vae, images), components.encode(images), atol=2e-2)  # its weights are in halves


def masks(*boxes: tuple[slice, slice]) -> torch.Tensor:
    """(1, S, 128, 128)"""
    found = torch.zeros(1, len(boxes), 128, 128)
    for mask, box in zip(found[0], boxes, strict=True):
        mask[box] = 1
    return found


def test_a_cell_of_the_picture_shows_the_part_of_the_photo_that_is_drawn_there():
    """A square subject covers its photo; a flat one lies in the photo's middle rows."""
    square, flat = (slice(32, 96), slice(64, 128)), (slice(56, 72), slice(0, 64))
    found = shown(masks(square, flat), size=16, side=8)[0].view(2, 16, 16, 8, 8)
    assert torch.equal(found[0, 4:12, 8:].flatten(2).flatten(0, 1), torch.eye(64)), "cell for cell"
    assert not found[0, :4].any() and not found[0, :, :8].any()
    assert torch.equal(found[1, 7:9, :8].flatten(2).flatten(0, 1), torch.eye(64)[24:40])
    coarse = shown(masks(square), size=8, side=8)[0, 0].view(8, 8, 8, 8)
    assert torch.equal(coarse[2, 4], nn.functional.pad(torch.ones(2, 2), (0, 6, 0, 6))), "two by two to a cell"


def test_attention_that_is_led_astray_costs():
    """Two subjects side by side, whose entity words are the second and the fourth of five."""
    both = masks((slice(32, 96), slice(0, 64)), (slice(32, 96), slice(64, 128)))
    entities = nn.functional.one_hot(torch.tensor([[1, 3]]), 5).float()
    right = torch.cat(tuple(shown(both, 16, 8)[0]), 1)
    inside = right.any(1)
    own = entities[0][(torch.arange(256) % 16 >= 8).long()]

    def cost(text: torch.Tensor, words: torch.Tensor, whose: bool = True) -> float:
        watcher = Watched()
        attention = torch.cat((text, words), 1)
        watcher.see((attention / attention.sum(1, keepdim=True))[None, None])
        return float(misled([watcher], both, 64, entities, whose))

    assert cost(own, right) < 1e-4
    assert cost(own, right.roll(64, 1)) > 5, "the other one's words"
    assert cost(own, right.roll(3, 1)) > 5, "another part of the photo"
    assert cost(own.roll(2, 1), right) > 5, "the other one's entity word"
    assert cost(own, right + 0.01 * ~inside[:, None]) == pytest.approx(np.log(1 + 0.01 * 128), abs=1e-3), "no subject"
    for text, words in ((own.roll(2, 1), right), (own, right.roll(64, 1)), (own, right + 0.01 * ~inside[:, None])):
        assert cost(text, words, whose=False) < 1e-4, "whose a place is, and where there is none, is not told"
    assert cost(own, right.roll(3, 1), whose=False) > 5, "another part of the photo"


def test_noise_levels_are_drawn_mostly_where_something_is_decided():
    """All of the schedule, in shares that the recipe names, whatever the order of even draws."""
    levels = base.noisy_times(torch.arange(1000), 1000)
    assert levels.min() == 0 and levels.max() == 999
    assert (levels[125:500] >= 950).sum() < 50 and (levels[:125] >= 950).all(), "an eighth in the last twentieth"
    assert (levels[500:] < 550).all() and len(levels[500:].unique()) == 500, "half in the first 55 percent, evenly"


def test_muon_steps_a_matrix_by_an_orthogonal_one_and_the_rest_as_adam():
    layer = nn.Linear(32, 32)
    before = layer.weight.detach().clone()
    optimizer = Muon(layer.named_parameters(), lr=0.1)
    layer(torch.randn(64, 32)).square().mean().backward()
    bias = layer.bias.detach().clone()
    optimizer.step()
    values = torch.linalg.svdvals(layer.weight.detach() - before) / (0.2 * 32**0.5 * 0.1)
    assert 0.3 < values.median() < 1.3 and values.max() < 1.4
    assert torch.allclose((layer.bias.detach() - bias).abs(), torch.full((32,), 0.1), atol=1e-3)


def muon_of_two(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.save(stepped(), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def stepped() -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    shapes = ((8, 8), (16, 4), (4, 16))
    weights = [nn.Parameter(torch.randn(shape, generator=random)) for shape in shapes]
    optimizer = Muon([(str(number), weight) for number, weight in enumerate(weights)], lr=0.1)
    for weight in weights:
        weight.grad = torch.randn(weight.shape, generator=random)
    optimizer.step()
    return [weight.detach() for weight in weights]


def test_two_processes_share_muons_work_and_step_alike(tmp_path):
    torch.multiprocessing.spawn(muon_of_two, (str(tmp_path),), nprocs=2)
    alone = stepped()
    for rank in range(2):
        for one, found in zip(alone, torch.load(tmp_path / f"{rank}.pt", weights_only=True), strict=True):
            assert error(found, one) <= EQUAL


@pytest.fixture
def work(tmp_path) -> Path:
    """What the base is made of, with a world of a few shapes; torch computes afterwards as it did before."""
    found = Atlas.load(make_atlas(tmp_path / "shapes.npz"))
    shown = [index for index, sprite in enumerate(found.sprites) if sprite.split == "test"]
    train = [found.sprites[index]._replace(split="train") for index in shown]
    Atlas.of(train, [found.picture(index) for index in shown]).save(tmp_path / "atlas.npz")
    shutil.copy(FOLDER / "components.safetensors", tmp_path)
    shutil.copytree(FOLDER / "tokenizer", tmp_path / "tokenizer")
    precision = torch.get_float32_matmul_precision()
    yield tmp_path
    torch.set_float32_matmul_precision(precision)
    torch.set_flush_denormal(False)


class Killed(Exception):
    pass


def test_a_base_that_was_killed_goes_on_as_if_nothing_had_been(work, monkeypatch):
    """Killed between writing its state and writing its parts, and then before a step was saved."""
    whole, killed = work / "whole", work / "killed"
    for folder in (whole, killed):
        folder.mkdir()
        for part in ("atlas.npz", "components.safetensors", "tokenizer"):
            (folder / part).symlink_to(work / part)
    base.main(whole, steps=2, batch=1, every=1, start=None)

    def kill(*arguments: object) -> None:
        raise Killed

    for stage in ("write_base", "write_state"):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(base, stage, kill)
            base.main(killed, steps=2, batch=1, every=1, start=None)
    base.main(killed, steps=2, batch=1, every=1, start=None)
    for file in ("base-run/state.safetensors", f"base/{base.WORDS_FILE}"):
        one, other = (read_safetensors(folder / file)[0] for folder in (whole, killed))
        assert one.keys() == other.keys()
        assert all(torch.allclose(one[name].float(), other[name].float(), rtol=1e-3, atol=1e-5) for name in one)
    assert len((killed / "base-run" / "losses.jsonl").read_text().splitlines()) == 2
    taken = base.Making(1627, base.Components.load(work / "components.safetensors"))
    taken.take(killed / "base")
    words = read_safetensors(killed / "base" / base.WORDS_FILE)[0]
    assert all(torch.equal(value, words[name]) for name, value in taken.words.state_dict().items())


def test_errors_by_noise_are_those_of_the_latents_that_a_base_makes(work):
    """A base that knows the noise makes none; one that says 0 keeps a part of what it sees; the shipped one is between,
    and better with references."""
    scenes = LatentScenes(work / "components.safetensors", work / "atlas.npz", 128, 64, seed=1)
    noises, seen = base.scheduler(), []

    class Known:
        def __init__(self, share: float) -> None:
            self.share = share

        def look(self, photos: torch.Tensor) -> tuple[None, None]:
            return None, None

        def predict(self, noisy, time, batch, words, entities):
            seen.append(bool(batch.slots.valid.any()))
            return self.share * noises.get_velocity(batch.latents, batch.randn(batch.latents.shape[1:], "noise"), time)

    perfect = by_noise.errors(Known(1), work, scenes, count=3)
    assert seen == [name == "visual words" for name in perfect for _ in by_noise.TIMESTEPS]
    assert max(perfect["text alone"] + perfect["visual words"]) < 1e-6
    nothing = by_noise.errors(Known(0), work, scenes, count=3)["text alone"]
    assert nothing == sorted(nothing) and nothing[0] < 0.05 and nothing[-1] > 0.3
    shipped = by_noise.errors(by_noise.read_making(work, FOLDER, scenes), work, scenes, count=3)
    assert all(0 < one < other for one, other in zip(shipped["visual words"], nothing, strict=True))
    assert sum(shipped["visual words"]) < sum(shipped["text alone"])


def test_from_a_world_to_a_model_that_draws(work, monkeypatch):
    """A step of each stage, with the arm's own configuration."""
    monkeypatch.chdir(work)
    (work / "work").symlink_to(work)
    base.main(work, steps=1, batch=2, every=1, start=None)
    base.main(work, steps=1, batch=2, every=1, start=None, whose=False)
    assert {path.name for path in (work / "untold").iterdir()} == {path.name for path in (work / "base").iterdir()}
    decoder.main(work, steps=1, every=1)
    for name, value in {"PHOTOS": 4, "BATCH": 2, "STEPS": 2}.items():
        monkeypatch.setattr(imitate, name, value)
    text, changed = re.subn(r"steps: \d+, batch: \d+", "steps: 1, batch: 2", (make.ARMS / "full.yaml").read_text())
    assert changed == 1
    (work / "full.yaml").write_text(text)
    imitate.main(work, work / "full.yaml")
    train(read_config(work / "full.yaml"), resume=True)
    shipped = work / "shipped"
    monkeypatch.setattr(pack, "FOLDER", shipped)
    monkeypatch.setattr(pack, "CHECKPOINT", shipped / "mmdiff.safetensors")
    assert pack.pack(work, work / "full") < 25e6
    assert (shipped / base.WORDS_FILE).exists(), "arms can be trained again"
    for part, run in {"vae": decoder.DECODER_RUN, "unet": pack.BASE_RUN}.items():
        (work / run).unlink()
        (work / "base" / part / "config.json").write_text("{}")
        pack.pack(work, work / "full")
        assert (shipped / part / "config.json").read_text() != "{}", f"its {part} was not trained here"
    shutil.copy(FOLDER / "drawing.json", shipped)
    picture = load(shipped)(["a toy<|subj|> on the beach"], [torch.rand(1, 3, 64, 64)], [1])
    assert picture.shape == (1, 3, 128, 128) and picture.std() > 0


@pytest.fixture
def commands(tmp_path, monkeypatch) -> list[list[str]]:
    """The commands that `make` gives in an empty folder, in place of running them; each makes its first file."""
    given: list[list[str]] = []

    class Done:
        returncode = 0

    def run(command: list[str], env: dict[str, str]) -> Done:
        given.append(command[2:])
        if command[2] == "mmdiff_core.world.build":
            Path(command[3]).touch()
        if command[2] == "recipes.demo.prepare":
            (Path(command[3]) / "tokenizer").mkdir()
        if command[2] == "recipes.demo.imitate":
            Path(read_config(Path(command[4])).model.start).touch()
        return Done()

    monkeypatch.chdir(tmp_path)
    (tmp_path / "work").mkdir()
    monkeypatch.setattr(make.subprocess, "run", run)
    return given


def test_one_command_makes_everything_once(commands):
    """Stages that end as a file are left out the second time; the others go on by themselves."""
    make.main(["full", "single", "text-only"], base_steps=9, decoder_steps=7, processes=2)
    stages = [command[0] for command in commands]
    train = ["mmdiff_core"] * 4
    assert stages[:2] == ["mmdiff_core.world.build", "recipes.demo.prepare"]
    assert stages[2:4] == ["torch.distributed.run", "recipes.demo.decoder"]
    assert stages[4:] == ["recipes.demo.imitate", *train, "recipes.demo.pack"], (
        "one start for two arms, none for the base; what ships goes on from the first"
    )
    assert str(make.SHIPPED) in commands[-2] and commands[-1][-1] == read_config(make.SHIPPED).out
    assert all("--resume" in command for command in commands if command[0] == "mmdiff_core")
    commands.clear()
    make.main(["single"], base_steps=9, decoder_steps=7, processes=2)
    assert [command[0] for command in commands] == ["torch.distributed.run", "recipes.demo.decoder", "mmdiff_core"]


def test_arms_on_the_untold_base_have_it_made_first(commands):
    (make.WORK / "base" / "vae").mkdir(parents=True)
    make.main(["untold-full", "untold-no-constraint"], base_steps=50, decoder_steps=7, processes=2)
    told, untold = (command for command in commands if command[0] == "torch.distributed.run")
    assert "--untold" in untold and "--untold" not in told
    assert untold[-1] == "10", "a fifth of the steps"
    assert [command[0] for command in commands][-4:] == [
        "torch.distributed.run",
        "recipes.demo.imitate",
        *["mmdiff_core"] * 2,
    ]
    assert (make.UNTOLD / "vae").is_dir()


def test_what_fails_stops_the_making(commands, monkeypatch):
    class Failed:
        returncode = 3

    monkeypatch.setattr(make.subprocess, "run", lambda command, env: Failed())
    with pytest.raises(SystemExit) as stop:
        make.main(["full"], base_steps=9, decoder_steps=7, processes=2)
    assert stop.value.code == 3


def test_what_ships_is_the_full_arm_gone_on():
    """With nothing else than a share of pairs of which one is not bound."""
    full, shipped = read_config(make.ARMS / "full.yaml"), read_config(make.SHIPPED)
    assert shipped.model.start == f"{full.out}/step-{full.train.steps:08}.safetensors"
    assert 0 < shipped.drop.one < 1 and full.drop.one == 0
    assert shipped == dataclasses.replace(
        full,
        out=shipped.out,
        model=dataclasses.replace(full.model, start=shipped.model.start),
        train=dataclasses.replace(full.train, steps=shipped.train.steps),
        drop=dataclasses.replace(full.drop, one=shipped.drop.one),
    )


def test_arms_differ_in_what_they_say_alone():
    """The same base, steps, samples and seeds; two of them once more on the base that was not told, where one more has
    stronger constraints."""
    arms = {path.stem: read_config(path) for path in make.ARMS.glob("*.yaml")}
    strong, weak = arms.pop("untold-strong"), arms["untold-full"]
    assert strong == dataclasses.replace(weak, out=strong.out, loss=dataclasses.replace(weak.loss, text=0.2, image=0.2))
    assert strong.out not in {arm.out for arm in arms.values()}
    for name in ("full", "no-constraint"):
        told, untold = arms[name], arms.pop(f"untold-{name}")
        model = dataclasses.replace(told.model, start=untold.model.start)
        base = str(make.UNTOLD)
        assert untold == dataclasses.replace(told, base=base, vision=f"{base}/vision", out=untold.out, model=model)
        assert untold.out not in {arm.out for arm in arms.values()}
    assert set(arms) == {"full", "fresh", "ip-adapter-plus", "no-constraint", "single", "text-only"}
    full = arms.pop("full")
    fresh = dataclasses.replace(full.model, start="")
    assert arms["fresh"] == dataclasses.replace(full, out=arms["fresh"].out, model=fresh)
    assert arms["single"].data.options == {**full.data.options, "pairs": 0}
    assert not arms["ip-adapter-plus"].model.fuse_prompt
    assert not any(arms[name].loss.text or arms[name].loss.image for name in ("ip-adapter-plus", "no-constraint"))
    trained = [arms[name] for name in ("ip-adapter-plus", "no-constraint", "single")]
    assert all(
        (arm.base, arm.train, arm.drop, arm.seed) == (full.base, full.train, full.drop, full.seed) for arm in trained
    )
    assert len({arm.out for arm in (full, *arms.values())}) == 6
