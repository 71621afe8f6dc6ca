"""Several subjects: weights, regions, separation by word, files, and mixing of identities."""

import dataclasses
from types import SimpleNamespace

import folder_paths
import pytest
import torch
from graph import applied, bound, error, mmdiff, module, sample, subject
from neighbours import replaced
from predictions import noises, predict
from tiny_sd15 import general_checkpoint
from tiny_sdxl import face_crop, face_embeds, photo, sdxl

EQUAL = 1e-5
DIFFERENT = 1e-3
PROMPT = "a man<|subj:Ada|> and a woman<|subj:Bo|>"
SWAPPED = "a man<|subj:Bo|> and a woman<|subj:Ada|>"


@pytest.fixture(scope="module")
def scene(pack):
    """Three subjects, with the clean spec, and the context of the prompt without any."""
    clean = mmdiff(pack).with_spec(fuse_negative=False)
    with torch.inference_mode():
        ada, bo, cleo = (subject(pack, name, number) for number, name in enumerate(("Ada", "Bo", "Cleo")))
        clip = module(pack, "nodes.host.text").patch_text_encoders(sdxl().clip, clean.core)
        plain = clip.encode_from_tokens_scheduled(clip.tokenize("a man and a woman"))
    layers = module(pack, "nodes.host.base").attention_layers(sdxl().model.model.diffusion_model)
    return SimpleNamespace(
        mmdiff=clean, ada=ada, bo=bo, cleo=cleo, plain=plain, layers={layer.slot: layer for layer in layers}
    )


