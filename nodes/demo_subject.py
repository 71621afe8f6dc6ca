import json

import numpy as np
import torch
from comfy_api.latest import io, ui
from PIL import Image

from ..mmdiff_core import MMDiffError
from ..mmdiff_core.demo import SUBJECTS
from .host import types

NAMES = sorted(json.loads((SUBJECTS / "subjects.json").read_text())["drawings"])


class DemoSubject(types.Node):
    """A bundled picture to begin with."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MMDiffDemoSubject",
            display_name="Demo Subject",
            category=types.CATEGORY,
            description="A picture of something that the demo model has never seen, to begin with. Put Load Image in "
            "its place for a picture of your own.",
            search_aliases=["mm-diff demo", "example image", "sample picture", "reference"],
            inputs=[io.Combo.Input("subject", options=NAMES, default="penguin", tooltip="Who is to be drawn.")],
            outputs=[io.Image.Output(display_name="image"), io.Mask.Output(display_name="mask")],
        )

    @classmethod
    def execute(cls, subject) -> io.NodeOutput:
        if subject not in NAMES:
            raise MMDiffError(f"there is no drawing {subject!r}; there are {', '.join(NAMES)}.")
        with Image.open(SUBJECTS / f"{subject}.png") as opened:
            pixels = torch.from_numpy(np.asarray(opened.convert("RGBA"), np.float32) / 255)
        opacity = pixels[None, ..., 3]
        image = pixels[None, ..., :3] * opacity[..., None]
        return io.NodeOutput(image, opacity, ui=ui.PreviewImage(image, cls=cls))
