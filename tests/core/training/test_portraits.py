"""Portraits train: from faces kept beside the data, fresh or going on from the released checkpoint, as the nodes read
them."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_base import PHOTO, SIDE, settings

from mmdiff_core import Face, MMDiff, MMDiffError, encode_subject, load_checkpoint, save_checkpoint
from mmdiff_core.data.annotated import AnnotatedScenes
from mmdiff_core.data.faces import SegmentFace, faces_path, write_faces
from mmdiff_core.drawing.base import Base
from mmdiff_core.drawing.drawer import load
from mmdiff_core.drawing.vision import VisionTowers, tuned_tower
from mmdiff_core.spec import RELEASED, Spec
from mmdiff_core.training.batches import Collate, Indexed
from mmdiff_core.training.config import config_of
from mmdiff_core.training.datasets import check_faces
from mmdiff_core.training.trainee import Trainee
from tests.arithmetic import EQUAL, error

PEOPLE = {"anna": (200, 30, 30), "ben": (30, 30, 200), "eva": (30, 200, 30)}
PAIRS = (("anna", "ben"), ("ben", "eva"), ("eva", "anna"), ("anna", "ben"))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Pictures of two people each, with faces of 128 numbers; everybody is on several."""
    folder = tmp_path_factory.mktemp("pairs")
    random = np.random.default_rng(0)
    for number, names in enumerate(PAIRS):
        pixels, segments = random.integers(80, 120, (60, 90, 3), np.uint8), np.zeros((60, 90), np.uint8)
        caption, listed, faces = "", [], {}
        for place, name in enumerate(names):
            pixels[8:55, 45 * place + 5 : 45 * place + 40] = PEOPLE[name]
            segments[8:55, 45 * place + 5 : 45 * place + 40] = place + 1
            caption += " and " if caption else ""
            listed.append({"id": place + 1, "start": len(caption), "end": len(caption) + 8, "same": name})
            caption += "a person"
            vector = 20 * torch.eye(128)[list(PEOPLE).index(name)] + torch.from_numpy(random.normal(size=128))
            crop = torch.tensor(PEOPLE[name], dtype=torch.uint8).expand(PHOTO, PHOTO, 3).contiguous()
            faces[place + 1] = SegmentFace(vector.float(), crop)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        np.save(folder / f"{number}.npy", segments)
        (folder / f"{number}.json").write_text(json.dumps({"caption": caption, "segments": listed}))
        write_faces(faces_path(folder, str(number)), faces, "dlib")
    return folder


def portrait(pairs: Path, **sections) -> dict:
    model = {"identity": "face", "recogniser": "dlib", **sections.pop("model", {})}
    data = {"kind": "annotated", "options": {"folder": str(pairs), "faces": "dlib"}}
    return {"data": data, "model": model, "drop": {"text": 0, "image": 0, "both": 0}, **sections}


def test_a_portrait_trains(run, pairs, tmp_path):
    """Both constraints act, whatever starts from the face learns, and the file says whose vectors it wants."""
    rows = run(**portrait(pairs, train={"steps": 6}, samples={"every": 6, "count": 1, "steps": 2}))
    assert all(math.isfinite(row["loss"]) and row["text"] and row["image"] for row in rows)
    trained = load_checkpoint(tmp_path / "run" / "step-00000006.safetensors")
    assert (trained.spec.identity, trained.spec.recogniser, trained.heads.identity_width) == ("face", "dlib", 128)
    assert (tmp_path / "run" / "samples" / "step-00000006.png").is_file()
    with pytest.raises(MMDiffError, match="draws people from face vectors"):
        load(tmp_path / "run")


