"""Bodies of HTTP ingest: unpacked within bounds, and taken apart into messages."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import msgspec
import zstandard

from caudal.core.errors import InvalidInput, TooLarge
from caudal.telemetry.envelope import Envelope, unwrap_emqx
from caudal.telemetry.model import Limits, Reject

_array = msgspec.json.Decoder(list[msgspec.Raw]).decode


def unpack(body: bytes, encoding: str, most: int) -> bytes:
    """The body without its content encoding (gzip, zstd), never more than `most` bytes of it.

    Unpacked piece by piece: a bomb costs `most` bytes and no more. Raises TooLarge or InvalidInput.
    """
    kind = encoding.strip().lower()
    if kind in ("", "identity"):
        found = body
    elif kind in ("gzip", "x-gzip"):
        found = _gzip(body, most)
    elif kind == "zstd":
        found = _zstd(body, most)
    else:
        raise InvalidInput(f"Content-Encoding: {encoding[:40]!r} is not known; use gzip or zstd.")
    if len(found) > most:
        raise TooLarge(f"Unpacked, the body has more than {most} bytes. Send it in parts.")
    return found


def _gzip(body: bytes, most: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    # A gzip file may hold several members, one after the other.
    while body:
        inflate = zlib.decompressobj(wbits=31)
        try:
            part = inflate.decompress(body, most + 1 - size)
        except zlib.error as error:
            raise InvalidInput("The body is no gzip.") from error
        parts.append(part)
        size += len(part)
        if size > most:
            break
        if not inflate.eof:
            raise InvalidInput("The gzip body ends too early.")
        body = inflate.unused_data
    return b"".join(parts)


def _zstd(body: bytes, most: int) -> bytes:
    # The window is memory that the sender asks for; 8 MiB is what RFC 8878 wants everybody to support.
    inflate = zstandard.ZstdDecompressor(max_window_size=8 << 20)
    try:
        with inflate.stream_reader(body, read_across_frames=True) as reader:
            found = reader.read(most + 1)
            if len(found) <= most and reader.read(1):
                raise InvalidInput("The body is no zstd.")
    except zstandard.ZstdError as error:
        raise InvalidInput("The body is no zstd, or needs a window above 8 MiB.") from error
    return found


def lines(body: bytes) -> Iterator[bytes]:
    """The lines of NDJSON that hold something."""
    for line in body.split(b"\n"):
        if line := line.strip():
            yield line


def envelopes(body: bytes, *, ndjson: bool, limits: Limits, most: int) -> list[Envelope | Reject]:
    """The envelopes in a body: one object, an array, or one a line. Raises TooLarge, InvalidInput."""
    if ndjson:
        raws = list(lines(body))
    elif body.lstrip()[:1] == b"[":
        try:
            raws = [bytes(raw) for raw in _array(body)]
        except (ValueError, RecursionError) as error:
            raise InvalidInput("The body is no JSON array.") from error
    else:
        raws = [body]
    if len(raws) > most:
        raise TooLarge(f"At most {most} messages at a time; these are {len(raws)}.")
    return [unwrap_emqx(raw, limits) for raw in raws]
