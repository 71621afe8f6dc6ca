"""Two commands that set up everything they need in `.venv`: `python3 dev.py demo` and `python3 dev.py test`.

`demo` does the main job without ComfyUI and takes the options of `python -m mmdiff_core demo`.
`test` runs the core tests, and where COMFYUI_DIR names a ComfyUI checkout (or several, separated as in PATH) the host
and browser tests in each of them. A checkout without a `.venv` of its own uses the first one's.
`wheel` builds the core's wheel, and draws with it from an empty environment outside the checkout.
"""

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parent
BIN = "Scripts" if os.name == "nt" else "bin"
AT_ONCE = ("-n", "auto", "--maxprocesses", "4", "--dist", "loadfile")
"""Files of tests in several processes, no more than memory is sure to hold; `-n 0` behind it is one after another."""


def run(*command: object, folder: Path = ROOT, **environment: str) -> None:
    """Run a command in the repository, or another folder; a failure ends this program with its exit code."""
    done = subprocess.run([str(part) for part in command], cwd=folder, env={**os.environ, **environment})
    if done.returncode:
        sys.exit(done.returncode)


def install(python: Path, *what: object) -> None:
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *what)


def own_python() -> Path:
    """The Python of `.venv`, made and filled on first use."""
    python = ROOT / ".venv" / BIN / "python"
    if not python.exists():
        print("Setting up .venv (PyTorch is large; this happens once) ...", flush=True)
        venv.create(ROOT / ".venv", with_pip=True)
    install(python, "-r", ROOT / "tests/requirements.txt")
    return python


def pytest(python: Path, *options: str, **environment: str) -> None:
    """With one thread in each process: PyTorch's wait for one another by spinning, which beside others takes ten times
    the time."""
    run(python, "-m", "pytest", *AT_ONCE, *options, **{"OMP_NUM_THREADS": "1", **os.environ, **environment})


def test(*options: str) -> None:
    python = own_python()
    run(python, "-m", "ruff", "check", ".")
    run(python, "-m", "ruff", "format", "--check", ".")
    pytest(python, "tests/core", *options)
    hosts = [Path(folder) for folder in os.environ.get("COMFYUI_DIR", "").split(os.pathsep) if folder]
    if not hosts:
        print("COMFYUI_DIR is not set: the host and browser tests were NOT run.")
    for host in hosts:
        python = next(p for h in (host, hosts[0]) if (p := h / ".venv" / BIN / "python").exists())
        install(python, "-r", ROOT / "tests/host/requirements.txt")
        pytest(python, "tests/host", "tests/web", *options, COMFYUI_DIR=str(host))


def demo(*options: str) -> None:
    """In the folder it was called from, which relative paths are relative to."""
    run(own_python(), "-m", "mmdiff_core", "demo", *options, folder=Path.cwd(), PYTHONPATH=str(ROOT))


def wheel() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run(own_python(), "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT)
        (built,) = folder.glob("*.whl")
        venv.create(folder / "empty", with_pip=True)
        install(folder / "empty" / BIN / "python", f"{built}[draw]", "-c", ROOT / "tests/requirements.txt")
        run(folder / "empty" / BIN / "mm-diff", "demo", "--out", "drawn", folder=folder, PYTHONPATH="")


if __name__ == "__main__":
    command, *rest = sys.argv[1:] or ["--help"]
    if command == "demo":
        demo(*rest)
    elif command == "test":
        test(*rest)
    elif command == "wheel":
        wheel()
    else:
        print(__doc__)
