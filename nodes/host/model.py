"""What an MMDIFF_MODEL socket carries: a checkpoint whose heads live in the host's memory management."""

from __future__ import annotations

import dataclasses
import weakref
from dataclasses import dataclass, field
from pathlib import Path

import comfy.model_management
import comfy.ops
from comfy.model_patcher import CoreModelPatcher

from ...mmdiff_core import MMDiff, load_checkpoint


@dataclass(frozen=True)
class HostedMMDiff:
    """A checkpoint, the patcher of its heads, and the tuned vision towers made from it so far."""

    core: MMDiff
    patcher: CoreModelPatcher
    tuned_towers: weakref.WeakKeyDictionary = field(default_factory=weakref.WeakKeyDictionary)

    def with_spec(self, **changes: object) -> HostedMMDiff:
        """The same weights run by another spec (see mmdiff_core.Spec); nothing is copied."""
        return dataclasses.replace(self, core=self.core.with_spec(**changes))


def load_mmdiff(path: str | Path, faceid_plus: str | None = None) -> HostedMMDiff:
    """Load a checkpoint with heads of the host's castable layers, in the file's precision (see load_checkpoint)."""
    core = load_checkpoint(path, comfy.ops.manual_cast, dtype=None, faceid_plus=faceid_plus)
    patcher = CoreModelPatcher(
        core.heads,
        load_device=comfy.model_management.get_torch_device(),
        offload_device=comfy.model_management.unet_offload_device(),
    )
    return HostedMMDiff(core, patcher)
