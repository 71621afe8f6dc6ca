"""What a step needs of memory: said before weights are loaded, and what is really allocated."""

import pytest
import torch
from tiny_base import PHOTO, SIDE, Squares, allocated, make_base

from mmdiff_core.drawing.base import Base
from mmdiff_core.training.batches import Collate, Indexed
from mmdiff_core.training.config import read_config
from mmdiff_core.training.losses import losses
from mmdiff_core.training.memory import estimate
from mmdiff_core.training.optimizer import make_optimizer
from mmdiff_core.training.trainee import Trainee

ALL = {"text_rank": 2, "vision_layers": 1, "null_token": True}
"""Everything that can train."""


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A base whose activations outweigh all else."""
    return make_base(tmp_path_factory.mktemp("wide") / "base", channels=32)


@pytest.fixture
def made(write, wide):
    """A configuration, and its base with or without weights."""

    def opened(weights=False, **sections):
        config = read_config(write(base=str(wide), model=ALL, **sections))
        dtype = torch.bfloat16 if config.train.precision == "bf16" else torch.float32
        with torch.device("cpu" if weights else "meta"):
            return config, Base(config.base, config.vision, weights=weights, dtype=dtype)

    return opened


def test_parts(made):
    """The frozen and trained parts to the byte; activations grow with the batch and shrink with checkpointing."""
    one = estimate(*made(train={"batch": 1}), max_subjects=2)
    four = estimate(*made(train={"batch": 4}), max_subjects=2)
    spared = estimate(*made(train={"batch": 4, "gradient_checkpointing": True, "ema": 0.9}), max_subjects=2)
    config, base = made(weights=True)
    trainee = Trainee(base, config)
    sizes = [(one.requires_grad, 4 * one.numel()) for one in trainee.parameters()]
    trained = sum(size for trains, size in sizes if trains)
    buffers = sum(one.numel() * one.element_size() for one in trainee.buffers())
    assert one["frozen weights"] == sum(size for trains, size in sizes if not trains) + buffers
    assert one["trained weights"] == one["gradients"] == trained == spared["averaged weights"]
    assert one["optimizer"] == 2 * trained and one["averaged weights"] == 0
    assert 2.5 * one["activations"] < four["activations"] < 4.5 * one["activations"]
    assert spared["activations"] < four["activations"]


@pytest.mark.parametrize(
    ("precision", "checkpointing", "accumulation"),
    [("fp32", False, 1), ("bf16", True, 1), ("fp32", True, 2), ("bf16", False, 2)],
)
def test_a_step_allocates_what_is_estimated(made, precision, checkpointing, accumulation):
    """Within a hundredth, which is what a batch and its noise take."""
    train = {"batch": 4, "precision": precision, "gradient_checkpointing": checkpointing, "accumulation": accumulation}
    needed = estimate(*made(train=train), max_subjects=2)
    config, base = made(weights=True, train=train)
    trainee = Trainee(base, config)
    optimizer = make_optimizer(config, [[one for one in trainee.parameters() if one.requires_grad]])
    data = Indexed(Squares(SIDE, PHOTO, 0))
    batch = Collate(base.tokenizers, config, 1000)([data[index] for index in (1, 3, 5, 7)])

    def step():
        for _ in range(accumulation):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
                found = trainee(losses, batch)
            sum(part.sum() for part in found.values()).backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    assert allocated(step) == pytest.approx(needed["gradients"] + needed["activations"], rel=0.01)


def test_the_optimizer_needs_nothing_beside_what_it_remembers(made):
    """No copies of weights while it steps, when on a GPU there would be all of them at once."""
    config, base = made(weights=True)
    trainee = Trainee(base, config)
    trained = [one for one in trainee.parameters() if one.requires_grad]
    optimizer = make_optimizer(config, [trained])
    for one in trained:
        one.grad = torch.ones_like(one)
    optimizer.step()
    assert allocated(optimizer.step) < min(one.nbytes for one in trained if one.dim() > 1)
