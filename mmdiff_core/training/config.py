"""A training run as data, read from YAML and checked before anything is loaded."""

from __future__ import annotations

import dataclasses
import importlib.util
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ..constraint import FORMS
from ..errors import MMDiffError
from ..face import RECOGNISERS


@dataclass(frozen=True)
class Data:
    """Where scenes come from.

    kind: `annotated`, `world`, or `package.module:Class` of your own. options: that class's own arguments.
    resolution: side of the picture, pixels. buckets: pictures keep about their aspect, at the area of that square.
    workers: processes that prepare batches.
    """

    kind: str
    resolution: int = 512
    buckets: bool = False
    workers: int = 4
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Model:
    """What is trained.

    rank: of the UNet's LoRA. text_rank: of the text encoders' LoRA, 0 for none. vision_layers: how many last layers of
    the vision tower train. tokens: subject tokens of one photo. hidden: width between a photo's identity and its
    tokens, 0 for twice the identity's. depth, head_dim: of the SE-Refiner; a depth of 0 leaves the patches out.
    null_token: a background key in the image constraint's maps, so that scenes with one subject constrain it too.
    fuse_prompt: fuse subjects into their entity words; off to measure what that does. start: a checkpoint to go on
    from, whose shapes count then, instead of what is said here; one of the IP-Adapter family gets what it lacks, fresh.

    An IP-Adapter Plus is `identity: latents` (tokens are learned and look at the patches; `cls` starts them from the
    photo's CLS), `image: whole` (matrices of the subjects' own, from the base's; `lora` adds to the base's), `rank: 0`
    (no LoRA on the text branch), `negative: grey` (see Spec) and `fuse_prompt: false`.

    A portrait checkpoint is `identity: face`: tokens start from the vector that the recogniser gives a face, and look
    at the patches of the face.
    """

    rank: int = 64
    text_rank: int = 0
    vision_layers: int = 0
    tokens: int = 4
    hidden: int = 0
    depth: int = 4
    head_dim: int = 256
    null_token: bool = False
    fuse_prompt: bool = True
    start: str = ""
    identity: str = "cls"
    recogniser: str = "buffalo_l"
    image: str = "lora"
    negative: str = "nothing"


@dataclass(frozen=True)
class Loss:
    """text, image: weights of the two constraints, 0 for none. form: of the constraints. layers: module paths of the
    UNet they act on; none named means all but the finest resolution. masked: the share of samples whose denoising loss
    counts inside the subjects' masks only. snr_gamma: at which ratio of signal to noise denoising weighs no more
    (min-SNR), 0 for the same weight everywhere.
    """

    text: float = 1e-3
    image: float = 1e-3
    form: str = "balanced_l1"
    layers: list[str] = field(default_factory=list)
    masked: float = 0.5
    snr_gamma: float = 0.0


@dataclass(frozen=True)
class Drop:
    """The share of samples that lose a condition, for guidance: their text, their subjects, or both. one: of those that
    show several subjects, the share in which one of them is not bound, so that a word without a photo is learned to be
    somebody else."""

    text: float = 0.05
    image: float = 0.05
    both: float = 0.05
    one: float = 0.0


@dataclass(frozen=True)
class Train:
    """batch: samples of one process in one go; a step is batch x accumulation x processes. lr: of heads and LoRAs;
    vision_lr: of the vision layers. warmup: steps of rising learning rate. schedule: how it goes on; schedule_options:
    of diffusers' function for that schedule. clip: largest gradient norm. optimizer: `adamw`, `adamw8bit`, or
    `package.module:Class` of your own; optimizer_options: its arguments. ema: decay of the averaged weights, 0 for
    none. precision: `bf16` or `fp32`. zero_terminal_snr: the last timestep is noise alone. compile: a backend of
    torch.compile for the UNet, such as `inductor`, or none.
    """

    steps: int
    batch: int = 1
    accumulation: int = 1
    lr: float = 1e-4
    vision_lr: float = 1e-5
    warmup: int = 0
    schedule: str = "constant"
    schedule_options: dict[str, Any] = field(default_factory=dict)
    weight_decay: float = 0.01
    clip: float = 1.0
    optimizer: str = "adamw"
    optimizer_options: dict[str, Any] = field(default_factory=dict)
    ema: float = 0.0
    precision: str = "bf16"
    gradient_checkpointing: bool = False
    zero_terminal_snr: bool = False
    compile: str = ""


