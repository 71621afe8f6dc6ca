import numpy as np
import torch
from comfy_api.latest import io, ui
from PIL import Image, ImageColor, ImageDraw, ImageFont
from torch import nn

from .colours import colour
from .host import types
from .host.maps import attention_maps

PIXELS, LABEL = 256, 36  # of a map alone, and of its label
BRIGHT = 3  # times the mean of the picture
SHOWN, TITLE = 512, 64  # of a map over the picture, and of a line of text
LETTERS = 0.6
"""Of a line's height. A node shows such a picture about 160 pixels wide, where these are still read."""


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
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="The finished picture: the maps are laid over it, all subjects in one, a colour each.",
                ),
            ],
            outputs=[io.Image.Output(display_name="maps")],
        )

    @classmethod
    def execute(cls, model, binding, positive, latent, percent, image=None) -> io.NodeOutput:
        maps = attention_maps(model, positive, binding, latent, percent)
        names = [subject.name for subject in binding.subjects]
        if image is not None:
            panels = [_over(image[0], part, title, names) for title, part in _parts(maps)]
        else:
            maps[:, 2:] *= BRIGHT  # a gate of 1 is white
            panels = [
                _panel(one, f"{number} {name if _drawable(name) else ''}: {what}")
                for number, (name, own) in enumerate(zip(names, maps, strict=True), 1)
                for one, what in zip(own, ("its word", "its photo", "its gate"), strict=False)
            ]
        batch = torch.stack(panels)
        # Beside the pictures, where the page has a font for every script.
        return io.NodeOutput(batch, ui={**ui.PreviewImage(batch, cls=cls).as_dict(), "text": _numbered(names)})


def _numbered(names: list[str]) -> tuple[str]:
    return ("\n".join(f"{number} {name}" for number, name in enumerate(names, 1)),)


def _parts(maps: torch.Tensor) -> list[tuple[str, torch.Tensor]]:
    """Titles and (S, H, W) strengths in [0, 1] of what `attention_maps` gives, one for each kind of map.

    A photo's is its share among the subjects' photos, where they act more than on average: two photos that act alike
    everywhere are then seen to.
    """
    photos = maps[:, 1]
    total = photos.sum(dim=0)
    shares = photos / total.clamp_min(1e-6) * (total / total.mean().clamp_min(1e-6)).clamp(0, 1)
    parts = [("where each word acted", maps[:, 0] / BRIGHT), ("where each photo acted", shares)]
    if maps.shape[1] > 2:
        parts.append(("where each may act", maps[:, 2]))
    return parts


def _over(picture: torch.Tensor, strengths: torch.Tensor, title: str, names: list[str]) -> torch.Tensor:
    """Subjects' strengths (S, h, w) in their colours over a picture (H, W, 3), with a title and a legend, as an image
    of the same form."""
    height, width = picture.shape[:2]
    size = (round(SHOWN * width / height), SHOWN)
    grey = Image.fromarray((picture[..., :3].clamp(0, 1) * 255).byte().cpu().numpy()).convert("L").resize(size)
    shown = torch.from_numpy(np.array(grey)).float()[..., None].expand(-1, -1, 3) * 0.5
    strong = nn.functional.interpolate(strengths[None].clamp(0, 1), size[::-1], mode="bilinear")[0]
    for number, strength in enumerate(strong):
        tint = torch.tensor(ImageColor.getrgb(colour(number))).float()
        shown = shown + strength[..., None] * 0.8 * (tint - shown)
    panel = Image.new("RGB", (size[0], TITLE + SHOWN + TITLE * len(names)))
    panel.paste(Image.fromarray(shown.clamp(0, 255).byte().numpy()), (0, TITLE))
    draw = ImageDraw.Draw(panel)
    _write(draw, 8, TITLE // 2, title, size[0], TITLE)
    for number, name in enumerate(names):
        y = TITLE + SHOWN + TITLE * number
        draw.rectangle((8, y + 10, 52, y + TITLE - 10), fill=colour(number))
        _write(draw, 64, y + TITLE // 2, f"{number + 1} {name if _drawable(name) else ''}", size[0], TITLE)
    return torch.from_numpy(np.array(panel)).float() / 255


def _write(draw: ImageDraw.ImageDraw, x: int, y: int, text: str, width: int, line: int) -> None:
    """White text from x on, its middle at y, in a line's letters, or smaller ones where a picture's width wants it."""
    font = ImageFont.load_default(LETTERS * line)
    font = font.font_variant(size=font.size * min(1, (width - x - 4) / max(font.getlength(text), 1)))
    draw.text((x, y), text, fill="white", font=font, anchor="lm")


def _drawable(name: str) -> bool:
    """Whether the font has every sign of a name; for one that it lacks it draws the same box as for no character."""
    font = ImageFont.load_default(LETTERS * LABEL)
    return all(bytes(font.getmask(sign)) != bytes(font.getmask("\uffff")) for sign in name)


def _panel(values: torch.Tensor, label: str) -> torch.Tensor:
    """(H, W) map to a labelled picture (PIXELS + LABEL, width, 3) in [0, 1]: black is 0, white BRIGHT."""
    height, width = values.shape
    brightness = (values.clamp(0, BRIGHT) / BRIGHT * 255).byte().numpy()
    heat = Image.fromarray(brightness).resize((round(PIXELS * width / height), PIXELS), Image.Resampling.BICUBIC)
    panel = Image.new("RGB", (heat.width, PIXELS + LABEL))
    panel.paste(heat, (0, LABEL))
    _write(ImageDraw.Draw(panel), 4, LABEL // 2, label, heat.width, LABEL)
    return torch.from_numpy(np.array(panel)).float() / 255
