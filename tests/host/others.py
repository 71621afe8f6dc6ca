"""Other packs by their own code: checkouts below the folder NEIGHBOURS_DIR, each named as its repository."""

from __future__ import annotations

import asyncio
import importlib.util
import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import nodes

FOLDER = os.environ.get("NEIGHBOURS_DIR")


def checkout(repository: str) -> Path:
    """The folder of `OWNER/NAME`, or a skip that says what is missing."""
    if not FOLDER:
        pytest.skip("NEIGHBOURS_DIR is not set to a folder with checkouts of other packs")
    path = Path(FOLDER) / repository.rpartition("/")[2]
    if not path.is_dir():
        pytest.skip(f"there is no checkout of {repository} at {path}")
    return path


@cache
def _loaded(path: Path) -> bool:
    return asyncio.run(nodes.load_custom_node(str(path)))


def call(repository: str, node: str, **inputs: Any) -> tuple:
    """The outputs of another pack's node, whichever of the host's two forms it has."""
    if not _loaded(checkout(repository)):
        pytest.skip(f"this version of {repository} fails to load on this host")
    found = nodes.NODE_CLASS_MAPPINGS[node]
    run = found.execute if hasattr(found, "execute") else getattr(found(), found.FUNCTION)
    outputs = run(**inputs)
    return getattr(outputs, "args", outputs)


def module_of(repository: str, file: str) -> Any:
    """One module of another pack alone, where the whole would fetch things when it is loaded."""
    described = importlib.util.spec_from_file_location(Path(file).stem, checkout(repository) / file)
    module = importlib.util.module_from_spec(described)
    described.loader.exec_module(module)
    return module
