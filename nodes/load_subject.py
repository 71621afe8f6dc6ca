from pathlib import Path

from comfy_api.latest import io

from ..mmdiff_core import MMDiffError, load_subject
from .host import folders, types

NONE = "none saved yet"


class LoadSubject(types.Node):
    """A subject that Save Subject wrote."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MMDiffLoadSubject",
            display_name="Load Subject",
            category=types.CATEGORY,
            description="Loads a subject from models/mmdiff/subjects. It works with the checkpoint that encoded it.",
            search_aliases=["load embeds", "identity"],
            inputs=[
                io.Combo.Input(
                    "subject",
                    options=folders.subject_names() or [NONE],  # without any option the page shows "undefined"
                    tooltip="A file in models/mmdiff/subjects.",
                ),
            ],
            outputs=[types.Subject.Output(display_name="subject")],
        )

    @classmethod
    def validate_inputs(cls, subject: str | None) -> None:
        if subject is not None:
            _path(subject)

    @classmethod
    def fingerprint_inputs(cls, subject: str) -> str:
        return folders.stamp(_path(subject))

    @classmethod
    def execute(cls, subject: str) -> io.NodeOutput:
        return io.NodeOutput(load_subject(_path(subject)))


def _path(subject: str) -> Path:
    if subject == NONE:
        raise MMDiffError(
            "No subject is saved yet. Connect Encode Subject to Save Subject and run it once, then choose it here."
        )
    return folders.subject_path(subject)
