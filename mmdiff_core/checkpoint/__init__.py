"""Checkpoints on disk: our own single safetensors file, the released folder of three pickles, the IP-Adapter family."""

from .listing import listed
from .own import PICKLES, glance, load_checkpoint, save_checkpoint
from .released import RELEASED_FILES, is_released

__all__ = ["PICKLES", "RELEASED_FILES", "glance", "is_released", "listed", "load_checkpoint", "save_checkpoint"]