@dataclass(frozen=True)
class Save:
    """every: steps between two saves; the last step always saves. keep: how many checkpoints stay."""

    every: int = 500
    keep: int = 3


@dataclass(frozen=True)
class Samples:
    """every: steps between two sample sheets, 0 for none. count: scenes on a sheet. steps, guidance: of sampling."""

    every: int = 0
    count: int = 4
    steps: int = 25
    guidance: float = 5.0


@dataclass(frozen=True)
class Held:
    """every: steps between two looks at scenes that are not trained on, 0 for none. count: of them. options: what is
    other for them in `data.options`.
    """

    every: int = 0
    count: int = 16
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluate:
    """every: steps between two early figures, 0 for none. kind: `world`, `photos`, or `package.module:Class` of your
    own. options: its arguments.
    """

    every: int = 0
    kind: str = "world"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Config:
    """A whole run. base: folder of a diffusers model, SDXL- or SD1.5-shaped, or a single file, which then needs
    base_config, a diffusers folder of its family without weights. vision: folder of a transformers CLIP
    vision model. out: folder to write into. seed: of weights, order of scenes, noise and drops. cache: folder of what
    frozen encoders said, for all runs that name it; none without. trackers: accelerate's names of what is told losses.
    """

    base: str
    vision: str
    out: str
    data: Data
    train: Train
    seed: int = 0
    model: Model = field(default_factory=Model)
    loss: Loss = field(default_factory=Loss)
    drop: Drop = field(default_factory=Drop)
    save: Save = field(default_factory=Save)
    samples: Samples = field(default_factory=Samples)
    cache: str = ""
    held: Held = field(default_factory=Held)
    evaluate: Evaluate = field(default_factory=Evaluate)
    trackers: list[str] = field(default_factory=lambda: ["tensorboard"])
    base_config: str = ""


SCHEDULES = {
    "constant": (),
    "linear": (),
    "cosine": (),
    "cosine_with_restarts": ("num_cycles",),
    "polynomial": ("power",),
}
"""What each learning-rate schedule lets one say."""

_AT_LEAST_ONE = ("data.resolution", "model.tokens", "model.head_dim", "train.steps", "train.batch")
_AT_LEAST_ONE += ("train.accumulation", "save.every", "save.keep", "samples.count", "samples.steps", "held.count")
_AT_LEAST_ZERO = (
    "seed",
    "data.workers",
    "model.rank",
    "model.text_rank",
    "model.vision_layers",
    "model.depth",
    "model.hidden",
)
_AT_LEAST_ZERO += ("model.hidden", "loss.text", "loss.image", "train.warmup", "train.weight_decay", "samples.every")
_AT_LEAST_ZERO += ("samples.guidance", "loss.snr_gamma", "held.every", "evaluate.every")
_ABOVE_ZERO = ("train.lr", "train.vision_lr", "train.clip")
_SHARES = ("loss.masked", "drop.text", "drop.image", "drop.both", "drop.one")
_CHOICES = {
    "loss.form": tuple(FORMS),
    "model.identity": ("cls", "latents", "face"),
    "model.recogniser": tuple(RECOGNISERS),
    "model.image": ("lora", "whole"),
    "model.negative": ("nothing", "grey", "black"),
    "train.schedule": tuple(SCHEDULES),
    "train.precision": ("bf16", "fp32"),
}