def half(left: bool, size=16):
    mask = torch.zeros(1, size, size)
    mask[..., : size // 2] = 1
    return mask if left else 1 - mask


def placed(pack, one, region):
    return pack["MMDiffPlaceSubject"].execute(one, 0.0, 1.0, region).args[0]


def terms(pack, scene, subjects, prompt=PROMPT, separation="reference", weight=0.8, size=(16, 16)):
    """The subjects' term of every slot behind the block's output layer, {slot: (h, w, C)}.

    No slot passes anything on and all runs have one text, so that each sees the same queries and the same words
    whatever the subjects are.
    """
    positive, negative, binding = bound(pack, prompt, subjects, mmdiff=scene.mmdiff)
    ((context, extra),), ((_, own),) = scene.plain, positive
    positive = [[context, {**own, "pooled_output": extra["pooled_output"]}]]
    found = {}

    def keep(out, extra_options):
        slot = (*extra_options["block"], extra_options["block_index"])
        bias = scene.layers[slot].attention.to_out[0].bias
        found[slot] = (out[0] - bias).unflatten(0, tuple(extra_options["activations_shape"][-2:]))
        return torch.zeros_like(out)

    model = applied(pack, binding, weight=weight, separation=separation)
    model = replaced(model, scene.layers, lambda q, k, v, extra_options: torch.zeros_like(q))
    model.set_model_attn2_output_patch(keep)
    predict(model, positive, negative, cfg=(1.0,), noise=noises(size=size))
    assert len(found) == sum(layer.cross for layer in scene.layers.values())
    return found


@pytest.fixture(scope="module")
def alone(pack, scene):
    """The terms of each of the two subjects alone."""
    with torch.inference_mode():
        found = SimpleNamespace(
            ada=terms(pack, scene, [scene.ada], "a man<|subj|> and a woman"),
            bo=terms(pack, scene, [scene.bo], "a man and a woman<|subj|>"),
        )
    assert all(error(found.ada[slot], found.bo[slot]) > 0.1 for slot in found.ada)
    return found


# Weights


def test_weights_scale_the_term(pack, scene, alone):
    lighter = dataclasses.replace(scene.ada, weight=0.25)
    by_subject = terms(pack, scene, [lighter], "a man<|subj|> and a woman")
    by_node = terms(pack, scene, [scene.ada], "a man<|subj|> and a woman", weight=0.2)
    for slot, whole in alone.ada.items():
        assert error(by_subject[slot], 0.25 * whole) < EQUAL
        assert error(by_node[slot], 0.25 * whole) < EQUAL


@pytest.mark.parametrize("separation", ["reference", "by word"])
def test_each_subject_has_its_own_weight(pack, scene, separation):
    """The term is linear in the subjects' weights: they scale what a subject adds, not where it is looked for."""

    def weighted(ada, bo):
        subjects = [dataclasses.replace(one, weight=w) for one, w in ((scene.ada, ada), (scene.bo, bo))]
        return terms(pack, scene, subjects, separation=separation)

    both, only_ada, only_bo = weighted(0.5, 2.0), weighted(1.0, 0.0), weighted(0.0, 1.0)
    for slot in both:
        assert error(both[slot], 0.5 * only_ada[slot] + 2.0 * only_bo[slot]) < EQUAL
        assert min(float(one[slot].abs().max()) for one in (only_ada, only_bo)) > DIFFERENT


# Regions


@pytest.mark.parametrize("separation", ["reference", "by word"])
@pytest.mark.parametrize("size", [16, 512])
def test_nothing_outside_of_a_region(pack, scene, separation, size):
    """And inside the same as without one. Regions come in any size."""
    ada = placed(pack, scene.ada, half(True, size))
    everywhere, found = (
        terms(pack, scene, [one], "a man<|subj|> and a woman", separation=separation) for one in (scene.ada, ada)
    )
    for slot, term in found.items():
        middle = term.shape[1] // 2
        assert (term[:, middle:] == 0).all()
        assert error(term[:, :middle], everywhere[slot][:, :middle]) < EQUAL


@pytest.mark.parametrize("size", [(16, 24), (24, 16)])
def test_a_region_of_a_picture_that_is_not_square(pack, scene, size):
    whole = terms(pack, scene, [scene.ada], "a man<|subj|> and a woman", size=size)
    found = terms(pack, scene, [placed(pack, scene.ada, half(True, 64))], "a man<|subj|> and a woman", size=size)
    for slot, term in found.items():
        middle = term.shape[1] // 2
        assert (term[:, middle:] == 0).all()
        assert error(term[:, :middle], whole[slot][:, :middle]) < EQUAL


def test_a_subject_is_alone_in_its_hard_region(pack, scene, alone):
    subjects = [placed(pack, scene.ada, half(True)), placed(pack, scene.bo, half(False))]
    for slot, term in terms(pack, scene, subjects).items():
        middle = term.shape[1] // 2
        assert error(term[:, :middle], alone.ada[slot][:, :middle]) < EQUAL
        assert error(term[:, middle:], alone.bo[slot][:, middle:]) < EQUAL


@pytest.mark.parametrize("separation", ["reference", "by word"])
def test_overlapping_regions(pack, scene, separation):
    """Where both may act they share the pixel as without regions; where one may, the other adds nothing."""
    ones = torch.ones(1, 16, 16)
    everywhere = terms(pack, scene, [scene.ada, scene.bo], separation=separation)
    found = terms(pack, scene, [placed(pack, scene.ada, ones), placed(pack, scene.bo, half(True))], PROMPT, separation)
    for slot, term in found.items():
        middle = term.shape[1] // 2
        assert error(term[:, :middle], everywhere[slot][:, :middle]) < EQUAL


def test_a_soft_region_scales(pack, scene, alone):
    found = terms(pack, scene, [placed(pack, scene.ada, torch.full((1, 16, 16), 0.25))], "a man<|subj|> and a woman")
    for slot, term in found.items():
        assert error(term, 0.25 * alone.ada[slot]) < EQUAL


@pytest.mark.parametrize("separation", ["reference", "by word"])
def test_a_region_of_nothing_is_nothing(pack, scene, separation):
    zeros = torch.zeros(1, 16, 16)
    both = [placed(pack, one, zeros) for one in (scene.ada, scene.bo)]
    assert all((term == 0).all() for term in terms(pack, scene, both, separation=separation).values())


def test_a_region_of_nothing_leaves_the_other_subject(pack, scene, alone):
    found = terms(pack, scene, [scene.ada, placed(pack, scene.bo, torch.zeros(1, 16, 16))])
    assert all(error(term, alone.ada[slot]) < EQUAL for slot, term in found.items())


# Separation by word


@pytest.mark.parametrize("prompt", ["Ada", "(Ada:1.2)", "tyrannosaurus<|subj|>"])
def test_a_prompt_of_bound_words_only_is_the_reference(pack, scene, prompt):
    """There is nothing to keep out of; the pieces of one word do not compete with each other."""
    found = bound(pack, prompt, [scene.ada], mmdiff=scene.mmdiff)
    by_word, reference = (
        sample(applied(pack, found[2], separation=choice), *found[:2], steps=4) for choice in ("by word", "reference")
    )
    assert error(by_word, reference) <= EQUAL
    assert error(reference, sample(applied(pack, found[2], weight=0.0), *found[:2], steps=4)) > DIFFERENT


def gates(term, ada, bo):
    """(h, w) the a and b with which term = a ada + b bo, and how far that is from true."""
    basis = torch.stack([ada, bo], dim=-1).double()
    found = torch.linalg.lstsq(basis, term[..., None].double()).solution
    return (*found[..., 0].unbind(-1), error(basis @ found, term[..., None]))


def test_gates_share_out_every_pixel(pack, scene, alone):
    """Each pixel's term has a part of each subject's own. In a prompt of nothing else they sum to one, and less where
    other words are looked for."""
    spread = []
    prompts = "man<|subj:Ada|> woman<|subj:Bo|>", PROMPT
    only, beside = (terms(pack, scene, [scene.ada, scene.bo], prompt, "by word") for prompt in prompts)
    for slot in only:
        a, b, rest = gates(only[slot], alone.ada[slot], alone.bo[slot])
        assert rest < EQUAL and min(a.min(), b.min()) > -EQUAL
        assert torch.allclose(a + b, torch.ones_like(a), atol=1e-3)
        a, b, rest = gates(beside[slot], alone.ada[slot], alone.bo[slot])
        assert rest < EQUAL and min(a.min(), b.min()) > -EQUAL and (a + b).min() < 0.9
        spread.append(float(a.max() - a.min()))
    assert max(spread) > 0.1


QUERIES, KEYS = (torch.randn(2, size, 8, generator=torch.Generator().manual_seed(size)) for size in (64, 12))


def by_word(pack, active=(0, 1), cut=12, **words):
    """Gates of a binding whose words stand there, for the same queries and text."""
    binding = SimpleNamespace(**{"words": ((2,), (5,)), "nobody": (), "others": (), **words})
    gates = module(pack, "nodes.host.attention").gates_by_word
    return gates(binding, active, QUERIES, KEYS[:, :cut], heads=2, size=(8, 8))


def test_the_rest_of_the_prompt_competes(pack):
    free, beside = by_word(pack), by_word(pack, others=(1, 3))
    left = beside.sum(dim=-1, keepdim=True)
    assert torch.allclose(beside, free * left, atol=1e-6) and left.max() < 1 + 1e-6 and left.std() > 0.01


def test_a_word_marked_with_nobody_takes_more(pack):
    plain, marked = by_word(pack, others=(1, 3, 7)), by_word(pack, others=(1, 3), nobody=(7,))
    assert (marked <= plain + 1e-6).all() and marked.sum() < 0.9 * plain.sum()


def test_the_word_of_a_subject_that_does_not_act_now_competes(pack):
    """Its window is over, and nobody is to take its place."""
    assert torch.equal(by_word(pack, active=(0,)), by_word(pack, active=(0,), words=((2,),), others=(5,)))


def test_words_that_a_node_cut_off_compete_no_more(pack):
    assert torch.equal(by_word(pack, others=(1, 11), cut=10), by_word(pack, others=(1,), cut=10))


@pytest.mark.parametrize(
    ("prompt", "nobody", "others"),
    [
        ("a man<|subj|> and a woman", (), (1, 3, 4, 5)),
        ("a man<|subj|> and a woman<|nobody|>", (5,), (1, 3, 4)),
        ("a tyrannosaurus<|subj|>, a dog", (), (1, 5, 6, 7)),
    ],
)
def test_what_competes_is_every_token_of_another_word(pack, scene, prompt, nobody, others):
    binding = bound(pack, prompt, [scene.ada], mmdiff=scene.mmdiff)[2]
    assert (binding.nobody, binding.others) == (nobody, others)


def test_nobody_where_it_does_not_act_is_said(pack, scene, caplog):
    binding = bound(pack, "a man<|subj|> and a woman<|nobody|>", [scene.ada], mmdiff=scene.mmdiff)[2]
    applied(pack, binding, separation="by word")
    assert not caplog.records
    applied(pack, binding, separation="reference")
    assert "marked with <|nobody|>, which acts where separation is 'by word'" in caplog.text


def test_gates_sum_to_one_however_sharp_the_maps(pack):
    core = module(pack, "mmdiff_core.model.attention")
    maps = torch.tensor([[[1.0, 1e-9, 0.0], [1e-9, 0.0, 0.0], [0.0, 0.0, 0.0], [1e-20, 1e-38, 0.5]]])
    found = core.word_gates(maps, 3)
    assert found.isfinite().all() and torch.allclose(found.sum(dim=-1), torch.ones(1, 4))
    assert core.word_gates(torch.tensor([[[1e-9], [1.0], [0.0]]]), 1).eq(1).all()


def test_swapped_words_swap_the_subjects(pack, scene, alone):
    """The gates are the words' own: with the words exchanged, each subject takes the other's place."""
    first = terms(pack, scene, [scene.ada, scene.bo], PROMPT, separation="by word")
    second = terms(pack, scene, [scene.ada, scene.bo], SWAPPED, separation="by word")
    for slot in first:
        a, b, _ = gates(first[slot], alone.ada[slot], alone.bo[slot])
        swapped = a[..., None] * alone.bo[slot] + b[..., None] * alone.ada[slot]
        assert error(second[slot], swapped) < EQUAL
    assert max(error(second[slot], first[slot]) for slot in first) > 0.1


def test_the_order_of_sockets_does_not_matter(pack, scene):
    for separation in ("reference", "by word"):
        first = terms(pack, scene, [scene.ada, scene.bo], separation=separation)
        second = terms(pack, scene, [scene.bo, scene.ada], separation=separation)
        assert all(error(second[slot], first[slot]) < EQUAL for slot in first)


def test_a_subject_mentioned_twice(pack, scene):
    """Both words are fused with it, and by word it acts where either of them is looked for."""
    prompt = "a man<|subj:Ada|> and a woman<|subj:Bo|> and a man<|subj:Ada|>"
    positive, negative, binding = bound(pack, prompt, [scene.ada, scene.bo], mmdiff=scene.mmdiff, start_percent=0.5)
    assert binding.words == ((2, 8), (5,))
    once = bound(pack, prompt[: prompt.rindex("<")], [scene.ada, scene.bo], mmdiff=scene.mmdiff, start_percent=0.5)
    changed = (positive[1][0] != once[0][1][0])[0].any(dim=-1).nonzero().flatten().tolist()
    assert changed == list(range(8, 77))
    twice = [dataclasses.replace(binding, words=words) for words in (((2, 8), (5,)), ((2,), (5,)), ((8,), (5,)))]
    found = [predict(applied(pack, one, separation="by word"), positive, negative)[0] for one in twice]
    assert all(error(found[0], one) > 1e-5 for one in found[1:])


# Files


def test_a_saved_subject_is_the_same_in_another_workflow(pack, scene, tmp_path, monkeypatch):
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "mmdiff", ([str(tmp_path)], set()))
    ada = pack["MMDiffPlaceSubject"].execute(scene.ada, 0.25, 0.75, half(True)).args[0]
    pack["MMDiffSaveSubject"].execute(subject=ada, filename="people/Ada")
    assert (tmp_path / "subjects" / "people" / "Ada.safetensors").is_file()
    assert module(pack, "nodes.host.folders").subject_names() == ["people/Ada"]
    loaded = pack["MMDiffLoadSubject"].execute(subject="people/Ada").args[0]
    latents = []
    for one in (ada, loaded):
        found = bound(pack, "Ada on the beach", [one])
        latents.append(sample(applied(pack, found[2]), *found[:2], steps=4))
    assert torch.equal(*latents)


