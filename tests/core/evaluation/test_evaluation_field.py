"""The field's protocol, on a small folder of made photos and with small random CLIP and DINO models."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw
from transformers import CLIPConfig, CLIPModel, CLIPTokenizerFast, ViTConfig, ViTModel

from mmdiff_core import MMDiffError
from mmdiff_core.evaluation.cases import read_json
from mmdiff_core.evaluation.early import Photos
from mmdiff_core.evaluation.photos import benchmark as photo_benchmark
from mmdiff_core.evaluation.photos import field
from mmdiff_core.evaluation.photos.dreambench import read_dreambench

TABLE = """Classes

subject_name,class
cat2,cat
red_can,can
vase,vase

Prompts

Object Prompts

prompt_list = [
'a {0} {1} in the snow'.format(unique_token, class_token),
'a {0} {1} on the beach'.format(unique_token, class_token),
'a cube shaped {0} {1}'.format(unique_token, class_token)
]

Live Subject Prompts

prompt_list = [
'a {0} {1} in the snow'.format(unique_token, class_token),
'a {0} {1} wearing a red hat'.format(unique_token, class_token)
]
"""
COLOURS = {"cat2": "orange", "red_can": "red", "vase": "navy"}


def photo(colour: str, number: int) -> Image.Image:
    image = Image.new("RGB", (60 + 10 * number, 60), "white")
    ImageDraw.Draw(image).ellipse((8 + 3 * number, 10, 50, 52), fill=colour)
    return image


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset")
    (folder / "prompts_and_classes.txt").write_text(TABLE)
    for name, colour in COLOURS.items():
        (folder / name).mkdir()
        for number in range(3):
            photo(colour, number).save(folder / name / f"{number:02d}.jpg")
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    letters = [*"abcdefghijklmnopqrstuvwxyz", *(f"{letter}</w>" for letter in "abcdefghijklmnopqrstuvwxyz")]
    vocabulary = {token: n for n, token in enumerate([*letters, "<|startoftext|>", "<|endoftext|>"])}
    end = vocabulary["<|endoftext|>"]
    text = {**sizes, "vocab_size": len(vocabulary), "bos_token_id": end - 1, "eos_token_id": end, "pad_token_id": end}
    vision = {**sizes, "image_size": 32, "patch_size": 8}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)).save_pretrained(folder / "clip")
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizerFast(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder / "clip")
    ViTModel(ViTConfig(**vision)).save_pretrained(folder / "dino")
    return {"clip": folder / "clip", "dino": folder / "dino"}


@pytest.fixture
def options(dataset, models, tmp_path):
    return photo_benchmark.Options(dataset=dataset, out=tmp_path / "out", arms=(), models=models, images=2)


def record(folder: Path, cases, draw, order=1) -> Path:
    """Pictures of another program: files under names of its own, and the list."""
    folder.mkdir()
    files = {case.id: f"{number}.png" for number, case in enumerate(cases)}
    for case in cases:
        draw(case).save(folder / files[case.id])
    (folder / "pictures.json").write_text(json.dumps(dict([*files.items()][::order])))
    return folder


def test_every_subject_meets_every_prompt(dataset):
    bench = read_dreambench(dataset)
    cases = bench.cases(images=2, size=32)
    assert len(cases) == (2 + 3 + 3) * 2 and len({case.id for case in cases}) == len(cases)
    prompts = {case.prompt for case in cases if case.subjects == ("cat2",)}
    assert prompts == {"a cat<|subj|> in the snow", "a cat<|subj|> wearing a red hat"}
    assert cases[0].text == "a cat in the snow" and cases[0].references[0].shape == (3, 32, 32)
    assert {case.seed for case in cases if case.group == "vase"} == set(range(6))


def test_pairs_are_of_two_classes_and_of_prompts_that_suit_both(dataset):
    cases = read_dreambench(dataset).pairs(images=1, size=32)
    assert {case.subjects for case in cases} == {("cat2", "red_can"), ("cat2", "vase"), ("red_can", "vase")}
    assert {case.prompt for case in cases if "cat2" not in case.subjects} == {
        "a can<|subj|> and a vase<|subj|> in the snow"
    }, "the beach is not among the live prompts, and a cube shaped pair has no room for two"
    assert all(len(case.references) == 2 for case in cases)


def test_photos_score_as_real_ones_and_shuffled_ones_lower(options, tmp_path):
    bench, cases = photo_benchmark.read_cases(options)
    own = record(tmp_path / "own", cases, lambda case: photo(COLOURS[case.subjects[0]], 1))
    wrong = dict(zip(COLOURS, [*COLOURS][1:] + ["cat2"], strict=True))
    other = record(tmp_path / "other", cases, lambda case: photo(COLOURS[wrong[case.subjects[0]]], 1))
    table = photo_benchmark.run(replace(options, arms=[f"full={own}", f"wrong={other}"]))
    found = read_json(options.out / "results.json")
    for measure in ("clip-i", "dino"):
        means = {arm: row[measure]["mean"] for arm, row in found["summary"].items()}
        assert means["full"] > means["wrong"] + 1e-3, "the subject's own photos are the likest"
        ceiling, floor = means["other photos of the subject"], means["photos of other subjects"]
        assert ceiling > floor and abs(means["wrong"] - floor) < abs(means["wrong"] - ceiling)
    assert set(found["by_identity"]["full"]["dino"]) == set(COLOURS)
    assert found["differences"]["wrong"]["dino"]["high"] < 0
    assert "| full |" in table and (options.out / "results.md").read_text() == table
    assert Image.open(options.out / "sheet.png").width > 3 * 128


def test_the_order_of_the_list_changes_nothing(options, tmp_path):
    _, cases = photo_benchmark.read_cases(options)
    rows = []
    for order in (1, -1):
        own = record(tmp_path / str(order), cases, lambda case: photo(COLOURS[case.subjects[0]], case.seed % 3), order)
        photo_benchmark.run(replace(options, arms=[f"full={own}"]))
        rows.append(read_json(options.out / "results.json")["summary"]["full"])
    assert rows[0] == rows[1]


def test_pairs_are_measured_against_both(options, tmp_path):
    options = replace(options, pairs=True, measures=("clip-i",))
    bench, cases = photo_benchmark.read_cases(options)
    own = record(tmp_path / "own", cases, lambda case: photo(COLOURS[case.subjects[0]], 1))
    photo_benchmark.run(replace(options, arms=[f"full={own}"]))
    values = read_json(options.out / "results.json")["values"]
    alone = values["other photos of the subject"]["clip-i"]
    assert max(values["full"]["clip-i"].values()) < min(alone.values()), "one of two is not both"


def test_prompts_count_in_clip_t(options, models, tmp_path):
    _, cases = photo_benchmark.read_cases(options)
    own = record(tmp_path / "own", cases, lambda case: photo("red", 0))
    photo_benchmark.run(replace(options, arms=[f"full={own}"], measures=("clip-t",)))
    values = read_json(options.out / "results.json")["values"]["full"]["clip-t"]
    by_text = {case.text: values[case.id] for case in cases}
    assert len(set(by_text.values())) == len(by_text), "one picture, and each prompt has its own cosine"


def test_faces_are_matched_best_first_and_the_least_counts():
    axes = torch.eye(4)
    mixed = torch.nn.functional.normalize(axes[0] + 0.1 * axes[1], dim=0)
    assert field.match(axes[:0], axes[:1]) == 0, "no face"
    assert field.match(-axes[:1], axes[:1]) == 0, "never below 0"
    assert field.match(axes[[1, 0]], axes[:1]) == 0, "the surest face counts, not the likest"
    assert field.match(axes[[1, 0]], axes[:2]) == pytest.approx(1), "in any order"
    assert field.match(axes[:1], axes[:2]) == 0, "one of two"
    assert field.match(torch.stack([axes[0], mixed]), axes[:2]) == pytest.approx(float(mixed[1]))


def broken(dataset: Path, tmp_path: Path, **changes: str) -> Path:
    folder = tmp_path / "broken"
    folder.mkdir()
    text = TABLE
    for old, new in changes.values():
        text = text.replace(old, new)
    (folder / "prompts_and_classes.txt").write_text(text)
    for name in COLOURS:
        (folder / name).symlink_to(dataset / name)
    return folder


def test_broken_folders_get_a_sentence(dataset, tmp_path):
    with pytest.raises(MMDiffError, match="no prompts_and_classes.txt in .*one folder of photos for each"):
        read_dreambench(tmp_path)
    folder = broken(dataset, tmp_path, a=("prompt_list = [", "prompts = ["))
    with pytest.raises(MMDiffError, match="stands before any line `prompt_list"):
        read_dreambench(folder)
    (folder / "prompts_and_classes.txt").write_text(TABLE.partition("Live")[0])
    with pytest.raises(MMDiffError, match=r"1 lists of prompts \(with 3 prompts\); wanted are two"):
        read_dreambench(folder)
    (folder / "prompts_and_classes.txt").write_text(TABLE.replace("vase,vase", "lamp,lamp"))
    with pytest.raises(MMDiffError, match="'lamp' of .* has no photos"):
        read_dreambench(folder)
    (folder / "prompts_and_classes.txt").write_text("subject_name,class\n")
    with pytest.raises(MMDiffError, match="names no subjects"):
        read_dreambench(folder)
    with pytest.raises(MMDiffError, match="no subject 'dog'; it has cat2, red_can, vase"):
        read_dreambench(dataset, ["dog"])


def test_what_is_missing_is_said_before_anything_is_drawn(options, models, tmp_path):
    def refused(text: str, **changes) -> None:
        with pytest.raises(MMDiffError, match=text):
            photo_benchmark.run(replace(options, **changes))

    refused("no measure 'fid'; there are clip-t", measures=("fid",))
    refused("'face' needs the folder of its model: give --faces", measures=("face",))
    refused("nothing can be measured", models={})
    refused("no config.json.*Nothing is downloaded", models={"clip": tmp_path})
    refused("holds a 'vit' model; wanted is one like openai/clip", models={"clip": models["dino"]})
    refused("needs det_10g.onnx", models={"faces": tmp_path})
    refused("'full' is not NAME=FOLDER", arms=["full"])
    refused("Two arms are called 'a'", arms=[f"a={tmp_path}", f"a={tmp_path}"])
    refused("there is no folder", arms=[f"a={tmp_path / 'none'}"])
    assert not options.out.exists()
    _, cases = photo_benchmark.read_cases(options)
    folder = record(tmp_path / "half", cases[1:], lambda case: photo("red", 0))
    refused(f"lacks 1 of {len(cases)} pictures.*'cat2/00-0'", arms=[f"a={folder}"])


class Reds:
    """Something that draws: red pictures of several brightnesses."""

    source = about = "reds"

    def __call__(self, prompts, references, seeds):
        return torch.stack(
            [torch.tensor([0.3 + 0.1 * (seed % 5), 0, 0]).expand(32, 32, 3).movedim(-1, 0) for seed in seeds]
        )


def test_early_figures_are_those_of_the_benchmark(options, dataset, models, tmp_path):
    early = Photos(str(dataset), clip=str(models["clip"]), images=1)
    found = early(Reds(), tmp_path / "early")
    photo_benchmark.run(
        replace(options, images=1, models={"clip": models["clip"]}, arms=[f"full={tmp_path / 'early'}"])
    )
    assert found.keys() == {"clip-t", "clip-i"}
    for name, values in read_json(options.out / "results.json")["values"]["full"].items():
        assert found[name] == pytest.approx(sum(values.values()) / len(values))
    with pytest.raises(MMDiffError, match="No model is named"):
        Photos(str(dataset))
