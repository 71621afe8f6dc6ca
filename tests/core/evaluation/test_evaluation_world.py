"""The procedural world's measures: perfect pictures reach the ceiling, wrong ones are told apart, each in its way."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_world import SHAPES, Known, make_atlas

from mmdiff_core import MMDiffError
from mmdiff_core.evaluation.cases import fill, pictures_of, read_json
from mmdiff_core.evaluation.early import World
from mmdiff_core.evaluation.world import attention, leak
from mmdiff_core.evaluation.world import benchmark as world_benchmark
from mmdiff_core.evaluation.world.cases import individual, world_cases
from mmdiff_core.evaluation.world.measures import WorldMeasures
from mmdiff_core.evaluation.world.net_training import train_nets
from mmdiff_core.evaluation.world.nets import Box, MetricNets
from mmdiff_core.evaluation.world.oracles import CEILING, FLOOR, oracles
from mmdiff_core.evaluation.world.outcome import holds, outcome
from mmdiff_core.evaluation.world.palette import in_colours_of
from mmdiff_core.evaluation.world.spoilt import BESIDE
from mmdiff_core.world.atlas import Atlas
from mmdiff_core.world.backgrounds import SCENES
from mmdiff_core.world.looks import LOOKS, PLAIN
from mmdiff_core.world.placing import QUARTERS
from mmdiff_core.world.scenes import WorldScenes

NUMBER = 20


@pytest.fixture(scope="module")
def atlas(tmp_path_factory):
    return make_atlas(tmp_path_factory.mktemp("world") / "atlas.npz")


@pytest.fixture
def world(atlas, monkeypatch):
    """Scenes on black, where pixels are enough to tell who is who."""
    monkeypatch.setattr(
        "mmdiff_core.world.scenes.background", lambda scene, side, random: Image.new("RGB", (side, side))
    )
    scenes = WorldScenes(Atlas.load(atlas), 64, 48, seed=3, split="test", looks=0, recolour=0, pairs=0.5)
    return scenes, world_cases(scenes, NUMBER)


def measured(world, folder, draw, plans=None):
    """Means by measure of what `draw` draws; plans: what is really in the pictures, where it is not what was asked."""
    scenes, cases = world
    fill(folder, cases, draw, "test", "a test")
    plans = plans or [case.plan for case in cases]
    nets = Known([], list(SCENES), [PLAIN, *LOOKS])
    measures = WorldMeasures(scenes, cases, nets, ["identity", "hard", "colour-matched", "class", "scene", "relation"])
    measures.wanted |= {"pair", "ssim", "edges", "look", "twice"}
    nets.plans, nets.places = iter(plans), iter(plans)
    values = measures.measure(pictures_of(folder, cases))
    return {name: float(np.mean(list(row.values()))) for name, row in values.items()}


def drawn(scenes, plans):
    pictures = {case: torch.from_numpy(scenes.draw(plan)[0]).movedim(-1, 0) / 255 for case, plan in plans.items()}
    return lambda part: [pictures[case.id] for case in part]


def test_real_scenes_reach_the_ceiling_and_others_do_not(world, tmp_path):
    scenes, cases = world
    draw = oracles(scenes, cases)
    real = measured(world, tmp_path / "real", draw[CEILING])
    text = measured(world, tmp_path / "text", draw[FLOOR])
    shuffled = measured(world, tmp_path / "shuffled", draw["oracle: shuffled"])
    assert real["identity"] > 0.85 and real["hard"] > 0.7 and real["pair both"] > 0.7
    assert real["ssim"] > 0.8 and real["edges"] > 0.8 and real["scene"] == real["relation"] == 1
    for name in ("identity", "hard", "colour-matched", "pair both", "ssim", "edges"):
        assert real[name] > text[name] + 0.15 > shuffled[name] - 0.1, name
    assert shuffled["identity"] < 0.15 and text["hard"] < 0.15, "chance, or below"


def test_swapped_subjects_count_as_swapped(world, tmp_path):
    scenes, cases = world
    plans = {}
    for case in cases:
        first, *second = case.plan.subjects
        if second:
            who = ("identity", "sprite", "hue", "flip", "tilt")
            a, b = ({name: getattr(one, name) for name in who} for one in (first, *second))
            subjects = (dataclasses.replace(first, **b), dataclasses.replace(second[0], **a))
            plans[case.id] = dataclasses.replace(case.plan, subjects=subjects)
        else:
            plans[case.id] = case.plan
    found = measured(world, tmp_path / "swapped", drawn(scenes, plans), list(plans.values()))
    said = np.mean([case.plan.relation != "and" for case in cases if len(case.subjects) == 2])
    assert found["pair swapped"] > 0.7 * said, "where the caption says who stands where"
    assert found["relation"] < 0.2 and found["pair both"] <= 1 - said


def test_a_subject_left_out_counts_as_missing_and_one_drawn_twice_as_duplicate(world, tmp_path):
    scenes, cases = world
    alone = {c.id: dataclasses.replace(c.plan, subjects=c.plan.subjects[:1]) for c in cases}
    found = measured(world, tmp_path / "alone", drawn(scenes, alone), list(alone.values()))
    assert found["pair missing"] > 0.7 and found["relation"] == 0
    twice = {}
    for case in cases:
        first, *rest = case.plan.subjects
        same = [dataclasses.replace(o, identity=first.identity, sprite=first.sprite, hue=first.hue) for o in rest]
        twice[case.id] = dataclasses.replace(case.plan, subjects=(first, *same))
    found = measured(world, tmp_path / "twice", drawn(scenes, twice), list(twice.values()))
    assert found["pair duplicate"] > 0.7 and found["pair both"] == 0


def test_one_subject_drawn_twice_is_seen(world, tmp_path):
    """In hardly any of the world's own pictures, in most of those where it stands on both sides."""
    scenes, cases = world
    assert measured(world, tmp_path / "real", oracles(scenes, cases)[CEILING])["twice"] < 0.15
    plans = {case.id: case.plan for case in cases}
    for case in cases:
        if len(case.subjects) == 1:
            (alone,) = case.plan.subjects
            scale = BESIDE / max(alone.width, alone.height)
            small = dataclasses.replace(alone, width=alone.width * scale, height=alone.height * scale, y=0.5)
            both = tuple(dataclasses.replace(small, x=x) for x in QUARTERS)
            plans[case.id] = dataclasses.replace(case.plan, subjects=both)
    assert measured(world, tmp_path / "twice", drawn(scenes, plans), list(plans.values()))["twice"] > 0.7


