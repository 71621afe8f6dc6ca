"""A tiny base on disk for all tests of training, and runs of it in this process."""

import sys
from pathlib import Path

import pytest
import torch
import yaml

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A folder with `base`, `sdxl` (both diffusers folders) and `vision`."""
    from tiny_base import make_base, make_vision

    made = tmp_path_factory.mktemp("models")
    make_base(made / "base")
    make_base(made / "sdxl", sdxl=True)
    make_vision(made / "vision")
    return made


@pytest.fixture
def write(folder, tmp_path):
    """Write a configuration that trains into `tmp_path / name`; returns its path."""
    from tiny_base import settings

    def written(name="run", **sections):
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(settings(folder, out=str(tmp_path / name), **sections)))
        return path

    return written


@pytest.fixture
def run(write, tmp_path):
    """Train with a configuration; returns what `losses.jsonl` says of each step."""
    from tiny_base import logged

    from mmdiff_core.training.config import read_config
    from mmdiff_core.training.start import train

    def trained(name="run", resume=False, **sections):
        train(read_config(write(name, **sections)), resume)
        return logged(tmp_path / name)

    return trained


@pytest.fixture(autouse=True)
def _one_thread():
    """As the processes that tests start, so that sums are added in one order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
