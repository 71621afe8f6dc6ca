"""The colours of subjects on pictures."""

COLOURS = ("#4cc9f0", "#ffb703", "#80ed99", "#ff70a6", "#c77dff", "#f4f1bb")
"""By number, the same as under the prompt (js/chips.js)."""


def colour(number: int) -> str:
    """Of the subject with a number, counted from 0."""
    return COLOURS[number % len(COLOURS)]
