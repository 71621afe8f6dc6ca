import dataclasses

from comfy_api.latest import io

from ..mmdiff_core import MMDiffError
from .host import types


class PlaceSubject(types.Node):
    """Where in the picture, and when in sampling, one subject acts."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MMDiffPlaceSubject",
            display_name="Place Subject",
            category=types.CATEGORY,
            description="Limits one subject to a region of the picture and to a part of sampling. Neither is needed: "
            "without a region the model finds the place by the word.",
            search_aliases=["region", "area", "attention mask", "subject options"],
            inputs=[
                types.Subject.Input("subject", tooltip="From Encode Subject or Load Subject."),
                io.Mask.Input(
                    "region",
                    optional=True,
                    tooltip="White where the subject may appear, for the whole picture; any size, it is scaled.",
                ),
                io.Float.Input(
                    "start_percent",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Part of sampling after which the subject begins to act; 0 is from the start.",
                ),
                io.Float.Input(
                    "end_percent",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Part of sampling after which the subject no longer acts; 1 is to the end.",
                ),
            ],
            outputs=[types.Subject.Output(display_name="subject")],
        )

    @classmethod
    def validate_inputs(cls, start_percent: float | None, end_percent: float | None) -> None:
        if start_percent is not None and end_percent is not None:
            _check_window("The subject", start_percent, end_percent)

    @classmethod
    def execute(cls, subject, start_percent, end_percent, region=None) -> io.NodeOutput:
        _check_window(f"'{subject.name}'", start_percent, end_percent)
        if region is not None:
            if region.ndim > 2 and region.shape[:-2].numel() == 1:
                region = region.reshape(region.shape[-2:])
            if region.ndim != 2:
                raise MMDiffError(
                    f"Place Subject: the region of '{subject.name}' has shape {tuple(region.shape)}; connect one mask, "
                    "height x width."
                )
            if 0 in region.shape:
                raise MMDiffError(
                    f"Place Subject: the region of '{subject.name}' is empty, its shape is {tuple(region.shape)}; "
                    "connect a mask of at least one pixel."
                )
            if not region.isfinite().all():
                raise MMDiffError(
                    f"Place Subject: the region of '{subject.name}' has pixels that are not numbers (NaN or infinite); "
                    "the node that made it failed, look at its output."
                )
        placed = dataclasses.replace(subject, region=region, start_percent=start_percent, end_percent=end_percent)
        return io.NodeOutput(placed)


def _check_window(who: str, start_percent: float, end_percent: float) -> None:
    if start_percent >= end_percent:
        raise MMDiffError(
            f"{who} would begin at {start_percent:.0%} of sampling and end at {end_percent:.0%}; start_percent "
            "must be the smaller one."
        )