def test_a_subject_of_another_checkpoint_is_refused(pack, scene, tmp_path):
    core = module(pack, "mmdiff_core")
    other = general_checkpoint(pack, tmp_path)
    with pytest.raises(core.MMDiffError, match="'Ada' was encoded with another MM-Diff checkpoint"):
        bound(pack, "Ada on the beach", [scene.ada], mmdiff=other)


# Specs


def test_with_spec_changes_a_copy(pack, scene):
    released = mmdiff(pack)
    both = released.with_spec(text_lora_encoders="both")
    assert released.core.spec.text_lora_encoders == "first" and both.core.spec.text_lora_encoders == "both"
    assert both.core.heads is released.core.heads and both.patcher is released.patcher
    contexts = [bound(pack, "Ada on the beach", [scene.ada], mmdiff=one) for one in (released, both, scene.mmdiff)]
    (first, second, clean), (negative, _, clean_negative) = ([one[n][0][0] for one in contexts] for n in (0, 1))
    assert torch.equal(first[..., :64], second[..., :64]) and error(first[..., 64:], second[..., 64:]) > DIFFERENT
    assert torch.equal(first, clean) and error(negative, clean_negative) > DIFFERENT
    with pytest.raises(module(pack, "mmdiff_core").MMDiffError, match="no field negated"):
        released.with_spec(negated=True)


