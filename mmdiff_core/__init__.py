"""MM-Diff without a host: draw your subject from one photo (arXiv 2403.15059)."""

from .checkpoint import load_checkpoint, save_checkpoint
from .constraint import image_maps, mask_loss, text_maps
from .errors import MMDiffError
from .face import Face
from .model.attention import multimodal_cross_attention, subject_term
from .model.mmdiff import MMDiff
from .photo import prepare_photos
from .prompt import bind_prompt, locate
from .spec import RELEASED, Spec
from .subject import Subject, encode_subject, load_subject, save_subject

__all__ = [
    "RELEASED",
    "Face",
    "MMDiff",
    "MMDiffError",
    "Spec",
    "Subject",
    "bind_prompt",
    "encode_subject",
    "image_maps",
    "load_checkpoint",
    "load_subject",
    "locate",
    "mask_loss",
    "multimodal_cross_attention",
    "prepare_photos",
    "save_checkpoint",
    "save_subject",
    "subject_term",
    "text_maps",
]
