"""A stand-in for a Digital Slide Archive with one slide: what MONAI Label's datastore asks of a real one."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import numpy as np
from PIL import Image

ITEM = {"_id": "5f00aa", "name": "slide.tif", "largeImage": {"fileId": "5f00bb"}}
_ANNOTATION = {"_id": "5f00cc", "itemId": ITEM["_id"], "annotation": {"name": "nuclick points"}}


@contextmanager
def girder(pixels: np.ndarray, points: Sequence[Sequence[float]] = ()) -> Iterator[str]:
    """Serves a slide of pixels (H, W, 3) and the points [x, y] that were clicked on it.

    Yields:
        The address of its API.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            query = dict(parse_qsl(url.query))
            found = _answer(url.path.removeprefix("/api/v1/"), query, pixels, points)
            self.send_response(400 if found is None else 200)
            self.send_header("Content-Type", "image/png" if isinstance(found, bytes) else "application/json")
            self.end_headers()
            self.wfile.write(found if isinstance(found, bytes) else json.dumps(found).encode())

        def log_message(self, format: str, *values: Any) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/api/v1"
        server.shutdown()


def _answer(
    path: str, query: dict[str, str], pixels: np.ndarray, points: Sequence[Sequence[float]]
) -> dict[str, Any] | list[Any] | bytes | None:
    """JSON or a picture; None for what the archive refuses."""
    if path in ("collection", "folder"):
        return [{"_id": "5f00dd"}]
    if path == "item":
        return [ITEM] if query.get("name", ITEM["name"]) == ITEM["name"] and "text" not in query else []
    if path == f"item/{ITEM['_id']}":
        return ITEM
    if path == f"item/{ITEM['_id']}/tiles/region":
        x, y, width, height = (int(query[key]) for key in ("left", "top", "regionWidth", "regionHeight"))
        picture = io.BytesIO()
        Image.fromarray(pixels[y : y + height, x : x + width]).save(picture, "PNG")
        return picture.getvalue()
    if path == f"annotation/item/{ITEM['_id']}":
        return [_ANNOTATION]
    if path == f"annotation/{_ANNOTATION['_id']}":
        return {"annotation": {"elements": [{"type": "point", "center": [x, y, 0]} for x, y in points]}}
    return None
