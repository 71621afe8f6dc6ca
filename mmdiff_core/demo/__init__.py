"""The demo: a small model of our own, in this folder, that draws unseen subjects on any machine."""

from pathlib import Path

FOLDER = Path(__file__).parent / "model"
"""A diffusers folder, with the vision tower and the checkpoint beside its parts."""
CHECKPOINT = FOLDER / "mmdiff.safetensors"
SUBJECTS = Path(__file__).parent / "subjects"
"""Pictures of subjects that training never saw."""
