"""Files of conversations: up in one request, down whole or in ranges."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from litestar import HttpMethod, Request, Response, get, post, route
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.openapi.spec import OpenAPIMediaType, OpenAPIType, Operation, RequestBody, Schema
from litestar.params import FromPath, QueryParameter
from litestar.response import Stream

from caudal.core.errors import InvalidInput
from caudal.messaging.files import File, FileDetail, FileService, Party, Stored, disposition
from caudal.registry.permissions import Action
from caudal.registry.settings import PeopleSettings
from caudal.web.api.messages import party
from caudal.web.guards import Requirement, requires
from caudal.web.inject import Caller, Given
from caudal.web.problems import problem
from caudal.web.ranges import wanted
from caudal.web.streams import form

NEEDS = frozenset({"files"})
# The form around the file: boundaries, headers, the other field.
FORM_SLACK = 64 * 1024
DEFAULT_URL = PeopleSettings().public_url


class Download(FileDetail, frozen=True, kw_only=True):
    """A file with a link to its bytes, which needs no credential and holds until `expires_at`."""

    download_url: str
    expires_at: datetime


@dataclass
class UploadForm(Operation):
    """What the body of an upload is; it is read as a stream, which the framework cannot see."""

    def __post_init__(self) -> None:
        text = Schema(type=OpenAPIType.STRING)
        octets = Schema(type=OpenAPIType.STRING, content_media_type="application/octet-stream")
        shape = Schema(
            type=OpenAPIType.OBJECT,
            properties={"conversation_id": text, "file": octets},
            required=["conversation_id", "file"],
        )
        self.request_body = RequestBody(
            content={"multipart/form-data": OpenAPIMediaType(schema=shape)}, required=True
        )


def announced(request: Request[Any, Any, Any]) -> int | None:
    """How long the request says that its body is."""
    value = request.headers.get("content-length", "")
    return int(value) if value.isascii() and value.isdigit() and len(value) < 19 else None


@post("/v1/files", status_code=201, guards=[requires(Action.FILES_WRITE)], operation_class=UploadForm,
      opt={"problems": (400, 408, 413)})  # fmt: skip
async def upload(request: Request[Any, Any, Any], principal: Caller, files: Given[FileService]) -> File:
    """Store a file for the participants of `conversation_id`: it is on the disk when this is answered.

    With `conversation_id` before `file` who takes no part is refused before the bytes come.
    """
    length = announced(request)
    files.check_size(None if length is None else length - FORM_SLACK)
    caller = Party(principal.tenant, party(principal))
    stored: Stored | None = None
    conversation: str | None = None
    async with files.turn():
        try:
            async for field in form(request, files.settings.files_idle_seconds):
                if field.name == "conversation_id":
                    conversation = await field.text()
                    await files.check(caller, conversation)
                elif field.name == "file" and stored is None:
                    if not field.filename:
                        raise InvalidInput("The field `file` must be a file, with a name.")
                    stored = await files.take(caller.tenant, field.filename, field.content_type, field.data())
            if stored is None:
                raise InvalidInput("Send the file in the field `file`.")
            if conversation is None:
                raise InvalidInput("Say in the field `conversation_id` whose file it is.")
            return await files.keep(caller, conversation, stored)
        except BaseException:
            await files.discard(stored)
            raise


@get("/v1/files/{file_id:uuid}/download", guards=[requires(Action.FILES_READ)])
async def download(
    request: Request[Any, Any, Any],
    file_id: FromPath[UUID],
    principal: Caller,
    files: Given[FileService],
    people_settings: Given[PeopleSettings],
) -> Download:
    """What is known of a file, and a link to its bytes that holds for an hour."""
    file = await files.find(Party(principal.tenant, party(principal)), file_id)
    base = files.settings.files_public_url or people_settings.public_url
    if base == DEFAULT_URL:
        # Nobody said where we are; whoever asks has found us. The link goes to them alone.
        base = str(request.base_url)
    url, until = await files.link(principal.tenant, file, base)
    return Download(
        file_id=file.file_id, filename=file.filename, size_bytes=file.size_bytes, checksum=file.checksum,
        storage_path=file.storage_path, uploaded_at=file.uploaded_at, conversation_id=file.conversation_id,
        content_type=file.content_type, uploaded_by=file.uploaded_by, download_url=url, expires_at=until,
    )  # fmt: skip


class LinkOr(Requirement):
    """A guard that a link of ours opens too; the handler checks the link."""

    __slots__ = ()

    async def __call__(
        self, connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler
    ) -> None:
        if "signature" in connection.query_params:
            connection.app.state.gate.admit_stranger(connection)
            connection.scope["user"] = None
        else:
            await super().__call__(connection, handler)


Tenant = Annotated[str, QueryParameter(description="Of a link", max_length=255)]
Expires = Annotated[str, QueryParameter(description="Of a link", max_length=20)]
Signature = Annotated[str, QueryParameter(description="Of a link", max_length=128)]


def _answer(request: Request[Any, Any, Any], files: FileService, file: FileDetail) -> Response[Any]:
    etag = f'"{file.checksum.removeprefix("sha256:")}"'
    status, start, end = wanted(request.headers, etag, file.size_bytes)
    headers = {"etag": etag, "accept-ranges": "bytes", "cache-control": "private, no-cache"}
    if status == 304:
        return Response(b"", status_code=304, headers=headers)
    if status == 416:
        sentence = f"The file has {file.size_bytes} bytes; the range begins beyond them."
        headers["content-range"] = f"bytes */{file.size_bytes}"
        return problem(request, 416, "range", sentence, headers=headers)
    headers["content-disposition"] = disposition(file.filename)
    headers["content-length"] = str(end - start)
    headers["content-type"] = file.content_type
    # Ours is never rendered in our own origin, whatever somebody called it.
    headers["content-security-policy"] = "sandbox; default-src 'none'"
    if status == 206:
        headers["content-range"] = f"bytes {start}-{end - 1}/{file.size_bytes}"
    # The server leaves out the body of an answer to HEAD; reading it would be for nothing.
    data = files.read(file, start, start if request.method == HttpMethod.HEAD else end)
    return Stream(data, status_code=status, headers=headers)


@route(
    "/v1/files/{file_id:uuid}/content",
    http_method=[HttpMethod.GET, HttpMethod.HEAD],
    guards=[LinkOr(Action.FILES_READ)],
    opt={"problems": (400, 416)},
    media_type="application/octet-stream",
)
async def content(
    request: Request[Any, Any, Any],
    file_id: FromPath[UUID],
    files: Given[FileService],
    tenant: Tenant = "",
    expires: Expires = "",
    signature: Signature = "",
) -> Response[Any]:
    """The bytes of a file, or the range of them that is asked for."""
    principal = request.scope["user"]
    if principal is None:
        files.links.check(tenant, file_id, expires, signature)
        return _answer(request, files, await files.linked(tenant, file_id))
    return _answer(request, files, await files.find(Party(principal.tenant, party(principal)), file_id))


ROUTES = [upload, download, content]
