"""Which part of a resource a request asks for (RFC 9110, sections 13 and 14)."""

from __future__ import annotations

import re
from typing import NamedTuple

from litestar.datastructures import Headers

RANGE = re.compile(r"bytes=\s*(\d{0,18})-(\d{0,18})\s*", re.IGNORECASE)


class Wanted(NamedTuple):
    """What to answer: 200, 206, 304 or 416, and the bytes from `start` up to, not including, `end`."""

    status: int
    start: int
    end: int


def _names(header: str, etag: str, *, weak: bool) -> bool:
    if header.strip() == "*":
        return True
    tags = (tag.strip() for tag in header.split(","))
    return any(tag.removeprefix("W/") == etag if weak else tag == etag for tag in tags)


def wanted(headers: Headers, etag: str, size: int) -> Wanted:
    """What these request headers want of `size` bytes that never change under their strong `etag`.

    Several ranges at once are answered with everything, as the RFC allows.
    """
    none_match = headers.get("if-none-match")
    if none_match is not None and _names(none_match, etag, weak=True):
        return Wanted(304, 0, 0)
    whole = Wanted(200, 0, size)
    match = RANGE.fullmatch(headers.get("range", ""))
    if match is None:
        return whole
    condition = headers.get("if-range")
    # A date says no more than the tag does; who sends one gets everything.
    if condition is not None and condition.strip() != etag:
        return whole
    first, last = match.groups()
    if not first and not last:
        return whole
    if not first:
        length = min(int(last), size)
        return Wanted(206, size - length, size) if length else Wanted(416, 0, 0)
    start = int(first)
    if last and int(last) < start:
        return whole
    if start >= size:
        return Wanted(416, 0, 0)
    return Wanted(206, start, min(int(last) + 1, size) if last else size)
