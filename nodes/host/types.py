"""The pack's own socket types, and what every node of it has in common: named errors, and values in their ranges."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from numbers import Real
from typing import Any

from comfy_api.latest import io

from ...mmdiff_core import MMDiffError

Model = io.Custom("MMDIFF_MODEL")
Face = io.Custom("MMDIFF_FACE")
Subject = io.Custom("MMDIFF_SUBJECT")
Binding = io.Custom("MMDIFF_BINDING")

CATEGORY = "MM-Diff"
APART = object()
"""The default of an input in `validate_inputs`: nothing is connected to it. What is connected is None then."""


class Node(io.ComfyNode):
    """A node whose errors begin with its name, so that they are understood wherever they are read; those of
    `validate_inputs`, which is run before anything else is, too."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name, wrap in (("execute", _named), ("validate_inputs", _answered)):
            method = vars(cls).get(name)
            if method is not None and not hasattr(method.__func__, "__wrapped__"):  # the host clones and locks classes
                setattr(cls, name, classmethod(wrap(method.__func__)))


def _named(execute: Callable[..., io.NodeOutput]) -> Callable[..., io.NodeOutput]:
    @functools.wraps(execute)
    def named(cls: type[Node], *args: Any, **inputs: Any) -> io.NodeOutput:
        try:
            _check(cls.define_schema().inputs, inputs)
            return execute(cls, *args, **inputs)
        except MMDiffError as error:
            error.args = (_beginning_with_its_name(cls, error),)
            raise

    return named


def _answered(validate: Callable[..., None]) -> Callable[..., bool | str]:
    """What a node knows before it runs, raised as in a run, as the host wants it said: True, or the sentence. What
    comes through a link is None then."""

    @functools.wraps(validate)
    def answered(cls: type[Node], **inputs: Any) -> bool | str:
        try:
            _check(cls.define_schema().inputs, {name: value for name, value in inputs.items() if value is not None})
            validate(cls, **inputs)
        except MMDiffError as error:
            return _beginning_with_its_name(cls, error)
        return True

    answered.__signature__ = inspect.signature(validate)  # by it the host tells which inputs are asked for
    return answered


def _beginning_with_its_name(cls: type[Node], error: MMDiffError) -> str:
    name = cls.define_schema().display_name
    return str(error) if str(error).startswith(f"{name}:") else f"{name}: {error}"


def _check(declared: list[io.Input], inputs: dict[str, Any]) -> None:
    """Refuse what is out of its range, is no text, or was not asked for; the host looks only at what is typed by hand.

    Files and what is on a socket of ours are looked at where they are used.
    """
    for one in declared:
        if one.id not in inputs:
            continue
        value = inputs[one.id]
        is_number, is_text = isinstance(one, (io.Int.Input, io.Float.Input)), isinstance(one, io.String.Input)
        if is_number and not (isinstance(value, Real) and one.min <= value <= one.max):
            raise MMDiffError(
                f"{one.id} is {value!r}; it must be a number from {one.min} to {one.max}. Look at the node that it "
                "comes from."
            )
        if is_text and not (isinstance(value, str) and value.encode("utf-8", "ignore").decode() == value):
            raise MMDiffError(
                f"{one.id} is {value!r}, which is no text, or has half a character in it. Look at the node that it "
                "comes from."
            )
    if unknown := inputs.keys() - {one.id for one in declared}:
        last = "".join(
            f", whose last one is {one.id}.{one.template.names[-1]}"
            for one in declared
            if isinstance(one, io.Autogrow.Input)
        )
        raise MMDiffError(f"There is no input {', '.join(sorted(unknown))} on this node{last}; take it off.")