# References


def encoded(pack, checkpoint, photos, faces):
    core, face = module(pack, "mmdiff_core"), None
    images = torch.cat([core.prepare_photos(photo(n), 224) for n in photos]).movedim(1, -1)  # to one size
    if faces:
        face = core.Face(face_embeds()[faces], torch.cat([face_crop(n) for n in faces]))
    node = pack["MMDiffEncodeSubject"]
    output = node.execute(
        mmdiff=checkpoint,
        clip_vision=sdxl().clip_vision,
        image=images,
        face=face,
        name="Ada",
        weight=1.0,
    )
    return output.args[0]


@pytest.mark.parametrize("references", ["first", "mean"])
def test_identities_mix(pack, references):
    """The tokens of three references one after another; the word takes the first photo or the mean of the CLS."""
    checkpoint = mmdiff(pack).with_spec(entity_references=references)
    mixed = encoded(pack, checkpoint, [0, 1, 2], [0, 1, 2])
    single = [encoded(pack, checkpoint, [n], [n]) for n in range(3)]
    assert mixed.tokens.shape == (12, 256)
    assert error(mixed.tokens, torch.cat([one.tokens for one in single])) < EQUAL
    for encoder, entity in mixed.entity.items():
        same = [error(entity, one.entity[encoder]) < EQUAL for one in single]
        assert same == ([True, False, False] if references == "first" else [False, False, False])
    found = bound(pack, "Ada on the beach", [mixed], mmdiff=checkpoint)
    latent = sample(applied(pack, found[2]), *found[:2])
    assert error(latent, sample(applied(pack, found[2], weight=0.0), *found[:2])) > DIFFERENT


