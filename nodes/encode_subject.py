from comfy_api.latest import io, ui

from ..mmdiff_core.cutout import references
from .host import types
from .host.vision import encode

MORE_IMAGES = 15


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
                    "image",
                    tooltip="Photos of this one subject, of any size. More photos of other sizes go to the sockets "
                    "image_2 and on.",
                ),
                types.Face.Input(
                    "face",
                    optional=True,
                    tooltip="Needed by portrait checkpoints (the released one): the faces, from Analyze Face.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="White on the subject, the size of the photo: the rest becomes black. The mask of Load "
                    "Image fits: painted on the subject, of a transparent picture, or of none.",
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
                io.Combo.Input(
                    "crop",
                    options=["auto", "to the subject", "whole photo"],
                    default="auto",
                    optional=True,
                    advanced=True,
                    tooltip="to the subject: cut it out by its mask, by what is transparent, or from a plain "
                    "background, and show it alone. whole photo: as it is, what is not masked is black. auto: to the "
                    "subject, but whole photos for portrait checkpoints and IP-Adapters, as they were trained.",
                ),
                io.Autogrow.Input(
                    "more_images",
                    template=io.Autogrow.TemplateNames(
                        io.Image.Input("image", tooltip="More photos of this one subject, of any size.", optional=True),
                        names=[f"image_{number}" for number in range(2, MORE_IMAGES + 2)],
                        min=0,
                    ),
                    optional=True,
                ),
            ],
            outputs=[types.Subject.Output(display_name="subject")],
        )

    @classmethod
    def execute(
        cls, mmdiff, clip_vision, image, name, weight, face=None, mask=None, crop="auto", more_images=None
    ) -> io.NodeOutput:
        spec = mmdiff.core.spec
        images = [image, *(more_images or {}).values()]
        trained_on_whole = spec.identity == "face" or spec.square == "middle"
        cut = crop == "to the subject" or crop == "auto" and not trained_on_whole
        photos, remarks = references(images, mask, spec.photo_size, cut, spec.resize, spec.square)
        subject = encode(mmdiff, clip_vision, photos, face, name, weight)
        shown = ui.PreviewImage(photos.movedim(1, -1), cls=cls).as_dict()
        return io.NodeOutput(subject, ui={**shown, "text": remarks})