@pytest.mark.parametrize("unit", [True, False])
def test_the_trainer_sees_what_a_user_encodes(folder, pairs, unit):
    """Tokens of faces as training makes them and as Encode Subject does, for vectors of either length."""
    config = config_of(settings(folder, **portrait(pairs)))
    trainee = Trainee(Base(config.base, config.vision, weights=True, dtype=torch.float32), config)
    trainee.mmdiff.spec = trainee.mmdiff.spec.replace(unit_face=unit)
    item = Indexed(AnnotatedScenes(pairs, SIDE, PHOTO, 0, faces="dlib"))[0]
    batch = Collate(trainee.base.tokenizers, config, 1000)([item])
    with torch.no_grad():
        ours = trainee.conditions(batch.slots, SIDE).subjects.tokens[0].unflatten(0, (2, -1))
    for number in range(2):
        vector = item["faces"][number : number + 1]
        crop = item["crops"][number : number + 1].movedim(1, -1)
        face = Face(torch.nn.functional.normalize(vector, dim=-1), crop, vector.norm(dim=-1))
        photos = item["references"][number : number + 1]
        with torch.no_grad():
            theirs = encode_subject(trainee.mmdiff, trainee.towers, photos, face, "anna", 1.0).tokens
        assert error(ours[number], theirs) <= EQUAL


def test_going_on_from_the_released_checkpoint(folder, run, pairs, tmp_path):
    """Its habits stay. The LoRA of the second text encoder, which those habits never run, stays as it was."""
    given = portrait(pairs, base=str(folder / "sdxl"), model={"text_rank": 2, "null_token": False})
    config = config_of(settings(folder, **given))
    base = Base(config.base, config.vision, weights=True, dtype=torch.float32)
    torch.manual_seed(0)
    fresh = Trainee(base, config).mmdiff
    tensors = {
        key: torch.randn_like(value) * 0.02 if ".up." in key else value for key, value in fresh.tensors().items()
    }
    tuned = {"visual_projection.weight": base.vision.visual_projection.weight.detach().clone() * 1.1}
    tensors |= {f"vision.{key}": value for key, value in tuned.items()}
    start = tmp_path / "released.safetensors"
    save_checkpoint(MMDiff(tensors, RELEASED.replace(head_dim=8, photo_size=PHOTO, recogniser="dlib"), ""), start)
    before = load_checkpoint(start)
    run(**portrait(pairs, base=str(folder / "sdxl"), model={"start": str(start)}, train={"steps": 2, "lr": 0.01}))
    after = load_checkpoint(tmp_path / "run" / "step-00000002.safetensors")
    assert after.spec == before.spec and after.base == "sdxl"
    theirs, moved = after.tensors(), set()
    for key, value in before.tensors().items():
        if not torch.equal(value, theirs[key]):
            moved.add(key.rpartition(".layers.")[0] if key.startswith("text") else key.partition(".")[0])
    assert moved == {"heads", "unet", "text.l"}
    towers = VisionTowers(base.vision, tuned_tower(base.vision, after))
    assert towers.cls(torch.rand(1, 3, PHOTO, PHOTO)).shape == (1, 16)


def test_data_without_the_faces_is_refused(folder, write, pairs):
    from mmdiff_core.training.config import read_config
    from mmdiff_core.training.start import train

    for options, words in (({}, "the data has none"), ({"faces": "dlib"}, "the data has those of dlib")):
        given = portrait(pairs, model={"recogniser": "buffalo_l"})
        given["data"]["options"] = {"folder": str(pairs), **options}
        with pytest.raises(MMDiffError, match=f"face vectors of buffalo_l, and {words}.*data.options.faces"):
            train(read_config(write(**given)), resume=False)


def test_faces_of_another_margin_are_refused():
    with pytest.raises(MMDiffError, match="256 pixels wide, with a wider margin"):
        check_faces(SimpleNamespace(faces="buffalo_l"), Spec(identity="face", face_crop=256))


def test_faces_come_from_a_cache_as_they_are_seen(run, pairs, tmp_path):
    """They are the same each time, so that a run finds all of them when everybody was there once."""
    sections = portrait(pairs, train={"steps": 3, "batch": 1})
    bare = run("bare", **sections)
    cached = run("cached", cache=str(tmp_path / "cache"), **sections)
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {"pictures", "photos", "crops"}
    for one, other in zip(bare, cached, strict=True):
        assert abs(one["denoise"] - other["denoise"]) <= 1e-5 * one["denoise"] and other["cached"] < 1
        assert max(abs(one[part] - other[part]) for part in ("text", "image")) <= 1e-6


def test_a_portrait_has_no_early_figures(run, pairs):
    with pytest.raises(MMDiffError, match=r"evaluate\.every is 2.*face vectors"):
        run(**portrait(pairs, evaluate={"every": 2, "kind": "test_watching:Figures"}))
