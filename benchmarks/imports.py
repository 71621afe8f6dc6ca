"""What the pack adds to the host's start: `python -m benchmarks.imports`, one fresh process a measurement."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from .host import ROOT, custom_node


def main() -> dict[str, Any]:
    """Seconds to load the pack after the host's own imports, and what it imported that the host had not."""
    import execution  # noqa: F401
    import server  # noqa: F401

    import nodes

    asyncio.run(nodes.init_builtin_extra_nodes())
    before = set(sys.modules)
    began = time.perf_counter()
    custom_node(ROOT)
    took = time.perf_counter() - began
    new = {name.partition(".")[0] for name in set(sys.modules) - before}
    return {
        "import, s": took,
        "new packages": sorted(name for name in new if "/" not in name),
        "transformers modules imported by the pack": sum("transformers" in name for name in set(sys.modules) - before),
    }


if __name__ == "__main__":
    print(json.dumps(main()))
