from pathlib import Path

from comfy_api.latest import io, ui

from ..mmdiff_core import MMDiffError
from ..mmdiff_core.checkpoint.ipadapter import VERSIONS
from .host import folders, types
from .host.model import load_mmdiff
from .host.wanted import report

BY_FILE = "by file"
NONE = "none there yet"


class Load(types.Node):
    """Load a checkpoint file, a folder with the three released files, or a file of the IP-Adapter family."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MMDiffLoad",
            display_name="Load MM-Diff",
            category=types.CATEGORY,
            description="Loads an MM-Diff checkpoint from models/mmdiff (a .safetensors file, or a folder with the "
            "three released files), or an IP-Adapter from models/ipadapter, and says what else it wants.",
            search_aliases=["mm-diff", "mmdiff", "personalization", "subject", "identity", "face id", "ip-adapter"],
            inputs=[
                io.Combo.Input(
                    "checkpoint",
                    options=folders.checkpoint_names() or [NONE],  # without any option the page shows "undefined"
                    tooltip="A file or released folder in models/mmdiff, or a file in models/ipadapter, made for your "
                    "model's base.",
                ),
                io.Combo.Input(
                    "faceid_plus",
                    options=[BY_FILE, *VERSIONS],
                    default=BY_FILE,
                    optional=True,
                    advanced=True,
                    tooltip="Only for an IP-Adapter FaceID Plus whose name does not say its version: v1 and v2 look "
                    "alike.",
                ),
            ],
            outputs=[types.Model.Output(display_name="mmdiff")],
        )

    @classmethod
    def validate_inputs(cls, checkpoint: str | None) -> None:
        if checkpoint is not None:
            _path(checkpoint)

    @classmethod
    def fingerprint_inputs(cls, checkpoint: str, faceid_plus: str = BY_FILE) -> str:
        return folders.stamp(_path(checkpoint))

    @classmethod
    def execute(cls, checkpoint: str, faceid_plus: str = BY_FILE) -> io.NodeOutput:
        version = None if faceid_plus == BY_FILE else faceid_plus
        mmdiff = load_mmdiff(_path(checkpoint), version)
        return io.NodeOutput(mmdiff, ui=ui.PreviewText(report(mmdiff.core)))


def _path(checkpoint: str) -> Path:
    if checkpoint == NONE:
        raise MMDiffError(
            "No checkpoint is there yet. Put one into models/mmdiff, or an IP-Adapter into models/ipadapter, and "
            "refresh the page (R). Load MM-Diff Demo needs no file."
        )
    return folders.checkpoint_path(checkpoint)