def read_config(path: Path) -> Config:
    """Read and check a configuration. Raises MMDiffError that names the file, the key and what was wanted."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MMDiffError(f"The configuration {path} can't be read ({error.strerror}).") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise MMDiffError(f"The configuration {path} is not YAML: {error}") from error
    try:
        return config_of(content)
    except MMDiffError as error:
        raise MMDiffError(f"{path}: {error}") from error


def config_of(content: Any) -> Config:
    """A checked configuration of plain sections. Raises MMDiffError that names the key and what was wanted."""
    config = _typed(Config, content, "")
    _check(config)
    return config


def _typed(wanted: Any, value: Any, key: str) -> Any:
    """A value as the type its key has."""
    if dataclasses.is_dataclass(wanted):
        return _section(wanted, value, key)
    origin = typing.get_origin(wanted) or wanted
    if origin is float:
        value = _number(value)
    if not isinstance(value, origin) or (isinstance(value, bool) and origin is not bool):
        raise MMDiffError(f"{key} is {value!r}; it must be {_SPOKEN[origin]}.")
    if origin is list and not all(isinstance(item, str) for item in value):
        raise MMDiffError(f"{key} is {value!r}; it must be a list of names.")
    return value


_SPOKEN = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", list: "a list"}
_SPOKEN[dict] = "a section with keys of its own"


def _number(value: Any) -> Any:
    """A whole number as a float, and so the texts that YAML makes of numbers like 1e-4, which lack a point."""
    try:
        return value if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return value


def _section(wanted: Any, value: Any, key: str) -> Any:
    if not isinstance(value, dict):
        raise MMDiffError(f"{key or 'The file'} is {value!r}; it must be {_SPOKEN[dict]}.")
    types = typing.get_type_hints(wanted)
    prefix = f"{key}." if key else ""
    for name in value:
        if name not in types:
            raise MMDiffError(f"There is no key {prefix}{name}; the keys here are {', '.join(types)}.")
    for one in dataclasses.fields(wanted):
        required = one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING
        if required and one.name not in value:
            raise MMDiffError(f"The key {prefix}{one.name} is missing; it has no default.")
    return wanted(**{name: _typed(types[name], one, f"{prefix}{name}") for name, one in value.items()})


def value_of(config: Config, key: str) -> Any:
    """The value at a dotted key."""
    value: Any = config
    for name in key.split("."):
        value = getattr(value, name)
    return value


def _check(config: Config) -> None:
    for keys, fits, wanted in (
        (_AT_LEAST_ONE, lambda value: value >= 1, "1 or more"),
        (_AT_LEAST_ZERO, lambda value: 0 <= value < float("inf"), "0 or more"),
        (_ABOVE_ZERO, lambda value: 0 < value < float("inf"), "above 0"),
        (_SHARES, lambda value: 0 <= value <= 1, "from 0 to 1"),
        (("train.ema",), lambda value: 0 <= value < 1, "0 (none) or below 1"),
    ):
        for key in keys:
            if not fits(value_of(config, key)):
                raise MMDiffError(f"{key} is {value_of(config, key)}; it must be {wanted}.")
    for key, choices in _CHOICES.items():
        if value_of(config, key) not in choices:
            raise MMDiffError(f"{key} is {value_of(config, key)!r}; it must be one of {', '.join(choices)}.")
    for option, value in config.train.schedule_options.items():
        known = SCHEDULES[config.train.schedule]
        if option not in known:
            raise MMDiffError(
                f"There is no key train.schedule_options.{option}; for {config.train.schedule} there is "
                f"{', '.join(known) or 'none'}."
            )
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
            raise MMDiffError(f"train.schedule_options.{option} is {value!r}; it must be a number above 0.")
    drop, loss = config.drop, config.loss
    if drop.text + drop.image + drop.both > 1:
        raise MMDiffError(
            f"drop.text, drop.image and drop.both add up to {drop.text + drop.image + drop.both:g}; "
            "a sample loses one of them at most, so they must not be above 1 together."
        )
    if not config.model.rank and config.model.image == "lora":
        raise MMDiffError(
            "model.rank is 0 and model.image is lora, so that subjects would have nothing; set one of them."
        )
    if config.model.null_token and not loss.image:
        raise MMDiffError(
            "model.null_token is true and loss.image is 0; the null token acts in the image constraint only. "
            "Give loss.image a weight, or leave the null token out."
        )
    if config.train.optimizer == "adamw8bit" and importlib.util.find_spec("bitsandbytes") is None:
        raise MMDiffError(
            "train.optimizer is adamw8bit, and bitsandbytes is not installed. Install it, or set the key to adamw."
        )
    if loss.layers and not (loss.text or loss.image):
        raise MMDiffError("loss.layers names layers, but loss.text and loss.image are 0. Give one of them a weight.")
