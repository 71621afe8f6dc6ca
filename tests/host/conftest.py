"""The real host, if COMFYUI_DIR points at one: `pack` is this pack as ComfyUI itself loads it."""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMFYUI = os.environ.get("COMFYUI_DIR")

if COMFYUI:
    sys.path[:0] = [COMFYUI, str(Path(__file__).parent)]
    import comfy.options  # noqa: F401  (before the arguments are parsed)
    from comfy.cli_args import args

    args.cpu = True
else:
    collect_ignore_glob = ["test_*.py"]


def pytest_report_header() -> str:
    if not COMFYUI:
        return "host tests: NOT RUN, COMFYUI_DIR is not set"
    import comfyui_version

    return f"host tests: ComfyUI {comfyui_version.__version__}"


@pytest.fixture(scope="session")
def pack():
    """Node classes by id, loaded the way the host loads custom nodes."""
    import nodes

    assert asyncio.run(nodes.load_custom_node(str(ROOT))), "the host refused the pack"
    return {name: node for name, node in nodes.NODE_CLASS_MAPPINGS.items() if name.startswith("MMDiff")}


@pytest.fixture(autouse=True)
def _as_the_host_runs_nodes(request):
    """Without gradients; and the tiny stack on one thread, because more of them only wait for each other."""
    import torch

    threads = torch.get_num_threads()
    if request.node.get_closest_marker("full_size") is None:
        torch.set_num_threads(1)
    with torch.inference_mode():
        yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _told_to_compatibility(request, record_property):
    """See compatibility.py."""
    for mark in request.node.iter_markers("neighbour"):
        record_property("neighbour", json.dumps(mark.args))
