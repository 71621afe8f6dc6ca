import dataclasses

from comfy_api.latest import io, ui

from ..mmdiff_core import MMDiffError, live
from .host import types
from .host.text import bind, refuse_markers

MAX_SUBJECTS = 16


class BindSubjects(types.Node):
    """Words of the prompt become subjects."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        # Optional, or the host would refuse a graph whose first subject is muted or taken off.
        subject = types.Subject.Input(
            "subject", optional=True, tooltip="A subject; <|subj|> markers take them in socket order."
        )
        return io.Schema(
            node_id="MMDiffBindSubjects",
            display_name="Multi-Subject Binding",
            category=types.CATEGORY,
            description="Binds subjects to words of the prompt: put <|subj|> after a word for the next subject, "
            "<|subj:NAME|> for the subject of that name, or just write the subject's name as a phrase.",
            search_aliases=["prompt", "text encode", "trigger word", "multi subject", "two people"],
            inputs=[
                types.Model.Input("mmdiff", tooltip="The checkpoint the subjects were encoded with."),
                io.Clip.Input("clip", tooltip="The base model's CLIP. Its own copy gets the checkpoint's text LoRA."),
                io.String.Input(
                    "prompt",
                    multiline=True,
                    dynamic_prompts=True,
                    default="a photo of a man<|subj|> on the beach",
                    tooltip="<|subj|> after a word binds it to the next subject, <|subj:NAME|> to the named one; "
                    "<|nobody|> keeps the subjects away from it, with separation by word.",
                ),
                io.String.Input(
                    "negative_prompt",
                    multiline=True,
                    dynamic_prompts=True,
                    default="",
                    tooltip="What to avoid. No markers here.",
                ),
                io.Autogrow.Input(
                    "subjects", template=io.Autogrow.TemplatePrefix(subject, prefix="subject_", min=1, max=MAX_SUBJECTS)
                ),
                io.Int.Input(
                    "width", default=0, min=0, max=16384, tooltip="Size told to SDXL, pixels; 0 is the latent's."
                ),
                io.Int.Input(
                    "height", default=0, min=0, max=16384, tooltip="Size told to SDXL, pixels; 0 is the latent's."
                ),
                io.Float.Input(
                    "start_percent",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Before this part of sampling the plain prompt alone lays out the picture; 0.1 to 0.3 "
                    "helps the prompt win over the photo.",
                ),
                io.Float.Input(
                    "end_percent",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="After this part of sampling the plain prompt goes on alone.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive"),
                io.Conditioning.Output(display_name="negative"),
                types.Binding.Output(display_name="binding"),
            ],
        )

    @classmethod
    def validate_inputs(cls, prompt: str | None, negative_prompt: str | None, subjects: dict[str, None]) -> None:
        """`subjects` has a name for each connected socket."""
        if prompt is not None:
            live.refuse(prompt, len(subjects))
        if negative_prompt is not None:
            refuse_markers(negative_prompt)

    @classmethod
    def execute(
        cls, mmdiff, clip, prompt, negative_prompt, subjects, width, height, start_percent, end_percent
    ) -> io.NodeOutput:
        ordered = [subject for _, subject in sorted(subjects.items(), key=lambda item: int(item[0].rpartition("_")[2]))]
        windowed = [_within(subject, start_percent, end_percent) for subject in ordered if subject is not None]
        sides = {"width": width, "height": height, "target_width": width, "target_height": height}
        size = {side: pixels for side, pixels in sides.items() if pixels}
        positive, negative, binding, report = bind(mmdiff, clip, prompt, negative_prompt, windowed, size)
        return io.NodeOutput(positive, negative, binding, ui=ui.PreviewText(report))


def _within(subject, start_percent: float, end_percent: float):
    start, end = max(subject.start_percent, start_percent), min(subject.end_percent, end_percent)
    if start >= end:
        raise MMDiffError(
            f"Multi-Subject Binding: subject '{subject.name}' acts from {subject.start_percent:.0%} to "
            f"{subject.end_percent:.0%} of sampling, the binding from {start_percent:.0%} to {end_percent:.0%}; "
            "they have nothing in common. Change one of the two."
        )
    return dataclasses.replace(subject, start_percent=start, end_percent=end)
