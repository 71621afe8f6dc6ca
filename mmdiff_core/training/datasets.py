"""The dataset that a configuration names."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

from ..data.buckets import shapes
from ..drawing.base import Base
from ..errors import MMDiffError
from ..named import check_options, named
from ..spec import Spec
from ..subject import WIDE_CROP
from .config import Config

DATASETS = {
    "annotated": "mmdiff_core.data.annotated:AnnotatedScenes",
    "shards": "mmdiff_core.data.shards:ShardScenes",
    "world": "mmdiff_core.world.scenes:WorldScenes",
}
_ALWAYS = ("resolution", "photo_size", "seed")  # every source takes them


def open_dataset(config: Config, base: Base) -> Any:
    """The dataset that `data.kind` names. Raises MMDiffError for a kind or an option that does not exist."""
    data = config.data
    kind = named(data.kind, DATASETS, "data.kind")
    parameters = inspect.signature(kind).parameters
    if data.buckets and "shapes" not in parameters:
        raise MMDiffError(f"data.buckets is true, and {data.kind} draws squares only. Set data.buckets to false.")
    given = {
        "resolution": data.resolution,
        "photo_size": base.photo_size,
        "seed": config.seed,
        "shapes": shapes(data.resolution, base.step) if data.buckets else (),
        "batch": config.train.batch,
    }
    check_options("data.options", data.kind, kind, data.options, given)
    given = {name: value for name, value in given.items() if name in parameters or name in _ALWAYS}
    return kind(**given, **config.data.options)


def open_held_out(config: Config, base: Base) -> Any:
    """The same kind with the options of what is held out. Raises MMDiffError where these are the same scenes."""
    options = {**config.data.options, **config.held.options}
    if options == config.data.options:
        raise MMDiffError(
            f"held.every is {config.held.every}, and held.options change nothing of data.options, so that the scenes "
            "held out are those trained on. Say which ones are: a folder, a part or a split of their own."
        )
    return open_dataset(replace(config, data=replace(config.data, options=options)), base)


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
