import numpy as np
import torch
from comfy.model_management import throw_exception_if_processing_interrupted
from comfy.utils import ProgressBar
from comfy_api.latest import io, ui
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..mmdiff_core import MMDiffError, Spec
from ..mmdiff_core.face import CHOICES, RECOGNISERS, Found, analyze
from .host import types
from .host.faces import face_files, face_models
from .host.model import HostedMMDiff

CHOSEN, OTHER = (60, 220, 90), (255, 170, 0)


class AnalyzeFace(types.Node):
    """One face of every photo, for checkpoints that were trained with faces."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MMDiffAnalyzeFace",
            display_name="Analyze Face",
            category=types.CATEGORY,
            description="Finds the faces in photos, and cuts out and recognises one in each, for the face input of "
            "Encode Subject. Needs insightface's buffalo_l models in models/insightface/models/buffalo_l, or "
            "dlib's in models/dlib for a checkpoint that was trained with these.",
            search_aliases=["face id", "insightface", "detect face", "face embedding", "arcface", "face crop"],
            inputs=[
                io.Image.Input(
                    "image", tooltip="Photos with a face each; give Encode Subject the same photos in the same order."
                ),
                io.Combo.Input(
                    "choice",
                    options=list(CHOICES),
                    default="largest",
                    tooltip="Which face to take where a photo has several: the largest, the leftmost, or the one whose "
                    "number is seen in the preview.",
                ),
                io.Int.Input(
                    "index",
                    default=0,
                    min=0,
                    max=999,
                    advanced=True,
                    tooltip="Only for the choice index, of older graphs: the face, counted from the left, from 0.",
                ),
                types.Model.Input(
                    "mmdiff",
                    optional=True,
                    tooltip="The checkpoint the faces are for, from Load MM-Diff. An IP-Adapter FaceID Plus for SDXL "
                    "wants them cut out with a wider margin.",
                ),
                io.Combo.Input(
                    "recogniser",
                    options=["auto", *RECOGNISERS],
                    default="auto",
                    optional=True,
                    advanced=True,
                    tooltip="Whose face vectors: auto is what the checkpoint at mmdiff was trained with, buffalo_l "
                    "where none is connected. dlib is free for any use, for checkpoints that were trained with it.",
                ),
                io.Int.Input(
                    "number",
                    default=1,
                    min=1,
                    max=1000,
                    optional=True,
                    tooltip="Only for the choice number: the face, as the preview counts them from the left, from 1.",
                ),
            ],
            outputs=[types.Face.Output(display_name="face")],
        )

    @classmethod
    def validate_inputs(cls, recogniser: str | None = "auto", mmdiff: object = types.APART) -> None:
        """A file that is missing is known, but for the recogniser of a checkpoint that is still to be loaded."""
        if recogniser in RECOGNISERS:
            face_files(recogniser)
        elif recogniser == "auto" and mmdiff is types.APART:
            face_files(Spec.recogniser)
        elif recogniser not in ("auto", None):
            raise MMDiffError(f"recogniser is {recogniser!r}; it must be auto, {' or '.join(RECOGNISERS)}.")

    @classmethod
    def execute(
        cls,
        image: Tensor,
        choice: str,
        index: int,
        mmdiff: HostedMMDiff | None = None,
        recogniser: str = "auto",
        number: int = 1,
    ) -> io.NodeOutput:
        bar = ProgressBar(len(image))

        def progress(done: int) -> None:
            throw_exception_if_processing_interrupted()
            bar.update_absolute(done)

        spec = mmdiff.core.spec if mmdiff is not None else Spec()
        models = face_models(spec.recogniser if recogniser == "auto" else recogniser)
        first, asked = int(choice != "index"), number if choice == "number" else index
        face, found = analyze(image, models, choice, asked, progress, spec.face_crop)
        bar.update_absolute(len(image))
        seen = torch.stack([_numbered(photo, faces, first) for photo, faces in zip(image, found, strict=True)])
        return io.NodeOutput(face, ui=ui.PreviewImage(seen, cls=cls))


def _numbered(photo: Tensor, found: Found, first: int) -> Tensor:
    """A photo (H, W, 3) in [0, 1] with a box and the number of every face drawn on it, counted from `first`."""
    picture = Image.fromarray((photo[..., :3].float().clamp(0, 1) * 255).byte().cpu().numpy())
    draw = ImageDraw.Draw(picture)
    line = max(2, min(picture.size) // 150)
    font = ImageFont.load_default(8 * line)
    for number, box in enumerate(found.boxes, first):
        chosen = number - first == found.chosen
        colour = CHOSEN if chosen else OTHER
        draw.rectangle(tuple(box), outline=colour, width=2 * line if chosen else line)
        draw.text(
            (box[0] + 3 * line, box[1] + 2 * line), str(number), colour, font, stroke_width=1, stroke_fill="black"
        )
    return torch.from_numpy(np.asarray(picture).astype(np.float32) / 255)
