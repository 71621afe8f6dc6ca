from comfy_api.latest import io

from .host import types
from .host.demo import load_demo


class LoadDemo(types.Node):
    """The small model that ships with the pack."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MMDiffLoadDemo",
            display_name="Load MM-Diff Demo",
            category=types.CATEGORY,
            description="Loads the small model that ships with the pack: 128 x 128 pixels, drawn subjects in drawn "
            "places, seconds on a CPU. Everything works as with a large model, and nothing needs a download.",
            search_aliases=["mm-diff demo", "example model", "checkpoint", "tiny model", "no download", "first steps"],
            inputs=[],
            outputs=[
                io.Model.Output(display_name="model"),
                io.Clip.Output(display_name="clip"),
                io.Vae.Output(display_name="vae"),
                io.ClipVision.Output(display_name="clip_vision"),
                types.Model.Output(display_name="mmdiff"),
                io.Latent.Output(display_name="latent", tooltip="An empty latent of the size the model draws."),
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(*load_demo())
