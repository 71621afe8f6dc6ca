"""`evaluate nets`: train the networks that measure, on names that nothing else is trained or tested on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, l1_loss

from ...chance import stream
from ...world.atlas import Atlas
from ...world.backgrounds import SCENES
from ...world.looks import LOOKS, PLAIN
from ...world.scenes import Placed, WorldScenes
from .cases import drawing, individual
from .nets import AROUND, GRID, PICTURE, About, MetricNets, cropped, fitted, on_black
from .palette import in_colours_of

SPLIT, SEED = "metric", 20240322
BATCH, NEW = 32, 8  # scenes of a step, and how many of them were never seen before
RATE = 3e-3
_LOOKS = [PLAIN, *LOOKS]


class Shown(NamedTuple):
    """A subject of a scene: its box (x, y, width, height), its drawing, another drawing of its name or None."""

    placed: Placed
    box: tuple[float, float, float, float]
    drawing: Tensor
    namesake: Tensor | None


class Seen(NamedTuple):
    """A scene that was drawn: picture (3, PICTURE, PICTURE), classes and subjects."""

    picture: Tensor
    scene: int
    look: int
    subjects: list[Shown]


class Stacked(NamedTuple):
    """N scenes with M subjects. owner (M,): whose scene. candidates (4, M, 3, CROP, CROP): each subject's drawing; it
    in another subject's colours; that one in its colours; another drawing of its name (`namesakes`: where there is
    one). same, same_name: (M, M) bool, which subjects are one individual, or have one name."""

    pictures: Tensor
    scenes: Tensor
    looks: Tensor
    owner: Tensor
    boxes: Tensor
    candidates: Tensor
    same: Tensor
    same_name: Tensor
    namesakes: Tensor


def train_nets(atlas: Path, out: Path, steps: int, say: Callable[[str], None]) -> None:
    """Train, and write `out`. say: gets a line now and then."""
    scenes = WorldScenes(Atlas.load(atlas), PICTURE, PICTURE, SEED, SPLIT, pairs=0.5, looks=0.25, recolour=0.6)
    names = sorted({identity.name for identity in scenes.identities})
    torch.manual_seed(SEED)
    random = stream("nets", SEED)
    nets = MetricNets(About(list(SCENES), _LOOKS, names, scenes.atlas.digest(), SEED, steps)).train()
    optimizer = torch.optim.AdamW(nets.parameters(), RATE, betas=(0.9, 0.98), weight_decay=0.02)
    # Drawing a scene takes longer than learning from it, so each is looked at several times, with other crops.
    pool: list[Seen] = []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / 50) * max(0.01, 1 - step / steps)
        new = range(len(pool), len(pool) + (BATCH if not pool else NEW))
        pool += [_seen(scenes, index, random) for index in new]
        batch = _batch([pool[index] for index in random.choice(len(pool), BATCH, replace=False)])
        losses = _losses(nets, batch, random)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        torch.nn.utils.clip_grad_norm_(nets.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % 25 == 0 or step + 1 == steps:
            say(f"step {step + 1}/{steps} " + " ".join(f"{name} {loss.item():.3f}" for name, loss in losses.items()))
    nets.save(out)


def _seen(scenes: WorldScenes, index: int, random: np.random.Generator) -> Seen:
    plan = scenes.plan(index)
    picture = torch.from_numpy(scenes.draw(plan)[0]).movedim(-1, 0).float() / 255
    subjects = [
        Shown(
            placed,
            (placed.x, placed.y, placed.width, placed.height),
            fitted(drawing(scenes, placed)),
            _namesake(scenes, placed, random),
        )
        for placed in plan.subjects
    ]
    return Seen(picture, list(SCENES).index(plan.scene), _LOOKS.index(plan.look), subjects)


def _namesake(scenes: WorldScenes, placed: Placed, random: np.random.Generator) -> Tensor | None:
    """Another individual's drawing of the same name, its colours turned as far."""
    others = [i for i in scenes.identities if i.name == placed.identity.name and i.family != placed.identity.family]
    if not others:
        return None
    renditions = others[random.integers(len(others))].renditions
    return fitted(individual(scenes, renditions[random.integers(len(renditions))], placed.hue))


