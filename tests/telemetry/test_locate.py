"""The place a dead letter points to, found again in the bytes as they came."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caudal.telemetry.locate import Span, locate


def shown(payload: bytes, pointer: str) -> tuple[str, bool] | None:
    span = locate(payload, pointer)
    return None if span is None else (payload[span.start : span.end].decode(), span.exact)


@pytest.mark.parametrize(
    ("payload", "pointer", "expected"),
    [
        (b'{"points": [{"v": 1}, {"v": "warm"}]}', "/points/1/v", ('"warm"', True)),
        (b'{ "a" :\n {"b/c~": [1 , 2]} }', "/a/b~1c~0/1", ("2", True)),
        ('{"é": "ü", "b": true}'.encode(), "/b", ("true", True)),
        (b'{"v": 1, "v": 2}', "/v", ("2", True)),
        (b'{"a": {"b": 1}}', "/a/missing", ('{"b": 1}', False)),
        (b"[1, 2]", "/7", ("[1, 2]", False)),
        (b'{"n": NaN}', "/n", ("NaN", True)),
        (b'{"a": 1}', "", None),
        (b'{"a": ', "/a", None),
        (b"", "/a", None),
        (b"\xff\xfe", "/a", None),
    ],
)
def test_pointers(payload: bytes, pointer: str, expected: tuple[str, bool] | None) -> None:
    assert shown(payload, pointer) == expected


def test_bytes() -> None:
    assert locate(b"ab\xffcd", "byte 2") == Span(2, 3, True)
    assert locate(b"", "byte 9") == Span(0, 0, True)


def test_nesting_beyond_reason_is_no_error() -> None:
    assert locate(b"[" * 100_000, "/0/0") is None


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def places(value: Any, pointer: str = "") -> list[tuple[str, Any]]:
    found = [(pointer, value)]
    if isinstance(value, dict):
        for key, inner in value.items():
            found += places(inner, f"{pointer}/{key.replace('~', '~0').replace('/', '~1')}")
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            found += places(inner, f"{pointer}/{number}")
    return found


@given(values, st.booleans(), st.sampled_from([None, 1]))
def test_every_place_of_any_document(value: Any, ascii_only: bool, indent: int | None) -> None:
    try:
        payload = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    except UnicodeEncodeError:
        return
    for pointer, inner in places(value)[1:]:
        span = locate(payload, pointer)
        assert span is not None
        assert span.exact
        assert json.loads(payload[span.start : span.end]) == inner


@given(st.binary(max_size=60), st.text(max_size=20))
def test_never_raises(payload: bytes, pointer: str) -> None:
    span = locate(payload, "/" + pointer)
    assert span is None or 0 <= span.start <= span.end <= len(payload)
