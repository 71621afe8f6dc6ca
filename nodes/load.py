from comfy_api.latest import io

from .host import folders, types
from .host.model import load_mmdiff


class Load(types.Node):
    """Load a checkpoint file, or a folder with the three released files."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MMDiffLoad",
            display_name="Load MM-Diff",
            category=types.CATEGORY,
            description="Loads an MM-Diff checkpoint from models/mmdiff: a .safetensors file, or a folder with the "
            "three released files.",
            search_aliases=["mm-diff", "mmdiff", "personalization", "subject", "identity", "face id", "ip-adapter"],
            inputs=[
                io.Combo.Input(
                    "checkpoint",
                    options=folders.checkpoint_names(),
                    tooltip="A file or released folder in models/mmdiff, trained for your model's base.",
                ),
            ],
            outputs=[types.Model.Output(display_name="mmdiff")],
        )

    @classmethod
    def fingerprint_inputs(cls, checkpoint: str) -> str:
        return folders.stamp(folders.checkpoint_path(checkpoint))

    @classmethod
    def execute(cls, checkpoint: str) -> io.NodeOutput:
        return io.NodeOutput(load_mmdiff(folders.checkpoint_path(checkpoint)))
