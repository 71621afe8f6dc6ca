"""What the page asks of the pack while a graph is being made. Nothing is written, and nothing outside is reached."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import folder_paths
from aiohttp import web

from ...mmdiff_core import MMDiffError, doctor, live

LONGEST = 100_000
"""Characters of a prompt that is looked at."""


async def read_prompt(request: web.Request) -> web.Response:
    """{prompt, names} to what `live.read` says of it; with {end, subject} too, the prompt after a click on a word."""
    asked = await request.json()
    prompt, names = str(asked["prompt"])[:LONGEST], [str(name) for name in asked["names"]]
    try:
        if "end" in asked:
            return web.json_response({"prompt": live.toggle(prompt, names, int(asked["end"]), int(asked["subject"]))})
        reading = live.read(prompt, names)
    except MMDiffError as error:
        return web.json_response({"problem": str(error)}, status=400)
    words = [word._asdict() for word in reading.words]
    return web.json_response({"words": words, "problem": reading.problem, "mended": reading.mended})


async def find_files(request: web.Request) -> web.Response:
    """What a large model needs, and what of it is there, as `doctor.wanted` says."""
    found = await asyncio.to_thread(doctor.wanted, _folders)
    return web.json_response({name: one._asdict() for name, one in found.items()})


def _folders(kind: str) -> list[Path]:
    return [Path(folder) for folder in folder_paths.get_folder_paths(kind)]


def add_routes() -> None:
    """Add them to the host's server; nodes also run where there is none."""
    server = sys.modules.get("server")
    page = getattr(server and server.PromptServer, "instance", None)
    if page is not None:
        page.routes.post("/mmdiff/prompt")(read_prompt)
        page.routes.get("/mmdiff/files")(find_files)
