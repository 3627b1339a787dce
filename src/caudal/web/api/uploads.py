"""Resumable uploads: tus 1.0 (core, creation, expiration, checksum, termination). See https://tus.io."""

from __future__ import annotations

import binascii
from base64 import b64decode
from email.utils import format_datetime
from typing import Annotated, Any
from uuid import UUID

from litestar import HttpMethod, Request, Response, delete, patch, post, route
from litestar.params import FromPath, HeaderParameter

from caudal.core.errors import CaudalError, InvalidInput
from caudal.messaging.files import Party
from caudal.messaging.uploads import ALGORITHMS, Checksum, Upload, Uploads
from caudal.registry.permissions import Action
from caudal.registry.principal import Principal
from caudal.web.api.messages import party
from caudal.web.guards import machinery, requires
from caudal.web.inject import Caller, Given
from caudal.web.streams import chunks

NEEDS = frozenset({"uploads"})
VERSION = "1.0.0"
EXTENSIONS = "creation,expiration,checksum,termination"
OCTETS = "application/offset+octet-stream"
MAY = [requires(Action.FILES_WRITE)]
Number = Annotated[str, HeaderParameter(name="Upload-Offset", description="How many bytes are there")]
Length = Annotated[str, HeaderParameter(name="Upload-Length", description="How many bytes it will have")]
About = Annotated[
    str,
    HeaderParameter(
        name="Upload-Metadata", description="`conversation_id`, `filename`, `filetype`, each in base64"
    ),
]
Resumable = Annotated[str, HeaderParameter(name="Tus-Resumable", description=f"`{VERSION}`")]


class WrongVersion(CaudalError):
    """Another version of tus."""

    code, status = "tus_version", 412


class WrongType(CaudalError):
    """A body that is not octets."""

    code, status = "unsupported_media_type", 415


def _check(version: str) -> None:
    if version != VERSION:
        raise WrongVersion(f"We speak tus {VERSION}: send Tus-Resumable: {VERSION}.")


def _number(text: str, name: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise InvalidInput(f"{name} must be a number of bytes.")
    return int(text)


def _metadata(text: str) -> dict[str, str]:
    found = {}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = pair.partition(" ")
        try:
            found[name] = b64decode(value.strip(), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError) as error:
            raise InvalidInput(f"Upload-Metadata: {name[:50]} is no UTF-8 in base64.") from error
    return found


def _checksum(text: str | None) -> Checksum | None:
    if text is None:
        return None
    algorithm, _, value = text.strip().partition(" ")
    try:
        digest = b64decode(value.strip(), validate=True)
    except binascii.Error as error:
        raise InvalidInput("Upload-Checksum: the sum is not base64.") from error
    if algorithm not in ALGORITHMS:
        raise InvalidInput(f"Upload-Checksum: we know {', '.join(ALGORITHMS)}.")
    return Checksum(algorithm, digest)


def _headers(upload: Upload, received: int | None = None) -> dict[str, str]:
    return {
        "Tus-Resumable": VERSION,
        "Upload-Offset": str(upload.received if received is None else received),
        "Upload-Expires": format_datetime(upload.expires_at, usegmt=True),
    }


def _party(principal: Principal) -> Party:
    return Party(principal.tenant, party(principal))


@route(
    "/v1/uploads", http_method=[HttpMethod.OPTIONS], status_code=204, include_in_schema=False,
    guards=[machinery("what the protocol can do, is no secret")],
)  # fmt: skip
async def options(uploads: Given[Uploads]) -> Response[None]:
    """What we can do."""
    headers = {
        "Tus-Resumable": VERSION, "Tus-Version": VERSION, "Tus-Extension": EXTENSIONS,
        "Tus-Max-Size": str(uploads.files.settings.file_max_bytes),
        "Tus-Checksum-Algorithm": ",".join(ALGORITHMS),
    }  # fmt: skip
    return Response(None, status_code=204, headers=headers)


@post("/v1/uploads", status_code=201, guards=MAY, opt={"problems": (400, 412, 413)})
async def create(
    principal: Caller, uploads: Given[Uploads], length: Length, about: About, version: Resumable
) -> Response[None]:
    """Begin an upload; its address is in `Location`. It becomes the file of the same id."""
    _check(version)
    given = _metadata(about)
    if "conversation_id" not in given or "filename" not in given:
        raise InvalidInput("Upload-Metadata must say conversation_id and filename.")
    made = await uploads.create(
        _party(principal), given["conversation_id"], given["filename"], given.get("filetype"),
        _number(length, "Upload-Length"),
    )  # fmt: skip
    headers = {**_headers(made), "Location": f"/v1/uploads/{made.id}"}
    return Response(None, status_code=201, headers=headers)


@route(
    "/v1/uploads/{upload_id:uuid}", http_method=[HttpMethod.HEAD], status_code=200, guards=MAY,
    include_in_schema=False,
)  # fmt: skip
async def where(
    upload_id: FromPath[UUID], principal: Caller, uploads: Given[Uploads], version: Resumable
) -> Response[None]:
    """How far an upload has come."""
    _check(version)
    found = await uploads.find(_party(principal), upload_id)
    return Response(
        None, status_code=200,
        headers={**_headers(found), "Upload-Length": str(found.size), "Cache-Control": "no-store"},
    )  # fmt: skip


@patch("/v1/uploads/{upload_id:uuid}", status_code=204, guards=MAY,
       opt={"problems": (400, 408, 409, 412, 413, 415, 460)})  # fmt: skip
async def append(
    request: Request[Any, Any, Any],
    upload_id: FromPath[UUID],
    principal: Caller,
    uploads: Given[Uploads],
    offset: Number,
    version: Resumable,
    checksum: Annotated[str | None, HeaderParameter(name="Upload-Checksum")] = None,
) -> Response[None]:
    """The next bytes. After the last the file is there, under the upload's id."""
    _check(version)
    if request.headers.get("content-type", "") != OCTETS:
        raise WrongType(f"Send the bytes as {OCTETS}.")
    wanted, start = _checksum(checksum), _number(offset, "Upload-Offset")
    caller = _party(principal)
    async with uploads.files.turn():
        data = chunks(request, uploads.files.settings.files_idle_seconds)
        received = await uploads.append(caller, upload_id, start, data, wanted)
    return Response(None, status_code=204, headers={
        "Tus-Resumable": VERSION, "Upload-Offset": str(received)})  # fmt: skip


@delete("/v1/uploads/{upload_id:uuid}", status_code=204, guards=MAY, opt={"problems": (412,)})
async def end(
    upload_id: FromPath[UUID], principal: Caller, uploads: Given[Uploads], version: Resumable
) -> Response[None]:
    """Give an upload up."""
    _check(version)
    await uploads.end(_party(principal), upload_id)
    return Response(None, status_code=204, headers={"Tus-Resumable": VERSION})


ROUTES = [options, create, where, append, end]