def _batch(seen: list[Seen]) -> Stacked:
    shown = [subject for one in seen for subject in one.subjects]
    following = [*shown[1:], shown[0]]
    candidates = [
        torch.stack([on_black(one.drawing) for one in shown]),
        torch.stack([on_black(in_colours_of(a.drawing, b.drawing)) for a, b in zip(shown, following, strict=True)]),
        torch.stack([on_black(in_colours_of(b.drawing, a.drawing)) for a, b in zip(shown, following, strict=True)]),
        torch.stack([on_black(one.drawing if one.namesake is None else one.namesake) for one in shown]),
    ]
    names = np.array([one.placed.identity.name for one in shown])
    individuals = np.array([str(one.placed) for one in shown])
    return Stacked(
        torch.stack([one.picture for one in seen]),
        torch.tensor([one.scene for one in seen]),
        torch.tensor([one.look for one in seen]),
        torch.tensor([number for number, one in enumerate(seen) for _ in one.subjects]),
        torch.tensor([one.box for one in shown]),
        torch.stack(candidates),
        torch.from_numpy(individuals[:, None] == individuals),
        torch.from_numpy(names[:, None] == names),
        torch.tensor([one.namesake is not None for one in shown]),
    )


def _losses(nets: MetricNets, batch: Stacked, random: np.random.Generator) -> dict[str, Tensor]:
    crops = cropped(batch.pictures[batch.owner], _shaken(batch.boxes, random))
    number = len(crops)
    vectors = nets.who(torch.cat((crops, batch.candidates.flatten(0, 1))))
    sharp = nets.who.sharpness.exp()
    logits = vectors[:number] @ vectors[number:].T * sharp[0]
    # A batch may show one individual twice; a name without another drawing has its own in that place.
    twice = batch.same & ~torch.eye(number, dtype=torch.bool)
    logits = logits.masked_fill(torch.cat((twice, twice, twice, batch.same & ~batch.namesakes), 1), -1e4)
    target = torch.arange(number)

    kinds = nets.who.kinds(torch.cat((crops, batch.candidates[0], batch.candidates[3])))
    alike = (kinds[:number] @ kinds[number:].T * sharp[1]).log_softmax(1)
    right = batch.same_name.repeat(1, 2)
    scene, look = nets.place(batch.pictures)
    return {
        "individual": cross_entropy(logits, target) + cross_entropy(logits[:, :number].T, target),
        "kind": -(alike.masked_fill(~right, -torch.inf).logsumexp(1)).mean(),
        "scene": cross_entropy(scene, batch.scenes),
        "look": cross_entropy(look, batch.looks),
        **_where_losses(nets, batch),
    }


def _where_losses(nets: MetricNets, batch: Stacked) -> dict[str, Tensor]:
    """A soft spot at every middle (its own cell 1, neighbours less), and the box at that cell."""
    logits, boxes = nets.where(batch.pictures)
    cells = (batch.boxes[:, :2] * GRID).clamp(0, GRID - 1e-3)
    column, row = cells.long().T
    axis = torch.arange(GRID)
    distance = (axis[None] - column[:, None])[:, None] ** 2 + (axis[None] - row[:, None])[:, :, None] ** 2
    spots = torch.exp(-distance / 1.2)
    wanted = torch.stack([spots[batch.owner == number].amax(0) for number in range(len(logits))])
    # Cells at a middle are few: their mistakes weigh more.
    spot = binary_cross_entropy_with_logits(logits, wanted, weight=1 + 20 * wanted)
    truth = torch.cat((cells - cells.floor(), batch.boxes[:, 2:]), 1)
    return {"spot": 3 * spot, "box": 4 * l1_loss(boxes[batch.owner, :, row, column], truth)}


def _shaken(boxes: Tensor, random: np.random.Generator) -> list[tuple[float, float, float]]:
    """Crops as a localiser would give them, a little off; one of five shows more of what is around."""
    squares = []
    for x, y, width, height in boxes.tolist():
        side = max(width, height)
        wide = AROUND * (random.uniform(1, 1.6) if random.random() < 0.2 else random.uniform(0.88, 1.14))
        off = random.uniform(-0.07, 0.07, 2) * side
        squares.append((x + off[0], y + off[1], wide * side))
    return squares
