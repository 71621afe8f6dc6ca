from comfy_api.latest import io, ui

from .host import types
from .host.vision import encode


class EncodeSubject(types.Node):
    """Photos of one subject to what the prompt and the UNet need of it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MMDiffEncodeSubject",
            display_name="Encode Subject",
            category=types.CATEGORY,
            description="Encodes one or several photos of one subject. A batch of images is several references of the "
            "same subject; for another subject use another Encode Subject.",
            search_aliases=["reference image", "identity", "photomaker", "ip-adapter", "face"],
            inputs=[
                types.Model.Input("mmdiff", tooltip="The checkpoint, from Load MM-Diff."),
                io.ClipVision.Input(
                    "clip_vision", tooltip="The vision encoder the checkpoint was trained with: CLIP ViT-L/14 (openai)."
                ),
                io.Image.Input(
                    "image", tooltip="Photos of this one subject, any size; they are padded to a square, never cropped."
                ),
                types.Face.Input(
                    "face",
                    optional=True,
                    tooltip="Needed by portrait checkpoints (the released one): the faces, from Analyze Face.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="White on the subject, the size of the photo: the rest becomes black.",
                ),
                io.String.Input(
                    "name",
                    default="subject",
                    tooltip="What the prompt may call it: as a phrase, or as <|subj:NAME|> after a word.",
                ),
                io.Float.Input(
                    "weight",
                    default=1.0,
                    min=0.0,
                    max=3.0,
                    step=0.05,
                    tooltip="How strongly this subject is drawn, beside the other subjects.",
                ),
            ],
            outputs=[types.Subject.Output(display_name="subject")],
        )

    @classmethod
    def execute(cls, mmdiff, clip_vision, image, name, weight, face=None, mask=None) -> io.NodeOutput:
        subject, photos = encode(mmdiff, clip_vision, image, face, mask, name, weight)
        return io.NodeOutput(subject, ui=ui.PreviewImage(photos.movedim(1, -1), cls=cls))
