"""What the page asks of the pack while a graph is being made. Nothing outside of the pack's folders is reached."""

from __future__ import annotations

import asyncio
import io
import sys
from pathlib import Path

import folder_paths
from aiohttp import web
from PIL import Image

from ...mmdiff_core import MMDiffError, doctor, live, load_subject
from ...mmdiff_core.demo import SUBJECTS
from . import folders

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
    """What a large model needs, and what of it is there, as `doctor.needed` says."""
    found = await asyncio.to_thread(doctor.needed, _folders)
    return web.json_response({name: one._asdict() for name, one in found.items()})


def _folders(kind: str) -> list[Path]:
    return [Path(folder) for folder in folder_paths.get_folder_paths(kind)]


async def list_subjects(request: web.Request) -> web.Response:
    """The names of the saved subjects."""
    return web.json_response(await asyncio.to_thread(folders.subject_names))


async def show_subject(request: web.Request) -> web.Response:
    """A saved subject's first photo as PNG; nothing for one that was saved without."""
    try:
        subject = await asyncio.to_thread(load_subject, folders.subject_path(request.query["name"]))
    except MMDiffError as error:
        return web.json_response({"problem": str(error)}, status=404)
    if subject.photos is None:
        return web.Response(status=204)
    file = io.BytesIO()
    Image.fromarray(subject.photos[0].movedim(0, -1).numpy()).save(file, "PNG")
    return web.Response(body=file.getvalue(), content_type="image/png")


async def show_drawing(request: web.Request) -> web.StreamResponse:
    """A bundled drawing as PNG."""
    drawings = {path.stem: path for path in SUBJECTS.glob("*.png")}
    found = drawings.get(request.query["name"])
    return web.Response(status=404) if found is None else web.FileResponse(found)


async def delete_subject(request: web.Request) -> web.Response:
    """Delete a saved subject's file; the page has asked before."""
    try:
        folders.subject_path(request.query["name"]).unlink()
    except (MMDiffError, OSError) as error:
        return web.json_response({"problem": str(error)}, status=404)
    return web.json_response({})


def add_routes() -> None:
    """Add them to the host's server; nodes also run where there is none."""
    server = sys.modules.get("server")
    page = getattr(server and server.PromptServer, "instance", None)
    if page is not None:
        page.routes.post("/mmdiff/prompt")(read_prompt)
        page.routes.get("/mmdiff/files")(find_files)
        page.routes.get("/mmdiff/subjects")(list_subjects)
        page.routes.get("/mmdiff/subject")(show_subject)
        page.routes.get("/mmdiff/drawing")(show_drawing)
        page.routes.delete("/mmdiff/subject")(delete_subject)
