"""A sentence for whoever runs a graph: in the log, and in the page."""

from __future__ import annotations

import logging

from server import PromptServer

EVENT = "mmdiff.warning"


def warn(sentence: str) -> None:
    """Say it in the log, and to the page that queued what runs now; `js/errors.js` shows it there."""
    logging.warning("MM-Diff: %s", sentence)
    server = getattr(PromptServer, "instance", None)
    if server is not None and server.client_id is not None:
        server.send_sync(EVENT, {"text": sentence}, server.client_id)
