"""The real host on a CPU with this pack in it, as the host tests start it."""

import asyncio
import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

sys.path[:0] = [os.environ["COMFYUI_DIR"], str(ROOT / "tests" / "host")]

import comfy.options  # noqa: E402, F401  (before the arguments are parsed)
from comfy.cli_args import args  # noqa: E402

args.cpu = True


def custom_node(folder: str | Path) -> dict[str, type]:
    """Every node class by id, after the host loaded one more folder of custom nodes."""
    import nodes

    if not asyncio.run(nodes.load_custom_node(str(folder))):
        raise SystemExit(f"The host refused {folder}; its log above says why.")
    return nodes.NODE_CLASS_MAPPINGS
