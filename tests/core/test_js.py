"""What the browser loads and needs no page, by Node's own test runner."""

import shutil
import subprocess
from pathlib import Path

import pytest

TESTS = sorted((Path(__file__).parents[1] / "js").glob("*.test.js"))


@pytest.mark.skipif(not shutil.which("node"), reason="there is no Node.js on the PATH")
@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_a_module_of_the_page(path):
    ran = subprocess.run([shutil.which("node"), "--test", path], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
