from pathlib import Path

from comfy_api.latest import io

from ..mmdiff_core import save_subject
from ..mmdiff_core.files import path_within
from .host import folders, types


class SaveSubject(types.Node):
    """Keep an encoded subject for other workflows."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MMDiffSaveSubject",
            display_name="Save Subject",
            category=types.CATEGORY,
            description="Saves an encoded subject as safetensors in models/mmdiff/subjects. What was encoded is saved, "
            "and the photos as small as the encoder saw them, so that it can be shown and found again.",
            search_aliases=["save embeds", "store identity"],
            is_output_node=True,
            inputs=[
                types.Subject.Input("subject", tooltip="From Encode Subject or Place Subject."),
                io.String.Input(
                    "filename",
                    default="",
                    tooltip="File name below models/mmdiff/subjects, without ending; empty for the subject's name. An "
                    "older file of that name is replaced.",
                ),
            ],
            outputs=[],
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs) -> float:
        """Never equal: the file may have been moved or replaced since, and "Saved" must be true."""
        return float("nan")  # a new one, for the host's caches hold `math.nan` to be itself

    @classmethod
    def validate_inputs(cls, filename: str | None) -> None:
        if filename:
            _path(filename)

    @classmethod
    def execute(cls, subject, filename) -> io.NodeOutput:
        path = _path(filename or subject.name)
        save_subject(subject, path)
        return io.NodeOutput(ui={"text": (f"Saved '{subject.name}' as {path.name}.",)})


def _path(name: str) -> Path:
    return path_within(folders.subjects_folder(), name, "Save Subject: the name")
