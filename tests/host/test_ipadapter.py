"""The IP-Adapter family in the host: read from its folder, bound by word, and beside the pack that runs it today."""

import copy
import dataclasses
import sys
from types import SimpleNamespace

import comfy.ops
import comfy.supported_models
import folder_paths
import numpy as np
import pytest
import torch
from comfy.clip_model import CLIPVisionModelProjection
from full_size import UNETS, fill
from graph import applied, error, module
from neighbours import TermRecorder
from others import call
from predictions import predict
from stack import clip_vision, unet_patcher

from tests.ipadapters import KINDS, random_parts, write

PLUS = "cubiq/ComfyUI_IPAdapter_plus"
BOUND = 1e-5
DIFFERENT = 1e-3
SIDE = 224
NARROW = {"sd15": {"model_channels": 32}, "sdxl": {"model_channels": 64}}
CONFIGS = {"sd15": comfy.supported_models.SD15, "sdxl": comfy.supported_models.SDXL}
CONTEXT = {"sd15": 768, "sdxl": 2048}
PUBLISHED = [
    *((kind, "sd15") for kind in KINDS if kind != "portrait-unnorm"),
    *((kind, "sdxl") for kind in KINDS if kind not in ("full", "faceid-plus")),
]
KEYPOINTS = np.array([[80, 90], [140, 92], [110, 125], [85, 160], [138, 161]], np.float32)


@pytest.fixture(scope="module")
def scenes(pack):
    """Makes, once for each base, a narrow UNet of the base's own depth, its attention layers, texts and a photo."""
    made = {}

    def scene(base):
        if base not in made:
            with torch.inference_mode():
                model = unet_patcher(CONFIGS[base]({**UNETS[base], **NARROW[base]}))
                fill(model.model.diffusion_model)
                layers = module(pack, "nodes.host.base").attention_layers(model.model.diffusion_model)
                generator = torch.Generator().manual_seed(3)
                texts = torch.randn(3, 1, 77, CONTEXT[base], generator=generator)
                photos = (torch.rand(2, SIDE, SIDE, 3, generator=generator) * 255).round() / 255
            made[base] = SimpleNamespace(model=model, layers=layers, texts=texts, photos=photos)
        return made[base]

    return scene


@pytest.fixture(scope="module")
def encoder():
    config = {
        "hidden_size": 32,
        "projection_dim": 24,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": SIDE,
        "patch_size": 32,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
    }
    described = {"model_type": "clip_vision_model", "num_channels": 3, **config}
    template = CLIPVisionModelProjection(described, torch.float32, "cpu", comfy.ops.manual_cast)
    torch.manual_seed(0)
    state = {key: torch.randn(value.shape) * 0.2 for key, value in template.state_dict().items()}
    return clip_vision(config, state)


class Recogniser:
    """Finds one face wherever it looks, as insightface does for their pack and as FaceModels do for ours."""

    def __init__(self, seed=0):
        self.det_model = SimpleNamespace(input_size=None)
        self.vector = torch.randn(512, generator=torch.Generator().manual_seed(seed)) * 0.9

    def get(self, image):
        unit = torch.nn.functional.normalize(self.vector, dim=0)
        return [SimpleNamespace(normed_embedding=unit.numpy(), embedding=self.vector.numpy(), kps=KEYPOINTS)]

    def face(self, pack, photo, crop):
        core = module(pack, "mmdiff_core.face")
        found = core.Detections(np.array([[60.0, 60, 160, 180]]), np.array([0.9]), KEYPOINTS[None])
        models = core.FaceModels(lambda image, size: found, lambda image: self.vector.numpy())
        return core.analyze(photo, models, "largest", 0, crop=crop)[0]


def file_of(scene, kind, tmp_path, seed=0, ending=".bin"):
    attention = [layer.attention.to_q.out_features for layer in scene.layers]
    context = scene.texts.shape[-1]
    parts = random_parts(kind, context=context, attention=attention, seed=seed, depth=4)
    path = write(parts, tmp_path, f"{KINDS[kind]}-{seed}{ending}")
    return parts, path


def loaded(pack, path, negative="black"):
    return module(pack, "nodes.host.model").load_mmdiff(path).with_spec(negative=negative)


