"""The measures of the procedural world. All read pictures; none knows which arm drew them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..world.scenes import Placed, WorldScenes
from .cases import batches
from .fidelity import fidelity
from .nets import Box, MetricNets, as_seen, cropped, fitted, on_black, square_around
from .outcome import OUTCOMES, holds, outcome
from .palette import in_colours_of
from .world_cases import WorldCase, drawing, individual

MEASURES = ("identity", "hard", "colour-matched", "class", "ssim", "edges", "scene", "look", "size", "relation", "pair")
CANDIDATES = 64
FAMILIES = 4
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
        self._kinds = self._kind_of_identities()
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

    def _single(self, case: WorldCase, picture: Tensor, boxes: Sequence[Box]) -> dict[str, float]:
        found = {}
        who, kind = self._who(picture, boxes[:1])
        for measure, candidates in self.candidates[case.id].items():
            vector = kind if measure == "class" else who
            found[measure] = float((candidates @ vector[0]).argmax() == 0)
        if word := case.plan.subjects[0].size_word:
            found["size"] = float((max(boxes[0].width, boxes[0].height) > BIG) == (word == "big"))
        return found

    def _pair(self, case: WorldCase, picture: Tensor, boxes: Sequence[Box]) -> dict[str, float]:
        who, _ = self._who(picture, boxes)
        shown = outcome(boxes, who @ self.candidates[case.id]["pair"].T, case.plan.relation)
        found = {f"pair {kind}": float(shown.kind == kind) for kind in OUTCOMES}
        if case.plan.relation != "and":
            found["relation"] = float(None not in shown.boxes and bool(holds(case.plan.relation, *shown.boxes)))
        return found

    @torch.inference_mode()
    def _who(self, picture: Tensor, boxes: Sequence[Box]) -> tuple[Tensor, Tensor]:
        squares = [square_around(box) for box in boxes]
        return self.nets.who(cropped(picture.expand(len(boxes), -1, -1, -1), squares))

    def _candidates(self, case: WorldCase) -> dict[str, list[Tensor]]:
        """Fitted drawings for each question; the right answer comes first."""
        random = np.random.default_rng(case.seed)
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

    def _embedded(self, case: WorldCase) -> dict[str, Tensor]:
        """For each question (candidates, vector), the right answer first; `class` asks among names."""
        with torch.inference_mode():
            found = {
                name: self.nets.who(torch.stack([on_black(one) for one in all_of]))[0]
                for name, all_of in self._candidates(case).items()
            }
        names = self._names(case)
        return found | ({"class": names} if len(case.subjects) == 1 and names is not None else {})

    def _names(self, case: WorldCase) -> Tensor | None:
        """What drawings of a name look like on average, for the subject's and 63 other names; the subject's own drawing
        is not among them, and of every other name one is left out too. None where its name has no other drawing."""
        own = case.plan.subjects[0].identity
        random = np.random.default_rng([case.seed, 1])
        names = [name for name, all_of in self.by_name.items() if len(all_of) > 1]
        if own.name not in names:
            return None
        others = [name for name in names if name != own.name]
        rows = [[one for one in self.by_name[own.name] if one != own]]
        for index in random.permutation(len(others))[: CANDIDATES - 1]:
            all_of = self.by_name[others[index]]
            rows.append([all_of[one] for one in random.permutation(len(all_of))[1:]])
        return torch.stack([normalize(sum(self._kinds[str(one)] for one in row), dim=0) for row in rows])

    def _kind_of_identities(self) -> dict[str, Tensor]:
        with torch.inference_mode():
            return {
                str(one): self.nets.who(on_black(fitted(individual(self.scenes, one.renditions[0], 0.0)))[None])[1][0]
                for one in self.scenes.identities
            }

    def _small(self, placed: Placed) -> Tensor:
        key = f"{placed} {placed.sprite}"
        if key not in self._fitted:
            self._fitted[key] = fitted(drawing(self.scenes, placed))
        return self._fitted[key]
