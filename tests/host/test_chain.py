"""What came of forty pictures, packed, in the real nodes: a prompt with two subjects is sampled with it."""

import sys
from pathlib import Path

import comfy.sd1_clip
import pytest
import torch
from graph import applied, bound, mmdiff, sample
from test_trained import host_clip, host_unet, host_vision

sys.path.append(str(Path(__file__).parents[1] / "core" / "annotation"))


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """The packed file, and its base."""
    import chain

    from mmdiff_core.drawing.base import Base

    folder = tmp_path_factory.mktemp("chain")
    with torch.inference_mode(False), torch.enable_grad():
        tokens = Path(comfy.sd1_clip.__file__).parent / "sd1_tokenizer"
        made = chain.make(folder, channels=64, tokens=tokens)
        base = Base(str(folder / "base"), str(folder / "vision"), weights=True, dtype=torch.float32)
    return made.packed, base


def test_the_packed_checkpoint_draws_in_the_nodes(pack, packed):
    path, base = packed
    checkpoint, vision, clip, unet = mmdiff(pack, path), host_vision(base), host_clip(base), host_unet(base.unet)

    def drawn(*colours):
        subjects = []
        for name, colour in zip(("First", "Second"), colours, strict=True):
            photo = torch.tensor(colour).expand(1, 28, 28, 3).contiguous()
            inputs = {"mmdiff": checkpoint, "clip_vision": vision, "image": photo, "name": name, "weight": 1.0}
            subjects.append(pack["MMDiffEncodeSubject"].execute(**inputs).args[0])
        prompt = "a red box<|subj:First|> and a blue box<|subj:Second|> in the dust"
        positive, negative, binding = bound(pack, prompt, subjects, mmdiff=checkpoint, clip=clip)
        return sample(applied(pack, binding, model=unet), positive, negative)

    red, blue, green = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, 1.0, 0.0)
    first = drawn(red, blue)
    assert first.isfinite().all() and torch.equal(first, drawn(red, blue))
    assert not torch.equal(first, drawn(red, green)), "the photos decide what is drawn"
