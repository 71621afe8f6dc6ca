"""A real server with this pack, loaders of tiny models and a tiny release in a folder of its own, over HTTP."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

ROOT = Path(__file__).parents[2]
STAND_INS = {
    "CheckpointLoaderSimple": "TinyCheckpoint",
    "CLIPVisionLoader": "TinyClipVision",
    "MMDiffAnalyzeFace": "TinyFace",
    "LoadBackgroundRemovalModel": "TinyBackgroundRemoval",
}
"""What takes the place of the loaders of weights that are not at hand."""
OTHERS = {"comfyui_ipadapter_plus": "ComfyUI_IPAdapter_plus"}
"""Packs of others that templates use: their names in the registry, and their folders in NEIGHBOURS_DIR."""
PATIENCE = 1800
"""Seconds until a server that lives but does not answer counts as hung; a busy machine is none."""


def at_hand(other: str) -> Path | None:
    """Where NEIGHBOURS_DIR has a checkout of another pack."""
    path = Path(os.environ.get("NEIGHBOURS_DIR", "."), other).resolve()
    return path if path.is_dir() else None


def not_at_hand(template: Path) -> list[str]:
    """Packs of others that a shipped workflow uses and that are not here."""
    nodes = json.loads(template.read_text())["nodes"]
    used = {node["properties"].get("cnr_id") for node in nodes} & OTHERS.keys()
    return [OTHERS[name] for name in used if not at_hand(OTHERS[name])]


class Server:
    """`python main.py --cpu` on a free port of this machine, with more arguments and environment; leaving the `with`
    ends it."""

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        self.folder = folder
        self.arguments = arguments
        self.environment = environment
        packs = folder / "custom_nodes"
        packs.mkdir(parents=True)
        (packs / "mm-diff").symlink_to(ROOT)
        (packs / "tiny_nodes").symlink_to(ROOT / "tests" / "host" / "tiny_nodes")
        for other in OTHERS.values():
            if at_hand(other):
                (packs / other).symlink_to(at_hand(other))
        self.models = folder / "models" / "mmdiff"
        self.models.mkdir(parents=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Server:
        command = [sys.executable, "main.py", "--cpu", "--port", str(self.port), "--base-directory", str(self.folder)]
        self.log = open(self.folder / "server.log", "w")
        self.process = subprocess.Popen(
            [*command, "--disable-auto-launch", "--disable-api-nodes", *self.arguments],
            cwd=os.environ["COMFYUI_DIR"],
            env={**os.environ, **self.environment},
            stdout=self.log,
            stderr=subprocess.STDOUT,
        )
        for _ in range(2 * PATIENCE):
            try:
                self.get("/system_stats")
                return self
            except (urllib.error.URLError, ConnectionError):
                assert self.process.poll() is None, (self.folder / "server.log").read_text()[-3000:]
                time.sleep(0.5)
        raise TimeoutError((self.folder / "server.log").read_text()[-3000:])

    def __exit__(self, *error: object) -> None:
        self.process.terminate()
        self.process.wait(PATIENCE)
        self.log.close()

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(self.url + path, timeout=PATIENCE) as answer:
            return answer.read()

    def post(self, path: str, body: bytes, kind: str = "application/json") -> dict:
        request = urllib.request.Request(self.url + path, body, {"Content-Type": kind})
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.loads(answer.read() or "null")

    def upload(self, photo: Path) -> None:
        """A photo into the input folder, as the Load Image node does it."""
        boundary = uuid.uuid4().hex
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{photo.name}"\r\n'
        body = (
            head.encode()
            + b"Content-Type: image/jpeg\r\n\r\n"
            + photo.read_bytes()
            + f"\r\n--{boundary}--\r\n".encode()
        )
        self.post("/upload/image", body, f"multipart/form-data; boundary={boundary}")

    def send(self, workflow: dict) -> str:
        """Queue a workflow in API format; its number.

        As a page does, with an id: without one, older hosts leave what is cached out of the history.
        """
        return self.post("/prompt", json.dumps({"prompt": workflow, "client_id": "tests"}).encode())["prompt_id"]

    def refused(self, workflow: dict) -> str:
        """What the server says where it would not begin with a workflow in API format."""
        try:
            self.send(workflow)
        except urllib.error.HTTPError as error:
            return error.read().decode()
        raise AssertionError("it was queued")

    def ended(self, number: str) -> dict:
        """The history entry of what was queued, when it has ended."""
        for _ in range(4 * PATIENCE):
            history = json.loads(self.get(f"/history/{number}"))
            if number in history:
                return history[number]
            assert self.process.poll() is None, (self.folder / "server.log").read_text()[-3000:]
            time.sleep(0.25)
        raise TimeoutError(number)

    def queue(self, workflow: dict) -> dict:
        """The history entry of a workflow in API format, when it has ended."""
        return self.ended(self.send(workflow))

    def image(self, entry: dict) -> bytes:
        """The first saved picture of a history entry."""
        saved = next(
            image
            for output in entry["outputs"].values()
            for image in output.get("images", ())
            if image["type"] == "output"
        )
        return self.get(f"/view?filename={saved['filename']}&subfolder={saved['subfolder']}&type=output")


def with_stand_ins(workflow: dict) -> dict:
    """A workflow with the tiny loaders in place of those of real weights."""
    return {
        number: {**node, "class_type": STAND_INS.get(node["class_type"], node["class_type"])}
        for number, node in workflow.items()
    }
