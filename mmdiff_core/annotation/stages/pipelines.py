"""A model's folder, opened by transformers for one task, on the GPU where there is one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ...errors import MMDiffError


def device() -> str:
    """Where models run."""
    return "cuda" if torch.cuda.is_available() else "cpu"


KINDS = {
    "image-text-to-text": "AutoModelForImageTextToText",
    "token-classification": "AutoModelForTokenClassification",
    "zero-shot-object-detection": "AutoModelForZeroShotObjectDetection",
}


def open_pipeline(task: str, folder: Path) -> Any:
    """A pipeline of transformers. Raises MMDiffError where the folder is not of a model for the task."""
    return opened(lambda: _pipeline(task, folder), task, folder)


def _pipeline(task: str, folder: Path) -> Any:
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        kind = type(getattr(transformers, KINDS[task]).from_config(config)).__name__
    if kind not in (config.architectures or [kind]):  # a pipeline would run it all the same, or invent its last layer
        raise ValueError(f"it holds {config.architectures[0]}")
    return transformers.pipeline(task, model=str(folder), device=device())


def opened(open_model: Callable[[], Any], task: str, folder: Path) -> Any:
    """What is opened. Raises MMDiffError where that fails, naming the task and the folder."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        return open_model()
    except ModuleNotFoundError:
        raise
    except Exception as error:  # every kind of wrong folder fails in another way
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise MMDiffError(
            f"{folder} is not a model for {task} ({reason[:200]}). Name the folder of one, with its tokenizer and "
            "preprocessor files."
        ) from error