@pytest.mark.parametrize(("photos", "faces"), [([0], [0, 1, 2]), ([0, 1, 2], [1]), ([0, 1], [2, 0, 1])])
def test_faces_and_photos_may_differ_in_number(pack, photos, faces):
    """For a portrait checkpoint the faces are the references of the tokens, the photos those of the word."""
    found = encoded(pack, mmdiff(pack), photos, faces)
    assert len(found.tokens) == 4 * len(faces)
    assert error(found.tokens, torch.cat([encoded(pack, mmdiff(pack), [0], [n]).tokens for n in faces])) < EQUAL
    for encoder, entity in encoded(pack, mmdiff(pack), photos[:1], [0]).entity.items():
        assert error(found.entity[encoder], entity) < EQUAL


def test_a_general_checkpoint_needs_no_face(pack, tmp_path):
    general = general_checkpoint(pack, tmp_path)
    found = encoded(pack, general, [0, 1, 2], [])
    assert found.tokens.shape == (12, 768) and found.entity.keys() == {"l"}
    assert torch.equal(found.tokens, encoded(pack, general, [0, 1, 2], [0]).tokens)


def test_a_checkpoint_trained_without_fusion_leaves_the_prompt_alone(pack, scene):
    unfused = scene.mmdiff.with_spec(fuse_prompt=False)
    positive, negative, binding = bound(pack, PROMPT, [scene.ada, scene.bo], mmdiff=unfused)
    assert torch.equal(positive[0][0], scene.plain[0][0])
    drawn, plain = (sample(applied(pack, binding, weight=weight), positive, negative) for weight in (0.8, 0.0))
    assert error(drawn, plain) > DIFFERENT, "its subjects come from their tokens alone"
