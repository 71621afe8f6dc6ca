import numpy as np
import torch
from comfy_api.latest import io, ui
from PIL import Image, ImageDraw, ImageFont

from .host import types
from .host.maps import attention_maps

PIXELS = 256
LABEL = 20
FONT = ImageFont.load_default()
BRIGHT = 3  # times the mean of the picture


class AttentionMaps(types.Node):
    """Where each subject's word and photo acted."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MMDiffAttentionMaps",
            display_name="Preview Attention Maps",
            category=types.CATEGORY,
            description="Shows, after sampling, what each subject's word and photo attended to. Use it to see why two "
            "subjects mix: their maps should not lie on top of each other. By word, it shows each subject's gate too.",
            search_aliases=["debug", "attention", "heatmap", "why is my subject missing"],
            is_output_node=True,
            inputs=[
                io.Model.Input("model", tooltip="From Apply MM-Diff Attention."),
                types.Binding.Input("binding", tooltip="The binding whose subjects are shown."),
                io.Conditioning.Input("positive", tooltip="The positive conditioning of the same binding."),
                io.Latent.Input("latent", tooltip="The finished latent, from the sampler."),
                io.Float.Input(
                    "percent",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    advanced=True,
                    tooltip="The part of sampling looked at: the latent is noised back to it and denoised once.",
                ),
            ],
            outputs=[io.Image.Output(display_name="maps")],
        )

    @classmethod
    def execute(cls, model, binding, positive, latent, percent) -> io.NodeOutput:
        maps = attention_maps(model, positive, binding, latent, percent)
        maps[:, 2:] *= BRIGHT  # a gate of 1 is white
        names = [subject.name for subject in binding.subjects]
        panels = [
            _panel(one, f"{number} {name if _drawable(name) else ''}: {what}")
            for number, (name, own) in enumerate(zip(names, maps, strict=True), 1)
            for one, what in zip(own, ("its word", "its photo", "its gate"), strict=False)
        ]
        batch = torch.stack(panels)
        # Beside the pictures, where the page has a font for every script.
        said = ui.PreviewText("\n".join(f"{number} {name}" for number, name in enumerate(names, 1)))
        return io.NodeOutput(batch, ui={**ui.PreviewImage(batch, cls=cls).as_dict(), **said.as_dict()})


def _drawable(name: str) -> bool:
    """Whether the font has every sign of a name; for one that it lacks it draws the same box as for no character."""
    return all(bytes(FONT.getmask(sign)) != bytes(FONT.getmask("\uffff")) for sign in name)


def _panel(values: torch.Tensor, label: str) -> torch.Tensor:
    """(H, W) map to a labelled picture (PIXELS + LABEL, width, 3) in [0, 1]: black is 0, white BRIGHT."""
    height, width = values.shape
    brightness = (values.clamp(0, BRIGHT) / BRIGHT * 255).byte().numpy()
    heat = Image.fromarray(brightness).resize((round(PIXELS * width / height), PIXELS), Image.Resampling.BICUBIC)
    panel = Image.new("RGB", (heat.width, PIXELS + LABEL))
    panel.paste(heat, (0, LABEL))
    ImageDraw.Draw(panel).text((4, 4), label, fill="white", font=FONT)
    return torch.from_numpy(np.array(panel)).float() / 255
