"""Two commands that set up everything they need in `.venv`: `python3 dev.py demo` and `python3 dev.py test`.

`demo` does the main job without ComfyUI and takes the options of `python -m mmdiff_core demo`.
`test` runs the core tests, and where COMFYUI_DIR names a ComfyUI checkout (or several, separated as in PATH) the host
and browser tests in each of them. A checkout without a `.venv` of its own uses the first one's.
"""

import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parent
BIN = "Scripts" if os.name == "nt" else "bin"


def run(*command: object, **environment: str) -> None:
    """Run a command in the repository; a failure ends this program with the command's exit code."""
    done = subprocess.run([str(part) for part in command], cwd=ROOT, env={**os.environ, **environment})
    if done.returncode:
        sys.exit(done.returncode)


def install(python: Path, requirements: str) -> None:
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", ROOT / requirements)


def own_python() -> Path:
    """The Python of `.venv`, made and filled on first use."""
    python = ROOT / ".venv" / BIN / "python"
    if not python.exists():
        print("Setting up .venv (PyTorch is large; this happens once) ...", flush=True)
        venv.create(ROOT / ".venv", with_pip=True)
    install(python, "tests/requirements.txt")
    return python


def test(*options: str) -> None:
    python = own_python()
    run(python, "-m", "ruff", "check", ".")
    run(python, "-m", "ruff", "format", "--check", ".")
    run(python, "-m", "pytest", "tests/core", *options)
    hosts = [Path(folder) for folder in os.environ.get("COMFYUI_DIR", "").split(os.pathsep) if folder]
    if not hosts:
        print("COMFYUI_DIR is not set: the host and browser tests were NOT run.")
    for host in hosts:
        python = next(p for h in (host, hosts[0]) if (p := h / ".venv" / BIN / "python").exists())
        install(python, "tests/host/requirements.txt")
        run(python, "-m", "pytest", "tests/host", "tests/web", *options, COMFYUI_DIR=str(host))


if __name__ == "__main__":
    command, *rest = sys.argv[1:] or ["--help"]
    if command == "demo":
        run(own_python(), "-m", "mmdiff_core", "demo", *rest)
    elif command == "test":
        test(*rest)
    else:
        print(__doc__)
