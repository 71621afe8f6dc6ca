"""The dataset that a configuration names."""

from __future__ import annotations

import inspect
from typing import Any

from ..errors import MMDiffError
from ..named import named
from ..spec import Spec
from ..subject import WIDE_CROP
from .config import Config

DATASETS = {
    "annotated": "mmdiff_core.data.annotated:AnnotatedScenes",
    "world": "mmdiff_core.world.scenes:WorldScenes",
}


def open_dataset(config: Config, photo_size: int) -> Any:
    """The dataset that `data.kind` names. Raises MMDiffError for a kind or an option that does not exist."""
    kind = named(config.data.kind, DATASETS, "data.kind")
    given = {"resolution": config.data.resolution, "photo_size": photo_size, "seed": config.seed}
    options = inspect.signature(kind).parameters
    for option in config.data.options:
        if option not in options or option in given:
            known = ", ".join(one for one in options if one not in given)
            raise MMDiffError(f"There is no key data.options.{option}; for {config.data.kind} there are {known}.")
    for option, parameter in options.items():
        if parameter.default is parameter.empty and option not in given and option not in config.data.options:
            raise MMDiffError(f"The key data.options.{option} is missing; {config.data.kind} needs it.")
    return kind(**given, **config.data.options)


def check_faces(dataset: Any, spec: Spec) -> None:
    """Raises MMDiffError where a portrait is to be trained on data without its recogniser's faces."""
    found = getattr(dataset, "faces", "")
    if spec.identity == "face" and spec.face_crop == WIDE_CROP:
        raise MMDiffError(
            f"The checkpoint to train looks at faces that are cut out {WIDE_CROP} pixels wide, with a wider margin "
            "than those beside the data. Start from another one."
        )
    if spec.identity != "face" or found == spec.recogniser:
        return
    raise MMDiffError(
        f"The checkpoint to train draws people from face vectors of {spec.recogniser}, and the data has "
        f"{f'those of {found}' if found else 'none'}. Let `annotate --faces` find them, and set data.options.faces to "
        f"{spec.recogniser}."
    )


def check_pairs(config: Config, dataset: Any) -> None:
    """Raises MMDiffError where the image constraint can't act on any scene of the dataset."""
    if config.loss.image and not config.model.null_token and dataset.max_subjects < 2:
        raise MMDiffError(
            f"loss.image is {config.loss.image:g}, and no scene of the data ({config.data.kind}) shows two subjects. "
            "The tokens of a single subject share one softmax, so their map is 1 everywhere and the constraint has no "
            "gradient. Train on scenes with pairs, set model.null_token to true, or set loss.image to 0."
        )