def leaked(world, folder, draw, plans=None):
    """Means of the leak measures, of what `draw` draws for pairs; plans: what is really in the pictures, where it is
    not what was asked."""
    scenes, cases = world
    pairs = [case for case in cases if len(case.subjects) == 2]
    fill(folder, pairs, draw, "test", "a test")
    nets = Known([], list(SCENES), [PLAIN, *LOOKS])
    measures = WorldMeasures(scenes, cases, nets, ["pair"])
    nets.plans = iter((plans or {}).get(case.id, case.plan) for case in pairs)
    scores = leak.measured(measures, pairs, pictures_of(folder, pairs))
    return {name: float(np.mean(list(row.values()))) for name, row in scores.items()}


def test_a_subject_in_the_others_place_is_a_leak(world, tmp_path):
    """None in the world's own pictures, all in those of the subject twice."""
    scenes, cases = world
    real = leaked(world, tmp_path / "real", oracles(scenes, cases)[CEILING])
    assert real["leak, bound"] > 0.7 and real["leak"] + real["leak, in part"] < 0.2
    twice = leaked(world, tmp_path / "twice", lambda part: [leak.twice(scenes, case) for case in part])
    assert twice["leak"] > 0.7 and abs(twice["leak, bound"] - real["leak, bound"]) < 0.2
    gone = {case.id: dataclasses.replace(case.plan, subjects=case.plan.subjects[1:]) for case in cases}
    nobody = leaked(world, tmp_path / "nobody", drawn(scenes, gone), gone)
    assert nobody["leak, bound"] < 0.2 and nobody["leak"] == 0