def encoded(pack, mmdiff, encoder, photo, name="Ada", recogniser=None, weight=1.0):
    face = (recogniser or Recogniser()).face(pack, photo, mmdiff.core.spec.face_crop)
    node = pack["MMDiffEncodeSubject"]
    return node.execute(mmdiff=mmdiff, clip_vision=encoder, image=photo, face=face, name=name, weight=weight).args[0]


def bound_by_hand(pack, scene, mmdiff, subjects, negative=None):
    """(binding, positive, negative) with random texts; the words are tokens 5, 9 ... of the first."""
    text = module(pack, "nodes.host.text")
    words = tuple((5 + 4 * number,) for number in range(len(subjects)))
    binding = text.Binding(f"hand {len(subjects)}", mmdiff, tuple(subjects), words)
    pooled = {"pooled_output": torch.zeros(1, 1280)}
    positive = [[scene.texts[0], {**pooled, text.CONDITIONING_KEY: binding.id}]]
    return binding, positive, negative or [[scene.texts[1], dict(pooled)]]


def drawn(pack, scene, mmdiff, subjects, weight=0.8, separation="reference", model=None, negative=None):
    """The predictions of both rows."""
    binding, *prompts = bound_by_hand(pack, scene, mmdiff, subjects, negative)
    return predict(applied(pack, binding, model or scene.model, weight, separation), *prompts)


def plain(scene, model):
    pooled = {"pooled_output": torch.zeros(1, 1280)}
    return predict(model, [[scene.texts[0], dict(pooled)]], [[scene.texts[1], dict(pooled)]])


@pytest.fixture
def theirs(pack, encoder, tmp_path, monkeypatch):
    """Applies IPAdapter_plus's own node to a model: theirs(model, file, photo, weight, insightface).

    It plants what is for the middle block under a key that the host never asks for, so that the block goes without; its
    authors' code has it there too, and here the host finds it.
    """
    align = SimpleNamespace(
        norm_crop=lambda image, landmark, image_size: module(pack, "mmdiff_core.face").norm_crop(
            image, landmark, image_size
        )
    )
    monkeypatch.setitem(sys.modules, "insightface", SimpleNamespace(utils=SimpleNamespace(face_align=align)))
    monkeypatch.setitem(sys.modules, "insightface.utils", SimpleNamespace(face_align=align))
    folder_paths.add_model_folder_path("ipadapter", str(tmp_path))

    def node(model, path, photo, weight=0.8, insightface=None):
        (adapter,) = call(PLUS, "IPAdapterModelLoader", ipadapter_file=path.name)
        applied = call(
            PLUS,
            "IPAdapterFaceID" if insightface else "IPAdapterAdvanced",
            model=model,
            ipadapter=adapter,
            image=photo,
            weight=weight,
            weight_type="linear",
            combine_embeds="concat",
            start_at=0.0,
            end_at=1.0,
            embeds_scaling="V only",
            clip_vision=encoder,
            **({"insightface": insightface, "weight_faceidv2": 1.0} if insightface else {}),
        )[0]
        planted = applied.model_options["transformer_options"]["patches_replace"]["attn2"]
        planted.update({("middle", 0, *key[2:]): one for key, one in planted.items() if key[:2] == ("middle", 1)})
        return applied

    yield node
    folder_paths.folder_names_and_paths["ipadapter"][0].remove(str(tmp_path))
    folder_paths.filename_list_cache.pop("ipadapter", None)


