"""Forms however they are cut into chunks, ranges whatever a header says."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from litestar.datastructures import Headers

from caudal.core.errors import CaudalError
from caudal.web.ranges import wanted
from caudal.web.streams import form

BOUNDARY = "b-1"


class Request:
    """As much of a request as a form needs."""

    def __init__(self, chunks: list[bytes], boundary: str = BOUNDARY) -> None:
        self.headers = {"content-type": f"multipart/form-data; boundary={boundary}"}
        self._events = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks] + [
            {"type": "http.request", "body": b"", "more_body": False}
        ]

    async def receive(self) -> dict[str, Any]:
        return self._events.pop(0)


async def read(request: Any) -> list[tuple[str, str | None, bytes]]:
    found = []
    async for field in form(request, 5):
        found.append((field.name, field.filename, b"".join([piece async for piece in field.data()])))
    return found


def encoded(fields: list[tuple[str, str | None, bytes]]) -> bytes:
    out = b""
    for name, filename, value in fields:
        named = f'; filename="{filename}"' if filename is not None else ""
        out += f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'.encode()
        out += value + b"\r\n"
    return out + f"--{BOUNDARY}--\r\n".encode()


def cut(body: bytes, places: list[int]) -> list[bytes]:
    marks = sorted({0, len(body), *(place % (len(body) + 1) for place in places)})
    return [body[a:b] for a, b in pairwise(marks)]


LETTERS = st.characters(min_codepoint=32, exclude_characters='"\\%', codec="utf-8")
NAMES = st.text(LETTERS, min_size=1, max_size=9)
# Much that looks like a boundary, and is none.
TRICKS = (b"\r\n", b"--", b"b-1", b"\r\n--b-", b"\r", b"\n", b"x", b"\0\xff", b"-1--")
VALUES = (
    st.lists(st.sampled_from(TRICKS), max_size=12).map(b"".join).filter(lambda made: b"--b-1" not in made)
)
FIELDS = st.lists(st.tuples(NAMES, st.none() | NAMES, VALUES), min_size=1, max_size=5)


@given(fields=FIELDS, places=st.lists(st.integers(0, 10_000), max_size=20))
def test_a_form_is_read_alike_however_it_is_cut(fields: Any, places: list[int]) -> None:
    assert asyncio.run(read(Request(cut(encoded(fields), places)))) == fields


@given(body=st.binary(max_size=300), fields=FIELDS, at=st.integers(0, 400), keep=st.integers(0, 400))
def test_a_spoiled_form_is_refused_or_read_and_never_crashes(
    body: bytes, fields: Any, at: int, keep: int
) -> None:
    whole = encoded(fields)
    status = 200
    try:
        asyncio.run(read(Request([whole[:at] + body, whole[keep:]])))
    except CaudalError as error:
        status = error.status
    assert status in (200, 400, 413)


@given(header=st.from_regex(r"(bytes|BYTES|x)=[ ]?[0-9]{0,4}-[0-9]{0,4}(,1-2)?", fullmatch=True) | st.text(),
       size=st.integers(0, 5000))  # fmt: skip
def test_what_is_wanted_lies_within_the_file(header: str, size: int) -> None:
    asked = Headers({"range": header.encode("latin-1", "replace").decode("latin-1")})
    status, start, end = wanted(asked, '"e"', size)
    if status == 200:
        assert (start, end) == (0, size)
    elif status == 206:
        assert 0 <= start < end <= size
    else:
        assert (status, start, end) == (416, 0, 0)
