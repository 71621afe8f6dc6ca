"""The vision encoders that people have, told by their widths."""

from __future__ import annotations

_NAMES = {
    (1664, 1280): "CLIP ViT-bigG/14",
    (1280, 1024): "CLIP ViT-H/14",
    (1024, 768): "CLIP ViT-L/14",
    (768, 512): "CLIP ViT-B",
}


def encoder_name(hidden: int | None, projection: int | None, unknown: str) -> str:
    """The name of the encoder with this hidden and projection width, None for either; `unknown` where it has none."""
    for widths, name in _NAMES.items():
        if fits(widths, (hidden, projection)):
            return name
    return unknown


def fits(found: tuple[int | None, int | None], wanted: tuple[int | None, int | None]) -> bool:
    """Whether an encoder's hidden and projection width are the wanted ones; None wants nothing."""
    return all(want is None or have == want for have, want in zip(found, wanted, strict=True))
