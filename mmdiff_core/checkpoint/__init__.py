"""Checkpoints on disk: our own single safetensors file, the released folder of three pickles, the IP-Adapter family."""

from .own import PICKLES, load_checkpoint, save_checkpoint
from .released import RELEASED_FILES, is_released

__all__ = ["PICKLES", "RELEASED_FILES", "is_released", "load_checkpoint", "save_checkpoint"]
