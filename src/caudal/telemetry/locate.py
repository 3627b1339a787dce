"""Where in the bytes of a payload the place is that a dead letter points to. Pure; never raises."""

from __future__ import annotations

import json
import re
from typing import NamedTuple

_SPACE = re.compile(r"[ \t\n\r]*")
_BYTE = re.compile(r"byte (\d+)")
_scan = json.JSONDecoder().raw_decode


class Span(NamedTuple):
    """Bytes `start` up to `end` of the payload; not `exact` when only what encloses the place is there."""

    start: int
    end: int
    exact: bool


def locate(payload: bytes, pointer: str) -> Span | None:
    """The span that `pointer` (RFC 6901, or `byte N`) names; of a member that is missing, what lacks it.

    None where there is nothing to show: the pointer is of the whole, or the payload is no JSON.
    """
    if found := _BYTE.fullmatch(pointer):
        at = min(int(found[1]), len(payload))
        return Span(at, min(at + 1, len(payload)), True)
    if not pointer.startswith("/"):
        return None
    try:
        text = payload.decode()
        tokens = [part.replace("~1", "/").replace("~0", "~") for part in pointer[1:].split("/")]
        start, end, exact = _descend(text, tokens)
    except (ValueError, RecursionError, IndexError):
        return None
    before = len(text[:start].encode())
    return Span(before, before + len(text[start:end].encode()), exact)


def _descend(text: str, tokens: list[str]) -> tuple[int, int, bool]:
    at = _skip(text, 0)
    for token in tokens:
        inner = _member(text, at, token) if text[at] == "{" else None
        if text[at] == "[" and token.isdigit():
            inner = _element(text, at, int(token))
        if inner is None:
            return at, _scan(text, at)[1], False
        at = inner
    return at, _scan(text, at)[1], True


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _member(text: str, at: int, name: str) -> int | None:
    """Where the value of the member begins; of several the last, which is the one that parsers take."""
    last = None
    at = _skip(text, at + 1)
    while text[at] != "}":
        key, at = _scan(text, at)
        at = _skip(text, _skip(text, at) + 1)
        if key == name:
            last = at
        at = _skip(text, _scan(text, at)[1])
        if text[at] == ",":
            at = _skip(text, at + 1)
    return last


def _element(text: str, at: int, wanted: int) -> int | None:
    at = _skip(text, at + 1)
    number = 0
    while text[at] != "]":
        if number == wanted:
            return at
        at = _skip(text, _scan(text, at)[1])
        if text[at] == ",":
            at = _skip(text, at + 1)
        number += 1
    return None
