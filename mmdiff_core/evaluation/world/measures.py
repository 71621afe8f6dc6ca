"""The measures of the procedural world. All read pictures; none knows which arm drew them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from ...chance import stream
from ...world.scenes import Placed, WorldScenes
from ..cases import batches
from .cases import WorldCase, drawing, individual
from .fidelity import fidelity
from .nets import Box, MetricNets, as_seen, cropped, fitted, on_black, square_around
from .outcome import FIRST, OUTCOMES, holds, outcome
from .palette import in_colours_of

MEASURES = (
    *("identity", "hard", "colour-matched", "class", "twice"),
    *("ssim", "edges", "scene", "look", "size", "relation", "pair"),
)
CANDIDATES = 64
FAMILIES = 4
COLOURLESS = ("pencil sketch", "black and white")  # looks in which nobody could tell who it is
TIGHTNESS = (0.9, 1.0, 1.1)
BIG = 0.53  # share of the picture, between what captions call small and big
Values = dict[str, dict[str, float]]
"""Measure to case to number."""


class WorldMeasures:
    """Candidates depend on the cases and a seed only, so every arm is asked the same questions."""

    def __init__(
        self, scenes: WorldScenes, cases: Sequence[WorldCase], nets: MetricNets, wanted: Sequence[str]
    ) -> None:
        self.scenes = scenes
        self.cases = {case.id: case for case in cases}
        self.nets = nets
        self.wanted = set(wanted)
        self.individuals = [placed for case in cases for placed in case.plan.subjects]
        self.by_name: dict[str, list] = {}
        for identity in scenes.identities:
            self.by_name.setdefault(identity.name, []).append(identity)
        self._fitted: dict[str, Tensor] = {}
        self._kinds = self._kind_of_drawings()
        self.candidates = {case.id: self._embedded(case) for case in cases}

    def measure(self, files: Mapping[str, Path]) -> Values:
        """Picture files of the cases to all wanted measures; a measure is about the cases that it applies to."""
        values: Values = {name: {} for name in MEASURES}
        values |= {f"pair {kind}": {} for kind in OUTCOMES}
        for part, pictures in batches(dict(files), 32):
            seen = as_seen(pictures)
            with torch.inference_mode():
                scene, look = (logits.argmax(1).tolist() for logits in self.nets.place(seen))
            for row, (name, boxes) in enumerate(zip(part, self.nets.find(seen), strict=True)):
                case = self.cases[name]
                values["scene"][name] = float(self.nets.about.scenes[scene[row]] == case.plan.scene)
                values["look"][name] = float(self.nets.about.looks[look[row]] == case.plan.look)
                kinds = self._pair if len(case.subjects) == 2 else self._single
                for measure, value in kinds(case, seen[row], boxes).items():
                    values[measure][name] = value
                if {"ssim", "edges"} & self.wanted:
                    laid = [fidelity(pictures[row], drawing(self.scenes, placed)) for placed in case.plan.subjects]
                    values["ssim"][name] = float(np.mean([one.ssim for one in laid]))
                    values["edges"][name] = float(np.mean([one.edges for one in laid]))
        return {name: found for name, found in values.items() if found and name.split()[0] in self.wanted}

    @torch.inference_mode()
    def _single(self, case: WorldCase, picture: Tensor, boxes: Sequence[Box]) -> dict[str, float]:
        crops = self._crops(picture, boxes[0])
        found = {"class": self._class(case, crops)}
        if case.plan.look not in COLOURLESS:
            vectors = self._vectors(picture, boxes)
            for measure, candidates in self.candidates[case.id].items():
                found[measure] = float((candidates @ vectors[0]).argmax() == 0)
            found["twice"] = float(_likest(vectors, self.candidates[case.id]["identity"]).count(FIRST) > 1)
        if word := case.plan.subjects[0].size_word:
            found["size"] = float((max(boxes[0].width, boxes[0].height) > BIG) == (word == "big"))
        return found

    @torch.inference_mode()
    def _pair(self, case: WorldCase, picture: Tensor, boxes: Sequence[Box]) -> dict[str, float]:
        if case.plan.look in COLOURLESS:
            return {}
        shown = outcome(boxes, self._vectors(picture, boxes) @ self.candidates[case.id]["pair"].T, case.plan.relation)
        found = {f"pair {kind}": float(shown.kind == kind) for kind in OUTCOMES}
        if case.plan.relation != "and":
            found["relation"] = float(None not in shown.boxes and bool(holds(case.plan.relation, *shown.boxes)))
        return found

    @torch.inference_mode()
    def shown(self, case: WorldCase, picture: Tensor, boxes: Sequence[Box]) -> list[int]:
        """Which of a pair's candidates each box is likest to; picture: (3, PICTURE, PICTURE)."""
        return _likest(self._vectors(picture, boxes), self.candidates[case.id]["pair"])

    def _vectors(self, picture: Tensor, boxes: Sequence[Box]) -> Tensor:
        """(boxes, 96): the individual in each."""
        return torch.stack([self.nets.who(self._crops(picture, box)).mean(0) for box in boxes])

    def _crops(self, picture: Tensor, box: Box) -> Tensor:
        """A subject cut out a little more and a little less tightly, as drawn and mirrored: a box is never exact."""
        x, y, side = square_around(box)
        crops = cropped(picture.expand(len(TIGHTNESS), -1, -1, -1), [(x, y, side * share) for share in TIGHTNESS])
        return torch.cat((crops, crops.flip(-1)))

    def _candidates(self, case: WorldCase) -> dict[str, list[Tensor]]:
        """Fitted drawings for each question; the right answer comes first."""
        random = stream("candidates", case.seed)
        first = case.plan.subjects[0]
        own = [self._small(placed) for placed in case.plan.subjects]
        others = [self._small(placed) for placed in self._strangers(case, random)]
        if len(own) == 2:
            mixed = [in_colours_of(own[0], own[1]), in_colours_of(own[1], own[0])]
            return {"pair": [*own, *mixed, *others[: CANDIDATES - 2]]}
        found = {
            "identity": [*own, *others],
            "colour-matched": [*own, *(in_colours_of(other, own[0]) for other in others)],
        }
        if (families := self._families(first, random)) is not None:
            found["hard"] = [*own, *families]
        return found

    def _strangers(self, case: WorldCase, random: np.random.Generator) -> list[Placed]:
        """Subjects of other cases, all of different names, in their colours there."""
        names = {placed.identity.name for placed in case.plan.subjects}
        found = []
        for index in random.permutation(len(self.individuals)):
            placed = self.individuals[index]
            if placed.identity.name not in names and len(found) < CANDIDATES - 1:
                names.add(placed.identity.name)
                found.append(placed)
        return found

    def _families(self, placed: Placed, random: np.random.Generator) -> list[Tensor] | None:
        """Three other drawings of the subject's name, and four of each of fifteen others, colours turned as far as the
        subject's. None where its name has fewer drawings."""
        names = [name for name, all_of in self.by_name.items() if len(all_of) >= FAMILIES]
        own = placed.identity
        if own.name not in names:
            return None
        groups = [[one for one in self.by_name[own.name] if one != own]]
        others = [name for name in names if name != own.name]
        groups += [
            self.by_name[others[index]] for index in random.permutation(len(others))[: CANDIDATES // FAMILIES - 1]
        ]
        found = []
        for number, group in enumerate(groups):
            for index in random.permutation(len(group))[: FAMILIES - (number == 0)]:
                found.append(fitted(individual(self.scenes, group[index].renditions[0], placed.hue)))
        return found

    @torch.inference_mode()
    def _embedded(self, case: WorldCase) -> dict[str, Tensor]:
        """For each question (candidates, vector), the right answer first."""
        return {
            name: self.nets.who(torch.stack([on_black(one) for one in all_of]))
            for name, all_of in self._candidates(case).items()
        }

    def _class(self, case: WorldCase, crops: Tensor) -> float:
        """Whether what was drawn is likest to a drawing of the right name, among all drawings of the split."""
        names, kinds = self._kinds
        nearest = int((kinds @ normalize(self.nets.who.kinds(crops).mean(0), dim=0)).argmax())
        return float(names[nearest] == case.plan.subjects[0].identity.name)

    @torch.inference_mode()
    def _kind_of_drawings(self) -> tuple[list[str], Tensor]:
        drawings = [on_black(fitted(individual(self.scenes, one.renditions[0], 0.0))) for one in self.scenes.identities]
        kinds = [self.nets.who.kinds(torch.stack(drawings[at : at + 64])) for at in range(0, len(drawings), 64)]
        return [one.name for one in self.scenes.identities], torch.cat(kinds)

    def _small(self, placed: Placed) -> Tensor:
        key = f"{placed} {placed.sprite}"
        if key not in self._fitted:
            self._fitted[key] = fitted(drawing(self.scenes, placed))
        return self._fitted[key]


def _likest(vectors: Tensor, candidates: Tensor) -> list[int]:
    """The number of the candidate that each vector is likest to."""
    return (vectors @ candidates.T).argmax(1).tolist()
