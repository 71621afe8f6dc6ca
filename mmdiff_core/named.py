"""Things by name: one of those that are known, or anything that can be imported."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from .errors import MMDiffError


def named(name: str, known: Mapping[str, str], what: str) -> Any:
    """The object of a name in `known`, or of `package.module:Object`. what: the key or option that says it.

    Raises MMDiffError where it can't be imported.
    """
    module, _, attribute = known.get(name, name).partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        wanted = f"one of {', '.join(known)}, or " if known else ""
        raise MMDiffError(
            f"{what} is {name!r}, which can't be opened ({error}); it must be {wanted}package.module:Class of your own."
        ) from error
