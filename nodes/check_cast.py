import numpy as np
import torch
from comfy_api.latest import io, ui
from comfy_execution.graph_utils import ExecutionBlocker
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..mmdiff_core.cast import THRESHOLD, sentence
from .colours import colour
from .host import types
from .host.cast import Checked, check_cast, refuse_a_part, where_words_acted

STRANGER = "white"
SHOWN = 512  # pixels at least, of a picture with boxes


class CheckCast(types.Node):
    """The pictures in which everybody is there, once, where the prompt has them; and the others."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MMDiffCheckCast",
            display_name="Check Cast",
            category=types.CATEGORY,
            description="Looks for every bound subject in finished pictures, and parts those in which each is there, "
            "once, at its word, from those in which one is missing, drawn twice, swapped or a stranger.",
            search_aliases=["face check", "compare faces", "identity score", "filter images", "likeness", "qa"],
            is_output_node=True,
            inputs=[
                io.Image.Input("image", tooltip="The finished pictures, of any size."),
                types.Binding.Input("binding", tooltip="From Multi-Subject Binding: who is to be in them."),
                types.Model.Input("mmdiff", tooltip="The checkpoint of the binding."),
                io.ClipVision.Input(
                    "clip_vision",
                    optional=True,
                    tooltip="The vision encoder the subjects were encoded with. Not needed where all of them have face "
                    "vectors: then faces are compared, with the models of Analyze Face.",
                ),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="From Apply MM-Diff Attention, with positive and latent: then it is known where each word "
                    "acted, and with it who is swapped or a stranger.",
                ),
                io.Conditioning.Input(
                    "positive", optional=True, tooltip="The positive conditioning of the same binding."
                ),
                io.Latent.Input(
                    "latent", optional=True, tooltip="The finished latents that the pictures were decoded from."
                ),
                io.Float.Input(
                    "threshold",
                    default=THRESHOLD,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Likeness from which on somebody is the subject: 1 is as like as its photos are to "
                    "themselves, 0 as strangers are. Lower it where too much is refused.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="passed"),
                io.Image.Output(display_name="not passed"),
                io.String.Output(display_name="report"),
            ],
        )

    @classmethod
    def validate_inputs(
        cls, model: object = types.APART, positive: object = types.APART, latent: object = types.APART
    ) -> None:
        refuse_a_part(
            {
                "model": model is not types.APART,
                "positive": positive is not types.APART,
                "latent": latent is not types.APART,
            }
        )

    @classmethod
    def execute(
        cls, image, binding, mmdiff, clip_vision=None, model=None, positive=None, latent=None, threshold=THRESHOLD
    ) -> io.NodeOutput:
        acted = where_words_acted(image, binding, model, positive, latent)
        checked = check_cast(image, binding, mmdiff, clip_vision, acted, threshold)
        names = [subject.name for subject in binding.subjects]
        lines = [_line(number, one, names, image) for number, one in enumerate(checked, 1)]
        lines.append(f"Likeness counts from {threshold:.2f} on.")
        if any(place is None for place in acted[0]):
            lines.append("Without model, positive and latent nobody is found to be swapped or a stranger.")
        passed = torch.tensor([one.passed for one in checked])
        groups = []
        for which, name in ((passed, "passed"), (~passed, "not passed")):
            if which.any():
                groups.append(image[which])
            else:  # the host can't carry an empty batch
                groups.append(ExecutionBlocker(None))
                lines.append(f"No picture is in '{name}', so what is connected there does not run.")
        report = "\n".join(lines)
        shown = torch.stack([_boxed(picture, one) for picture, one in zip(image, checked, strict=True)])
        text = ui.PreviewText(report).as_dict()
        return io.NodeOutput(*groups, report, ui={**ui.PreviewImage(shown, cls=cls).as_dict(), **text})


def _line(number: int, checked: Checked, names: list[str], image: Tensor) -> str:
    width = image.shape[2]
    said = [
        sentence(verdict, name, names, checked.seen, width)
        for verdict, name in zip(checked.verdicts, names, strict=True)
    ]
    return f"Picture {number} of {len(image)}, {'passed' if checked.passed else 'not passed'}: {' '.join(said)}"


def _boxed(picture: Tensor, checked: Checked) -> Tensor:
    """A picture (H, W, 3) in [0, 1] with a box around everybody seen, in the subject's colour; strangers are white.

    A small one is enlarged by a whole number: letters want pixels.
    """
    drawn = Image.fromarray((picture[..., :3].float().clamp(0, 1) * 255).byte().cpu().numpy())
    times = max(1, SHOWN // min(drawn.size))
    drawn = drawn.resize((times * drawn.width, times * drawn.height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(drawn)
    line = max(1, min(drawn.size) // 150)
    font = ImageFont.load_default(11 * line)
    owners = {one: number for number, verdict in enumerate(checked.verdicts) for one in verdict.places}
    for one, box in enumerate((times * checked.seen.boxes).tolist()):
        number = owners.get(one)
        tint = STRANGER if number is None else colour(number)
        draw.rectangle(tuple(box), outline=tint, width=line)
        label = "?" if number is None else f"{number + 1} {checked.verdicts[number].kind.value}"
        draw.text((box[0] + 2 * line, box[1] + line), label, tint, font, stroke_width=line, stroke_fill="black")
    return torch.from_numpy(np.array(drawn)).float() / 255
