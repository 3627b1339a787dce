"""Our own script and styles, and two libraries, from memory: compressed once, kept by browsers for a year.

An address carries the content's digest, so that a new version is a new address.
"""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path
from typing import Any

import msgspec
from litestar import Request, Response, get
from litestar.params import FromPath

from caudal.core.errors import NotFound
from caudal.web.guards import machinery

FOLDER = Path(__file__).parent / "static"
TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".txt": "text/plain"}


class Asset(msgspec.Struct, frozen=True):
    """One file in memory."""

    address: str
    media_type: str
    plain: bytes
    packed: bytes


def _load() -> dict[str, Asset]:
    found = {}
    for path in sorted(FOLDER.iterdir()):
        plain = path.read_bytes()
        digest = hashlib.sha256(plain).hexdigest()[:12]
        found[path.name] = Asset(
            f"/console/static/{path.name}?{digest}",
            f"{TYPES[path.suffix]}; charset=utf-8",
            plain,
            gzip.compress(plain, 9, mtime=0),
        )
    return found


ASSETS = _load()


def address(name: str) -> str:
    """Where a page finds the file; KeyError for one that is not there."""
    return ASSETS[name].address


@get("/static/{name:str}", guards=[machinery("scripts and styles are no secret")], sync_to_thread=False)
def asset(name: FromPath[str], request: Request[Any, Any, Any]) -> Response[bytes]:
    """A file."""
    found = ASSETS.get(name)
    if found is None:
        raise NotFound("There is no such file.")
    headers = {"cache-control": "public, max-age=31536000, immutable", "vary": "accept-encoding"}
    body = found.plain
    if "gzip" in request.headers.get("accept-encoding", ""):
        body = found.packed
        headers["content-encoding"] = "gzip"
    return Response(body, media_type=found.media_type, headers=headers)


ROUTES = [asset]
