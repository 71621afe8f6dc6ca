"""Things by name: one of those that are known, or anything that can be imported."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Collection, Mapping
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


def check_options(key: str, name: str, kind: Any, options: Mapping[str, Any], given: Collection[str]) -> None:
    """Raises MMDiffError where a class takes none of these options, or wants one more. key: of the options' section;
    name: of the class; given: arguments that are not the user's to set."""
    parameters = inspect.signature(kind).parameters
    for option in options:
        if option not in parameters or option in given:
            known = ", ".join(one for one in parameters if one not in given) or "none"
            raise MMDiffError(f"There is no key {key}.{option}; for {name} there are {known}.")
    for option, parameter in parameters.items():
        named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if named and parameter.default is parameter.empty and option not in given and option not in options:
            raise MMDiffError(f"The key {key}.{option} is missing; {name} needs it.")
