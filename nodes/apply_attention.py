from comfy_api.latest import io

from ..mmdiff_core import MMDiffError
from .host import types
from .host.attention import apply_binding

SEPARATIONS = ("reference", "by word")


class ApplyAttention(types.Node):
    """The model draws the bound subjects."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MMDiffApplyAttention",
            display_name="Apply MM-Diff Attention",
            category=types.CATEGORY,
            description="Gives the model the checkpoint's LoRA and multi-modal cross-attention for the bound subjects. "
            "Sample with the conditioning of the same Multi-Subject Binding.",
            search_aliases=["ip-adapter", "apply subject", "identity", "attention"],
            inputs=[
                io.Model.Input("model", tooltip="An SDXL or SD1.5 model, as the checkpoint was trained for."),
                types.Binding.Input("binding", tooltip="From Multi-Subject Binding."),
                io.Float.Input(
                    "weight",
                    default=0.8,
                    min=0.0,
                    max=3.0,
                    step=0.05,
                    tooltip="How strongly the photos act; the authors advise 0.8. At 0 only LoRA and words act.",
                ),
                io.Combo.Input(
                    "separation",
                    options=list(SEPARATIONS),
                    default="reference",
                    optional=True,
                    tooltip="reference: all subjects share one attention, as trained. by word: each subject acts where "
                    "the prompt looks for its word and keeps out of where it looks for other words, <|nobody|> above "
                    "all. It helps against mixing, and against extras who look like the subject.",
                ),
            ],
            outputs=[io.Model.Output(display_name="model")],
        )

    @classmethod
    def execute(cls, model, binding, weight, separation="reference") -> io.NodeOutput:
        if separation not in SEPARATIONS:
            raise MMDiffError(f"separation is {separation!r}; it must be one of {', '.join(SEPARATIONS)}.")
        return io.NodeOutput(apply_binding(model, binding, weight, by_word=separation == "by word"))
