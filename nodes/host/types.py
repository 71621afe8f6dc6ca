"""The pack's own socket types, and what every node of it has in common."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from comfy_api.latest import io

from ...mmdiff_core import MMDiffError

Model = io.Custom("MMDIFF_MODEL")
Face = io.Custom("MMDIFF_FACE")
Subject = io.Custom("MMDIFF_SUBJECT")
Binding = io.Custom("MMDIFF_BINDING")

CATEGORY = "MM-Diff"


class Node(io.ComfyNode):
    """A node whose errors begin with its name, so that they are understood wherever they are read."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        execute = vars(cls).get("execute")
        if execute is not None and not hasattr(execute.__func__, "__wrapped__"):  # the host clones and locks classes
            cls.execute = classmethod(_named(execute.__func__))


def _named(execute: Callable[..., io.NodeOutput]) -> Callable[..., io.NodeOutput]:
    @functools.wraps(execute)
    def named(cls: type[Node], *args: Any, **inputs: Any) -> io.NodeOutput:
        try:
            return execute(cls, *args, **inputs)
        except MMDiffError as error:
            name = cls.define_schema().display_name
            if not str(error).startswith(f"{name}:"):
                error.args = (f"{name}: {error}",)
            raise

    return named
