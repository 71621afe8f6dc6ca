"""A sentence for whoever runs a graph: in the log, and in the page."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable

from ...mmdiff_core import Subject

EVENT = "mmdiff.warning"


def warn(sentence: str) -> None:
    """Say it in the log, and to the page that queued what runs now; `js/errors.js` shows it there."""
    logging.warning("MM-Diff: %s", sentence)
    server = sys.modules.get("server")  # nodes also run where there is no server: in tests, in a script
    page = getattr(server and server.PromptServer, "instance", None)
    if page is not None and page.client_id is not None:
        page.send_sync(EVENT, {"text": sentence}, page.client_id)


def named(subjects: Iterable[Subject]) -> str:
    """Subjects as a sentence has them."""
    return ", ".join(f"'{subject.name}'" for subject in subjects)