def test_only_the_first_of_a_pair_is_bound_where_leaks_are_measured(world):
    _, cases = world
    case = next(case for case in cases if len(case.subjects) == 2)
    asked = leak.first_alone(case)
    assert asked.text == case.text and len(asked.references) == asked.prompt.count(leak.MARKER) == 1
    assert asked.prompt.index(leak.MARKER) == case.prompt.index(leak.MARKER)


def test_one_in_the_colours_of_the_other_counts_as_mixed(world, tmp_path, monkeypatch):
    scenes, cases = world
    pictures = {}
    for case in cases:
        first, *second = case.plan.subjects
        with monkeypatch.context() as patch:
            if second:
                layers = in_colours_of(*(individual(scenes, one.sprite, 0.0) for one in (first, second[0])))
                mixed = Image.fromarray((layers * 255).byte().movedim(0, -1).numpy())
                plain = scenes.individual
                patch.setattr(
                    scenes,
                    "individual",
                    lambda sprite, hue, own=first.sprite, mixed=mixed, plain=plain: (
                        mixed if sprite == own else plain(sprite, hue)
                    ),
                )
            pictures[case.id] = torch.from_numpy(scenes.draw(case.plan)[0]).movedim(-1, 0) / 255
    found = measured(world, tmp_path / "mixed", lambda part: [pictures[case.id] for case in part])
    assert found["pair mixed"] > 0.7 and found["pair both"] < 0.3


def test_pictures_that_are_there_are_not_drawn_again(world, tmp_path):
    scenes, cases = world
    asked = []

    def draw(part):
        asked.extend(case.id for case in part)
        return [torch.zeros(3, 8, 8) for _ in part]

    fill(tmp_path, cases[:3], draw, "test", "a test", batch=2)
    (tmp_path / "0001.png").unlink()
    fill(tmp_path, cases[:4], draw, "test", "a test", batch=2)
    assert asked == ["0000", "0001", "0002", "0001", "0003"]


@pytest.mark.parametrize(
    "changes",
    [
        lambda case: {"prompt": f"{case.prompt} at night"},
        lambda case: {"seed": case.seed + 1},
        lambda case: {"references": tuple(1 - one for one in case.references)},
    ],
)
def test_a_picture_of_something_else_is_drawn_again(world, tmp_path, changes):
    """Of another prompt, seed, reference or program; and those that are right are kept."""
    _, cases = world
    asked = []

    def draw(part):
        asked.extend(case.id for case in part)
        return [torch.zeros(3, 8, 8) for _ in part]

    fill(tmp_path, cases[:3], draw, "test", "a test")
    fill(tmp_path, [cases[0], dataclasses.replace(cases[1], **changes(cases[1])), cases[2]], draw, "test", "a test")
    assert asked == ["0000", "0001", "0002", "0001"]
    fill(tmp_path, cases[:2], draw, "another", "another test")
    assert asked[4:] == ["0000", "0001"]


def test_outcomes_of_likeness():
    """Candidates: the two subjects, their two mixtures, a stranger."""
    boxes = [Box(at, 0.5, 0.3, 0.3, 1) for at in (0.2, 0.8)]
    a, b, mixed, other = torch.eye(5)[[0, 1, 2, 4]]

    def kind(*rows, relation="and"):
        return outcome(boxes[: len(rows)], torch.stack(rows), relation).kind

    assert kind(a, b) == kind(b, a) == kind(a, b, relation="to the left of") == "both"
    assert kind(b, a, relation="to the left of") == kind(a, b, relation="to the right of") == "swapped"
    above, below = Box(0.5, 0.2, 0.3, 0.3, 1), Box(0.5, 0.8, 0.3, 0.3, 1)
    assert holds("above", above, below) and holds("below", below, above)
    assert not holds("above", below, above) and not holds("below", above, below) and holds("and", above, below) is None
    assert kind(a, mixed) == "mixed" and kind(a, a) == "duplicate" and kind(b, b) == "duplicate"
    assert kind(a) == kind(b) == kind(a, other) == "missing" and kind(other, other) == kind(other) == "neither"


