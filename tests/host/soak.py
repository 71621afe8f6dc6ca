"""Many requeues of mixed graphs on a real server, with every cache setting, interrupted and freed between.

    COMFYUI_DIR=~/ComfyUI python tests/host/soak.py 500

Every graph must draw the same picture to the bit each time, under every setting, and the server's memory must be flat
within 3 %: what it holds, and what is resident. glibc keeps a part of what was freed, now more and now less, so the
server's is told to give it back.
"""

from __future__ import annotations

import copy
import io
import json
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple

import psutil
from live_server import Server
from PIL import Image

CACHES = {
    "as the host comes": (),
    "classic": ("--cache-classic",),
    "the last 4 nodes": ("--cache-lru", "4"),
    "none": ("--cache-none",),
    "always short of memory": ("--cache-ram", "1000"),
}
GIVE_BACK = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
"""Without it one third of a run was up to 1.1 times as large as another one, with nothing more held."""
ONE, TWO = "MM-Diff 3 - One Subject (demo)", "MM-Diff 4 - Two Subjects by Word (demo)"


class Soaked(NamedTuple):
    """drifted: graphs that drew another picture than before. held, resident: memory of the last third of the run over
    that of the middle third. interrupted: how many runs were stopped on the way."""

    drifted: set[str]
    held: float
    resident: float
    interrupted: int


def graphs() -> dict[str, dict]:
    """What people queue one after the other: other seeds, prompts, weights, parts of sampling, regions, maps."""
    folder = Path(__file__).parent / "workflows"
    one, two = (json.loads((folder / f"{name}.json").read_text()) for name in (ONE, TWO))
    made = {"one": one, "two": two}
    made["another seed"] = _changed(one, "KSampler", seed=7)
    made["weaker"] = _changed(two, "MMDiffApplyAttention", weight=0.4)
    made["begins later"] = _changed(one, "MMDiffBindSubjects", start_percent=0.3)
    made["in a region"] = copy.deepcopy(one)
    bind = next(node for node in made["in a region"].values() if node["class_type"] == "MMDiffBindSubjects")
    mask = {"class_type": "SolidMask", "inputs": {"value": 0.7, "width": 64, "height": 64}}
    place = {"subject": bind["inputs"]["subjects.subject_0"], "region": ["mask", 0]}
    place = {"class_type": "MMDiffPlaceSubject", "inputs": {**place, "start_percent": 0.0, "end_percent": 1.0}}
    made["in a region"] |= {"mask": mask, "place": place}
    bind["inputs"]["subjects.subject_0"] = ["place", 0]
    made["with maps"] = copy.deepcopy(two)
    sampler, nodes = next((number, node["inputs"]) for number, node in two.items() if node["class_type"] == "KSampler")
    binding = next([number, 2] for number, node in two.items() if node["class_type"] == "MMDiffBindSubjects")
    maps = {"model": nodes["model"], "positive": nodes["positive"], "latent": [sampler, 0], "binding": binding}
    made["with maps"]["maps"] = {"class_type": "MMDiffAttentionMaps", "inputs": {**maps, "percent": 0.5}}
    return {name: _changed(graph, "KSampler", steps=2) for name, graph in made.items()}


def _changed(graph: dict, kind: str, **inputs: object) -> dict:
    return {
        number: {**node, "inputs": {**node["inputs"], **(inputs if node["class_type"] == kind else {})}}
        for number, node in graph.items()
    }


def soak(folder: Path, arguments: tuple[str, ...], requeues: int, wanted: dict[str, bytes], seed: int = 0) -> Soaked:
    """Queue the graphs in random order; every ninth is interrupted first, before every tenth the host frees its memory.

    wanted: each graph's picture, of other servers too; what is not there yet is put there. Raises AssertionError for a
    run that fails.
    """
    drifted, held, resident, interrupted = set(), [], [], 0
    with Server(folder, *arguments, **GIVE_BACK) as server:
        process = psutil.Process(server.process.pid)
        for number, (name, graph) in enumerate(_in_random_order(requeues, random.Random(seed))):
            if number % 9 == 8:
                queued = server.send(graph)
                server.post("/interrupt", b"{}")
                interrupted += server.ended(queued)["status"]["status_str"] != "success"
            if number % 10 == 9:
                server.post("/free", json.dumps({"unload_models": True, "free_memory": True}).encode())
            entry = server.queue(graph)
            assert entry["status"]["status_str"] == "success", entry["status"]
            picture = Image.open(io.BytesIO(server.image(entry))).tobytes()
            if wanted.setdefault(name, picture) != picture:
                drifted.add(name)
            held.append(json.loads(server.get("/tests/held")))
            resident.append(process.memory_info().rss)
    return Soaked(drifted, _growth(held), _growth(resident), interrupted)


def _growth(memory: list[int]) -> float:
    third = len(memory) // 3
    return median(memory[-third:]) / median(memory[third:-third])


def _in_random_order(count: int, chance: random.Random) -> Iterator[tuple[str, dict]]:
    every = list(graphs().items())
    while count > 0:
        yield from chance.sample(every, min(count, len(every)))
        count -= len(every)


def main() -> int:
    requeues = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    bad, wanted = False, {}
    for name, arguments in CACHES.items():
        with tempfile.TemporaryDirectory() as folder:
            found = soak(Path(folder) / "server", arguments, requeues, wanted)
        bad |= bool(found.drifted) or max(found.held, found.resident) > 1.03
        others = ", ".join(sorted(found.drifted)) or "none"
        print(f"cache {name}: {requeues} requeues, {found.interrupted} interrupted; other pictures: {others}; ", end="")
        print(f"held x {found.held:.4f}, resident x {found.resident:.4f}", flush=True)
    return bad


if __name__ == "__main__":
    sys.exit(main())
