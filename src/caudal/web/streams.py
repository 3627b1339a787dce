"""Bodies as streams: chunk by chunk from the socket, so that what is large never lies in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from litestar import Request
from multipart import (
    MultipartError,
    MultipartSegment,
    ParserLimitReached,
    PushMultipartParser,
    parse_options_header,
)

from caudal.core.errors import CaudalError, InvalidInput, TooLarge

FIELD_MAX = 8 * 1024
# A form of ours has two or three; more is somebody trying.
FIELDS_MAX = 16


class Cut(CaudalError):
    """The client went away, or fell silent; nobody may be there to read this."""

    code, status = "cut", 400


class Silent(CaudalError):
    """No byte for too long."""

    code, status, retryable = "timeout", 408, True


async def chunks(request: Request[Any, Any, Any], idle: float) -> AsyncIterator[bytes]:
    """The body as it comes. Raises Cut when the client goes, Silent after `idle` seconds without a byte."""
    more = True
    while more:
        try:
            async with asyncio.timeout(idle):
                event: Any = await request.receive()
        except TimeoutError:
            raise Silent("Nothing came for too long. Send again, or go on where you were.") from None
        if event["type"] == "http.disconnect":
            raise Cut("The connection ended before the body did.")
        if body := event.get("body", b""):
            yield body
        more = event.get("more_body", False)


class Field:
    """One part of a form; read it before asking for the next."""

    def __init__(self, segment: MultipartSegment, events: AsyncIterator[Any]) -> None:
        self.name: str = segment.name
        self.filename: str | None = segment.filename
        self.content_type: str | None = segment.content_type if segment.filename is not None else None
        self._events = events
        self._done = False

    async def data(self) -> AsyncIterator[bytes]:
        """The part's bytes."""
        while not self._done:
            event = await anext(self._events, None)
            if event is None:
                self._done = True
                return
            yield bytes(event)

    async def text(self) -> str:
        """The part as text. Raises InvalidInput when it is none, TooLarge beyond 8 KiB."""
        whole = b""
        async for piece in self.data():
            whole += piece
            if len(whole) > FIELD_MAX:
                raise TooLarge(f"The field {self.name[:50]} is too long.")
        try:
            return whole.decode()
        except UnicodeDecodeError as error:
            raise InvalidInput(f"The field {self.name[:50]} is not UTF-8.") from error


async def form(request: Request[Any, Any, Any], idle: float) -> AsyncIterator[Field]:
    """The parts of a multipart form, one after the other. Raises InvalidInput, and as `chunks`."""
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get("boundary", "")
    if kind != "multipart/form-data" or not 1 <= len(boundary) <= 200:
        raise InvalidInput("Send the file as multipart/form-data, in the field `file`.")
    events = _events(request, boundary, idle)
    while (event := await anext(events, None)) is not None:
        field = Field(event, events)
        yield field
        async for _ in field.data():
            pass


async def _events(request: Request[Any, Any, Any], boundary: str, idle: float) -> AsyncIterator[Any]:
    """What the parser finds: a segment, its bytes, None after its end; and so on."""
    try:
        with PushMultipartParser(boundary, max_segment_count=FIELDS_MAX) as parser:
            async for chunk in chunks(request, idle):
                for event in parser.parse(chunk):
                    yield event
            # Says so when the end is missing.
            parser.close()
    except ParserLimitReached as error:
        raise InvalidInput("The form has too many fields, or too long headers.") from error
    except (MultipartError, UnicodeError) as error:
        raise InvalidInput("The form cannot be read: is it whole, and its boundary right?") from error