def test_attention_mass_of_perfect_even_and_wrong_maps():
    masks = torch.zeros(2, 64, 64)
    masks[0, :32, :32], masks[1, 32:, 32:] = 1, 1
    perfect = attention.mass(masks[:, ::4, ::4], masks)
    assert perfect.own.tolist() == [1, 1] and perfect.other.tolist() == [0, 0]
    even = attention.mass(torch.ones(2, 16, 16), masks)
    assert even.own.tolist() == even.other.tolist() == [0.25, 0.25]
    wrong = attention.mass(masks.flip(0)[:, ::4, ::4], masks)
    assert wrong.own.tolist() == [0, 0] and wrong.other.tolist() == [1, 1]


@pytest.fixture(scope="module")
def nets(atlas, tmp_path_factory):
    path = tmp_path_factory.mktemp("nets") / "nets.safetensors"
    lines = []
    train_nets(atlas, path, 2, lines.append)
    assert "step 2/2" in lines[-1]
    return path


@pytest.fixture
def options(atlas, nets, tmp_path):
    return world_benchmark.Options(atlas, tmp_path / "out", (), nets, number=6, resolution=32, photo=32)


def test_the_benchmark_writes_results_and_sheets(options, nets):
    assert MetricNets.load(nets).about.names == sorted(f"new {name}" for name in SHAPES)
    table = world_benchmark.run(options)
    assert table == world_benchmark.run(options), "pictures that are there are not drawn again, and count the same"
    found = read_json(options.out / "results.json")
    assert set(found["summary"]) == {CEILING, FLOOR, "oracle: photo pasted", "oracle: shuffled", leak.TWICE}
    pairs = [row["mean"] for name, row in found["summary"][CEILING].items() if name.startswith("pair ")]
    assert len(pairs) == 6 and sum(pairs) == pytest.approx(1)
    assert (options.out / "sheet-one.png").is_file() and (options.out / "sheet-two.png").is_file()


def test_cases_for_another_program_come_back_as_an_arm(options):
    world_benchmark.prepare(dataclasses.replace(options, out=options.out / "list"))
    cases = read_json(options.out / "list" / "cases.json")
    assert len(cases) == 6 and all(case["prompt"].count("<|subj|>") == len(case["references"]) for case in cases)
    assert all((options.out / "list" / file).is_file() for case in cases for file in case["references"])
    world_benchmark.run(options)
    own = options.out / "pictures" / CEILING.replace(": ", " ")
    world_benchmark.run(dataclasses.replace(options, arms=[f"full={own}"]))
    summary = read_json(options.out / "results.json")["summary"]
    assert summary["full"] == summary[CEILING], "pictures on disk are measured like all others"


def test_bad_input_gets_a_sentence(options, tmp_path):
    def refused(text, **changes):
        with pytest.raises(MMDiffError, match=text):
            world_benchmark.run(dataclasses.replace(options, **changes))

    refused("no measure 'beauty'; there are identity", measures=("beauty",))
    refused("give --nets FILE", nets=None)
    refused("There is no atlas", atlas=tmp_path / "none.npz")
    refused("no split 'exam'", split="exam")
    refused("was trained on 8 of the names in the split 'metric' .* such as 'new arch'", split="metric")
    (tmp_path / "empty").mkdir()
    refused("'full' has no list of pictures .* has no drawing.json", arms=[f"full={tmp_path / 'empty'}"])


def test_early_figures_are_those_of_the_benchmark(options, atlas, nets, tmp_path):
    class Greys:
        source = about = "greys"

        def __call__(self, prompts, references, seeds):
            return torch.stack([torch.full((3, 32, 32), (seed % 7) / 7) for seed in seeds])

    found = World(str(atlas), str(nets), split="test", number=6)(Greys(), tmp_path / "early")
    wanted = ("scene", "look", "ssim")
    options = dataclasses.replace(options, photo=224, resolution=64, measures=wanted)
    world_benchmark.run(dataclasses.replace(options, arms=[f"full={tmp_path / 'early'}"]))
    values = read_json(options.out / "results.json")["values"]["full"]
    assert set(wanted) <= found.keys()
    for name in wanted:
        assert found[name] == pytest.approx(np.mean(list(values[name].values())))
    with pytest.raises(MMDiffError, match="no split 'exam'"):
        World(str(atlas), str(nets), split="exam")