def with_lora(model, scene, parts):
    """A model with the LoRA of a FaceID file in its weights, as the second file of that pack brings it."""
    model = model.clone()
    for layer in scene.layers:
        for name, weight in (("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("out", "to_out.0")):
            pair = [parts["ip_adapter"].get(f"{layer.number}.to_{name}_lora.{side}.weight") for side in ("up", "down")]
            if pair[0] is not None:
                assert model.add_patches({f"{layer.path}.{weight}.weight": ("diff", (pair[0] @ pair[1],))})
    return model


@pytest.mark.parametrize(("kind", "base"), PUBLISHED)
def test_predictions_are_those_of_ipadapter_plus(pack, scenes, encoder, theirs, tmp_path, kind, base):
    """One subject, linear weight: both rows, and with the FaceID file's own LoRA for the second file of that pack."""
    scene, face = scenes(base), kind.startswith(("faceid", "portrait"))
    parts, path = file_of(scene, kind, tmp_path)
    mmdiff, photo = loaded(pack, path), scene.photos[:1]
    found = drawn(pack, scene, mmdiff, [encoded(pack, mmdiff, encoder, photo)])
    model = theirs(with_lora(scene.model, scene, parts), path, photo, insightface=Recogniser() if face else None)
    wanted, without = plain(scene, model), plain(scene, scene.model)
    for ours, other, bare in zip(found, wanted, without, strict=True):
        assert error(ours, other) <= BOUND
        assert error(ours, bare) > DIFFERENT


@pytest.mark.parametrize("base", CONFIGS)
def test_their_node_before_ours_and_behind_it(pack, scenes, encoder, theirs, tmp_path, base):
    """One adapter by us and another by them is what their node gives twice, in either order."""
    scene, (first, second) = scenes(base), scenes(base).photos.split(1)
    path, other = (file_of(scene, kind, tmp_path, seed)[1] for seed, kind in enumerate(("plus", "base"), 1))
    mmdiff = loaded(pack, path)
    subject = encoded(pack, mmdiff, encoder, first)
    binding, *prompts = bound_by_hand(pack, scene, mmdiff, [subject])
    wanted = plain(scene, theirs(theirs(scene.model, path, first), other, second))
    before = predict(applied(pack, binding, theirs(scene.model, other, second)), *prompts)
    behind = predict(theirs(applied(pack, binding, scene.model), other, second), *prompts)
    for found in (before, behind):
        assert all(error(ours, theirs_) <= BOUND for ours, theirs_ in zip(found, wanted, strict=True))


@pytest.fixture
def plus(pack, scenes, encoder, tmp_path):
    """An SD1.5 Plus with two subjects."""
    scene = scenes("sd15")
    mmdiff = loaded(pack, file_of(scene, "plus", tmp_path)[1])
    photos = scene.photos.split(1)
    subjects = [encoded(pack, mmdiff, encoder, photo, name) for photo, name in zip(photos, ("Ada", "Bo"), strict=True)]
    return SimpleNamespace(scene=scene, mmdiff=mmdiff, subjects=subjects)


def test_two_subjects_in_one_softmax_or_each_where_its_word_is(pack, plus):
    together, by_word, swapped, alone = (
        drawn(pack, plus.scene, plus.mmdiff, subjects, separation=separation)
        for subjects, separation in (
            (plus.subjects, "reference"),
            (plus.subjects, "by word"),
            (plus.subjects[::-1], "by word"),
            (plus.subjects[:1], "by word"),
        )
    )
    assert error(by_word[0], together[0]) > DIFFERENT and error(by_word[0], swapped[0]) > DIFFERENT
    assert error(alone[0], by_word[0]) > DIFFERENT


def test_an_empty_picture_acts_where_the_subjects_do_and_nowhere_else(pack, plus, monkeypatch):
    """In negative rows, by word as in a region: gates follow the words of the binding's prompt there too."""
    attention = module(pack, "nodes.host.attention")
    binding, *prompts = bound_by_hand(pack, plus.scene, plus.mmdiff, plus.subjects)
    binding = dataclasses.replace(binding, others=(2, 3, 7))
    reference, model = (applied(pack, binding, plus.scene.model, 0.8, one) for one in ("reference", "by word"))
    together, bare, by_word = (
        predict(reference, *prompts),
        plain(plus.scene, plus.scene.model),
        predict(model, *prompts),
    )
    assert error(by_word[1], together[1]) > DIFFERENT and error(by_word[1], bare[1]) > DIFFERENT
    rows = []

    def gates(maps, subjects, value):
        rows.append(len(maps))
        return torch.full((*maps.shape[:2], subjects), value)

    monkeypatch.setattr(attention, "word_gates", lambda *given: gates(*given, 0.0))
    assert all(error(found, without) <= BOUND for found, without in zip(predict(model, *prompts), bare, strict=True))
    monkeypatch.setattr(attention, "word_gates", lambda *given: gates(*given, 0.5))
    # Half of each of two equal subjects of an empty picture, whose one softmax is that of one.
    assert error(predict(model, *prompts)[1], together[1]) <= BOUND
    cross = sum(layer.cross for layer in plus.scene.layers)
    assert sum(rows) == 2 * 2 * cross


def test_a_place_limits_a_subject_and_the_empty_picture_that_it_leaves(pack, plus):
    """A region, and a stretch of sampling, in both rows; outside of either the model is the bare one."""
    ada, place = plus.subjects[0], pack["MMDiffPlaceSubject"].execute
    mask = torch.zeros(1, 128, 128)
    whole, bare = drawn(pack, plus.scene, plus.mmdiff, [ada]), plain(plus.scene, plus.scene.model)

    def placed(*window, region=None):
        return drawn(pack, plus.scene, plus.mmdiff, [place(ada, *window, region=region).args[0]])

    everywhere, nowhere, later = placed(0, 1, region=mask + 1), placed(0, 1, region=mask), placed(0.6, 1)
    mask[..., :64] = 1
    left = placed(0, 1, region=mask)
    for row in range(2):
        assert error(everywhere[row], whole[row]) <= BOUND
        assert error(nowhere[row], bare[row]) <= BOUND and error(later[row], bare[row]) <= BOUND
        assert error(left[row], whole[row]) > DIFFERENT and error(left[row], bare[row]) > DIFFERENT


def test_negative_rows_get_an_empty_picture_whatever_their_prompt_is(pack, plus):
    """A prompt of another node's, a zeroed one, the positive one zeroed: all but a positive row get it."""
    text = module(pack, "nodes.host.text")
    binding, positive, negative = bound_by_hand(pack, plus.scene, plus.mmdiff, plus.subjects)
    zeroed = [[torch.zeros_like(negative[0][0]), negative[0][1]]]
    of_positive = [[zeroed[0][0], {**positive[0][1]}]]
    assert text.CONDITIONING_KEY in of_positive[0][1]
    model = applied(pack, binding, plus.scene.model)
    a, b = predict(model, positive, zeroed), predict(model, positive, of_positive)
    assert error(a[1], b[1]) <= BOUND
    bare = predict(plus.scene.model, positive, zeroed)
    assert error(a[1], bare[1]) > DIFFERENT

    nothing = [copy.copy(subject) for subject in plus.subjects]
    for subject in nothing:
        object.__setattr__(subject, "negative", None)
    left = drawn(pack, plus.scene, plus.mmdiff, nothing, negative=zeroed)
    assert error(left[1], bare[1]) <= BOUND and error(left[0], a[0]) <= BOUND


def test_by_word_negative_rows_follow_a_prompt_that_still_says_something(pack, plus):
    """Not its zeroed copy; and where no prompt is left to follow, the empty picture acts as by reference."""
    window = module(pack, "nodes.host.text").WINDOW_KEY
    binding, positive, negative = bound_by_hand(pack, plus.scene, plus.mmdiff, plus.subjects)
    binding = dataclasses.replace(binding, others=(2, 3, 7))
    by_word, reference = (applied(pack, binding, plus.scene.model, 0.8, one) for one in ("by word", "reference"))
    zeroed, of_positive = ([[torch.zeros_like(one[0][0]), one[0][1]]] for one in (negative, positive))
    wanted = predict(by_word, positive, zeroed)
    assert error(predict(by_word, positive, of_positive)[1], wanted[1]) <= BOUND
    past = [[positive[0][0], {**positive[0][1], window: (0.5, 0.5), "start_percent": 0.5, "end_percent": 0.5}]]
    for gone in (of_positive, past + zeroed):
        assert error(predict(by_word, gone, zeroed)[1], predict(reference, gone, zeroed)[1]) <= BOUND


def test_the_term_is_in_every_slot_and_every_row(pack, plus):
    binding, positive, negative = bound_by_hand(pack, plus.scene, plus.mmdiff, plus.subjects)
    cross = [layer for layer in plus.scene.layers if layer.cross]
    recorder = TermRecorder(cross)
    predict(recorder.watch(applied(pack, binding, plus.scene.model)), positive, negative)
    assert len(recorder.records) == len(cross)
    assert all(added.abs().amax(dim=(1, 2)).min() > 1e-4 for _, _, added in recorder.records)


def test_a_subject_is_saved_with_what_negative_rows_get(pack, plus, tmp_path):
    core = module(pack, "mmdiff_core")
    for subject in plus.subjects:
        core.save_subject(subject, tmp_path / f"{subject.name}.safetensors")
    again = [core.load_subject(tmp_path / f"{name}.safetensors") for name in ("Ada", "Bo")]
    for found, wanted in zip(
        drawn(pack, plus.scene, plus.mmdiff, again), drawn(pack, plus.scene, plus.mmdiff, plus.subjects), strict=True
    ):
        assert error(found, wanted) <= BOUND


def test_faceid_brings_its_own_lora_once(pack, scenes, encoder, tmp_path):
    """However many Apply nodes add subjects with it."""
    scene = scenes("sd15")
    parts, path = file_of(scene, "faceid", tmp_path)
    mmdiff = loaded(pack, path)
    subject = encoded(pack, mmdiff, encoder, scene.photos[:1])
    binding, *prompts = bound_by_hand(pack, scene, mmdiff, [subject])
    once = applied(pack, binding, scene.model, weight=0.0)
    twice = applied(pack, binding, once, weight=0.0)
    wanted = plain(scene, with_lora(scene.model, scene, parts))
    for model in (once, twice):
        assert error(predict(model, *prompts)[0], wanted[0]) <= BOUND
    assert error(wanted[0], plain(scene, scene.model)[0]) > DIFFERENT


def test_files_are_listed_and_loaded_from_their_own_folder(pack, scenes, tmp_path, monkeypatch):
    scene = scenes("sd15")
    for ending in (".bin", ".safetensors"):
        file_of(scene, "plus", tmp_path, ending=ending)
    known = folder_paths.folder_names_and_paths
    monkeypatch.setitem(known, "ipadapter", ([str(tmp_path)], known["ipadapter"][1]))
    names = module(pack, "nodes.host.folders").checkpoint_names()
    wanted = [f"ipadapter/{KINDS['plus']}-0{ending}" for ending in (".bin", ".safetensors")]
    assert names[-2:] == wanted
    for name in wanted:
        output = pack["MMDiffLoad"].execute(checkpoint=name)
        said = output.ui.as_dict()["text"][0]
        assert said.startswith("IP-Adapter Plus for SD1.5\nvision encoder: one of hidden width 32"), said
        assert output.args[0].core.base == "sd15"
    with pytest.raises(module(pack, "mmdiff_core").MMDiffError, match="There is no checkpoint"):
        pack["MMDiffLoad"].execute(checkpoint="ipadapter/../secret.bin")


def test_load_says_which_files_are_wanted_and_whether_they_are_there(pack, tmp_path, monkeypatch):
    wanted = module(pack, "nodes.host.wanted")
    path = write(random_parts("faceid-plus", hidden=1280), tmp_path, "ip-adapter-faceid-plus_sd15.bin")
    core = loaded(pack, path).core
    known = folder_paths.folder_names_and_paths
    for kind in ("clip_vision", "insightface"):
        folder_paths.filename_list_cache.pop(kind, None)
        monkeypatch.setitem(known, kind, ([str(tmp_path / kind)], known[kind][1]))
        (tmp_path / kind).mkdir()
    absent = wanted.report(core)
    assert "IP-Adapter FaceID Plus v1 for SD1.5" in absent
    assert "vision encoder: CLIP ViT-H/14, not found in models/clip_vision" in absent
    assert "faces: from Analyze Face. Face analysis needs det_10g.onnx" in absent

    from safetensors.torch import save_file

    for name, hidden in (("vit-h", 1280), ("vit-l", 1024)):
        tensors = {
            "vision_model.embeddings.class_embedding": torch.zeros(hidden),
            "visual_projection.weight": torch.zeros(1024 if hidden == 1280 else 768, hidden),
        }
        save_file(tensors, tmp_path / "clip_vision" / f"{name}.safetensors")
    (tmp_path / "clip_vision" / "broken.safetensors").write_text("x")
    faces = tmp_path / "insightface" / "models" / "buffalo_l"
    faces.mkdir(parents=True)
    for name in ("det_10g.onnx", "w600k_r50.onnx"):
        (faces / name).touch()
    folder_paths.filename_list_cache.pop("clip_vision", None)
    there = wanted.report(core)
    assert "CLIP ViT-H/14, there as vit-h.safetensors" in there and "its models are there" in there
    folder_paths.filename_list_cache.pop("clip_vision", None)


def test_faceid_without_face_models_says_what_is_missing(pack, scenes, tmp_path, monkeypatch):
    """Load MM-Diff in its report, Analyze Face as an error; a photo that is encoded without it asks for a face."""
    mmdiff = loaded(pack, write(random_parts("faceid"), tmp_path, "faceid.bin"))
    folders = module(pack, "nodes.host.folders")
    monkeypatch.setattr(folders, "face_folders", lambda: [tmp_path])
    for said in (
        module(pack, "nodes.host.wanted").report(mmdiff.core),
        raised(pack, lambda: pack["MMDiffAnalyzeFace"].execute(scenes("sd15").photos[:1], "largest", 0, mmdiff)),
    ):
        assert "det_10g.onnx" in said and str(tmp_path) in said and "buffalo_l" in said


def raised(pack, work):
    with pytest.raises(module(pack, "mmdiff_core").MMDiffError) as caught:
        work()
    return str(caught.value)


def test_the_wrong_encoder_and_no_face_are_said(pack, scenes, encoder, tmp_path):
    error_class = module(pack, "mmdiff_core").MMDiffError
    scene = scenes("sd15")
    wide = loaded(pack, write(random_parts("plus", hidden=1280), tmp_path, "plus.bin"))
    with pytest.raises(error_class, match=r"checkpoint was trained with CLIP ViT-H/14 \(hidden 1280, projection any"):
        encoded(pack, wide, encoder, scene.photos[:1])
    faceid = loaded(pack, write(random_parts("faceid"), tmp_path, "faceid.bin"))
    node = pack["MMDiffEncodeSubject"]
    with pytest.raises(error_class, match="draws people from a face vector, and none is connected"):
        node.execute(mmdiff=faceid, clip_vision=encoder, image=scene.photos[:1], name="Ada", weight=1.0)


def test_a_photo_on_a_plain_ground_stays_whole(pack, scenes, encoder, tmp_path):
    """As the family was trained and as its own nodes show it, unless somebody asks for the subject alone."""
    scene = scenes("sd15")
    mmdiff = loaded(pack, file_of(scene, "plus", tmp_path)[1])
    photo = torch.full((1, 300, 400, 3), 0.8)
    photo[:, 100:200, 150:250] = 0.2
    node = pack["MMDiffEncodeSubject"]

    def encoded_by(**crop):
        out = node.execute(mmdiff=mmdiff, clip_vision=encoder, image=photo, name="Ada", weight=1.0, **crop)
        return out.args[0].tokens, out.ui["text"]

    auto, whole, alone = (encoded_by(**crop) for crop in ({}, {"crop": "whole photo"}, {"crop": "to the subject"}))
    assert torch.equal(auto[0], whole[0]) and auto[1] == ()
    assert error(alone[0], whole[0]) > DIFFERENT and alone[1] == ("The subject was cut out of its plain background.",)


def test_another_base_is_refused(pack, scenes, encoder, tmp_path):
    error_class = module(pack, "mmdiff_core").MMDiffError
    sd15, sdxl = scenes("sd15"), scenes("sdxl")
    mmdiff = loaded(pack, file_of(sd15, "base", tmp_path)[1])
    binding, *_ = bound_by_hand(pack, sd15, mmdiff, [encoded(pack, mmdiff, encoder, sd15.photos[:1])])
    with pytest.raises(error_class, match="the model is SDXL, the checkpoint was trained for Stable Diffusion 1.5"):
        applied(pack, binding, sdxl.model)
    parts = random_parts("base", attention=[16] * len(sd15.layers))
    narrow = loaded(pack, write(parts, tmp_path, "narrow.bin"))
    binding, *_ = bound_by_hand(pack, sd15, narrow, [encoded(pack, narrow, encoder, sd15.photos[:1])])
    with pytest.raises(error_class, match="layer 1 of the model .SD15. takes 768 numbers and gives 32, the checkpoint"):
        applied(pack, binding, sd15.model)


def test_attention_maps_show_where_each_subject_acts(pack, plus):
    binding, positive, _ = bound_by_hand(pack, plus.scene, plus.mmdiff, plus.subjects)
    model = applied(pack, binding, plus.scene.model, separation="by word")
    latent = {"samples": torch.zeros(1, 4, 16, 16)}
    maps = module(pack, "nodes.host.maps").attention_maps(model, positive, binding, latent, 0.5)
    assert maps.shape == (2, 3, 16, 16) and maps.isfinite().all()
    assert (maps.std(dim=(-1, -2)) > 1e-3).all()
