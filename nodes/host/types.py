"""The pack's own socket types."""

from comfy_api.latest import io

Model = io.Custom("MMDIFF_MODEL")
Face = io.Custom("MMDIFF_FACE")
Subject = io.Custom("MMDIFF_SUBJECT")
Binding = io.Custom("MMDIFF_BINDING")

CATEGORY = "MM-Diff"
