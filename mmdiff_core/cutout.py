"""What of a photo is the subject: by its mask, by what is transparent, or by a plain ground it stands on."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from .photo import check_masks, check_photos, prepare_photos

MARGIN = 0.05
"""What is left around a subject, of its longer side."""
SEEN = 128
"""Side at which a ground is looked at, pixels."""
NEAR = 0.06
"""How far a colour may be from the ground's and still be ground: the noise of a JPEG, and a soft light."""
PLAIN = 0.8
"""Share of the photo's border that must be ground for the ground to be plain; the subject may reach the rest."""


class References(NamedTuple):
    """photos: (R, 3, S, S) prepared for the vision tower. remarks: what a user should know of how they came about."""

    photos: Tensor
    remarks: tuple[str, ...]


def references(
    images: list[Tensor],
    masks: Tensor | None,
    size: int,
    crop: bool,
    mode: str = "bilinear",
    square: str = "padded",
) -> References:
    """Photos of one subject, of any sizes, made ready for the vision tower.

    images: batches of photos (R, H, W, 3 or 4) in [0, 1], a batch for each size. masks: of the first batch, (R or 1, H,
    W), 1 on the subject; one that is 0 everywhere is none, and one of the other sign is turned. size, mode, square:
    side of the result, pixels, and how a photo gets there (see `prepare_photos`). crop: cut the subject out and show it
    alone, with a margin, padded; else whole photos are shown, in which what is masked or transparent is black. Raises
    MMDiffError for what is no photo or no mask of it.
    """
    remarks: list[str] = []
    prepared = []
    for batch, mask in zip(images, (masks, *[None] * (len(images) - 1)), strict=True):
        check_photos(batch)
        of_each = [None] * len(batch) if mask is None else _read_masks(mask, batch, remarks)
        for photo, opacity in zip(batch, of_each, strict=True):
            if crop:
                photo = cut_out(photo, opacity, remarks)
                opacity = None
            prepared.append(prepare_photos(photo[None], size, opacity, mode, "padded" if crop else square))
    return References(torch.cat(prepared), tuple(dict.fromkeys(remarks)))


def cut_out(photo: Tensor, mask: Tensor | None, remarks: list[str]) -> Tensor:
    """The part of a photo (H, W, 3 or 4) that shows its subject, as (h, w, 4) with opacity.

    Without a mask (H, W) and without transparent places, the subject is what stands out from a plain ground; on any
    other ground the photo stays whole.
    """
    opacity = photo[..., 3] if photo.shape[-1] == 4 else torch.ones_like(photo[..., 0])
    subject = opacity if mask is None else opacity * mask
    ground = plain_ground(photo[..., :3]) if mask is None and (opacity == 1).all() else None
    if ground is not None:
        subject = 1 - ground
    around = photo[..., :3][subject < 0.5]
    if (around > NEAR).any():  # what is black already is not cut out once more
        opacity = subject
        if ground is not None:
            remarks.append("The subject was cut out of its plain background.")
    top, bottom = _extent(subject.amax(dim=1))
    left, right = _extent(subject.amax(dim=0))
    margin = round(MARGIN * max(bottom - top, right - left))
    rows = slice(max(top - margin, 0), bottom + margin)
    columns = slice(max(left - margin, 0), right + margin)
    return torch.cat([photo[..., :3], opacity[..., None]], dim=-1)[rows, columns]


def plain_ground(photo: Tensor) -> Tensor | None:
    """(H, W), 1 on the plain ground of a photo (H, W, 3) in [0, 1], or None where the subject stands on no such ground.

    The ground is what has the border's colour and hangs together with the border, so a like colour inside the subject
    stays. Nothing is found where all of the photo is one colour.
    """
    small = nn.functional.interpolate(photo.movedim(-1, 0)[None].float(), (SEEN, SEEN), mode="area")[0]
    border = torch.cat([small[:, 0], small[:, -1], small[:, 1:-1, 0], small[:, 1:-1, -1]], dim=1)
    colour = border.median(dim=1, keepdim=True).values
    if ((border - colour).abs().amax(dim=0) <= NEAR).float().mean() < PLAIN:
        return None
    like = ((small - colour[..., None]).abs().amax(dim=0) <= NEAR).float()[None]
    ground = torch.zeros_like(like)
    ground[:, 0], ground[:, -1], ground[:, :, 0], ground[:, :, -1] = 1, 1, 1, 1
    ground, before = ground * like, torch.zeros_like(like)
    while not torch.equal(ground, before):
        before, ground = ground, nn.functional.max_pool2d(ground, 3, stride=1, padding=1) * like
    if ground.all():
        return None
    return nn.functional.interpolate(ground[None], photo.shape[:2], mode="bilinear")[0, 0].to(photo)


def _read_masks(masks: Tensor, photos: Tensor, remarks: list[str]) -> list[Tensor | None]:
    """For each photo its mask (H, W) with 1 on the subject, or None where nothing is marked.

    ComfyUI's Load Image gives 0 everywhere, 64 x 64, for a photo without transparency; and for one with it, 1 on what
    is transparent. A mask is of that sign where it is 1 rather around the picture than in it.
    """
    if not masks.any():
        return [None] * len(photos)
    of_each = []
    for mask in check_masks(masks, photos).expand(len(photos), -1, -1):
        border = torch.cat([mask[0], mask[-1], mask[1:-1, 0], mask[1:-1, -1]]).mean()
        if border > 0.5 and border > mask.mean():
            remarks.append("The mask was white around the subject, not on it, so it was taken the other way round.")
            mask = 1 - mask
        of_each.append(mask if mask.any() else None)
    return of_each


def _extent(opacity: Tensor) -> tuple[int, int]:
    """The first and the place behind the last of a row of opacities that shows something."""
    shown = torch.nonzero(opacity > 0.5 * opacity.amax()).flatten()
    return (int(shown[0]), int(shown[-1]) + 1) if len(shown) else (0, len(opacity))
