"""The one error this project raises for bad input."""


class MMDiffError(ValueError):
    """Bad input, as a sentence: which file, node, subject or socket, what was found, what was wanted, what to do."""

    __module__ = "mmdiff_core"  # where it is imported from; ComfyUI prints this path in front of the sentence
