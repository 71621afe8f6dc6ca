"""A picture in a sentence, by a model that writes about pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from PIL import Image

from ..found import Found
from .pipelines import open_pipeline

ASKED = (
    "Describe this picture in one sentence of at most 25 words. Name every person, animal and thing in the foreground "
    "with its colour or clothes, then say where they are. Write only the sentence."
)
TOKENS = 70  # a text encoder reads 75


class Caption:
    """Models that only caption (BLIP, GIT) continue nothing; models that chat (LLaVA, Qwen-VL) are asked."""

    def __init__(self, folder: Path) -> None:
        self.pipeline = open_pipeline("image-text-to-text", folder)

    def __call__(self, picture: Image.Image, found: Found) -> Found:
        options = {"return_full_text": False, "max_new_tokens": TOKENS}
        if getattr(self.pipeline.processor, "chat_template", None):
            content = [{"type": "image", "image": picture}, {"type": "text", "text": ASKED}]
            out = self.pipeline(text=[{"role": "user", "content": content}], **options)
        else:
            out = self.pipeline(picture, text="", **options)
        return replace(found, caption=" ".join(out[0]["generated_text"].split()))
