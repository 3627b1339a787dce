"""Messages that are read together come to what each of them comes to alone, whatever they are made of."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from caudal.telemetry.formats.v1 import Numbers, numbers

WHOLE = b'{"schema":"v1","ts":"2026-01-01T00:00:00Z","points":[{"name":"a","v":1.5}]}'
OTHER = b'{"schema":"v1","ts":"2026-01-01T00:00:01Z","points":[{"name":"b","v":2,"u":"C"}],"meta":null}'
# What somebody would send who wants the message of another taken for a part, or in place, of his own.
OPEN = [
    WHOLE[:-1] + b',"x":',
    WHOLE[:-1] + b',"x":{}',
    WHOLE[:-1] + b',"x":"}',
    WHOLE[:-1] + b',"x":"}\\',
    WHOLE[:-1] + b',"x":[{}',
    WHOLE[:-1] + b',"x":[{},',
    WHOLE[:-1] + b',"}',
    WHOLE[:-3],
    b"{",
]
REST = [b"}", b"{}}", b'"}', b'{"}', b'{":1}', b"{}]}", b"{}", b",{}", b'{"x":"}', WHOLE + b"}"]
MORE = [WHOLE * 2, WHOLE + OTHER, WHOLE + b"\n" + OTHER, WHOLE + b" ", b"\n" + WHOLE, WHOLE + b"\n{}"]
ODD = [b"", b" ", b"\n", b"[]", b"null", b"\xff", WHOLE.replace(b"a", "é".encode()), b"{" * 3000 + b"}"]

pieces = st.sampled_from([WHOLE, OTHER, *OPEN, *REST, *MORE, *ODD])
cuts = st.tuples(st.sampled_from([WHOLE, OTHER]), st.integers(0, 120), st.integers(0, 120)).map(
    lambda it: it[0][min(it[1:]) : max(it[1:])]
)


def alone(payload: bytes) -> Numbers | None:
    return numbers([payload])[0]


@given(st.lists(pieces | cuts | st.sampled_from([WHOLE, OTHER]), max_size=6))
@settings(max_examples=500)
@example([WHOLE[:-1] + b',"x":', OTHER, b"}" + WHOLE * 2])
@example([WHOLE[:-1] + b',"x":"}', OTHER, b'{"}' + WHOLE * 2])
@example([WHOLE[:-1] + b',"x":[{}', OTHER, b"{}]}", WHOLE * 2])
@example([b"{}", WHOLE + OTHER, OTHER])
def test_read_together_as_alone(payloads: list[bytes]) -> None:
    assert numbers(payloads) == [alone(payload) for payload in payloads]


def test_what_is_usual_is_found() -> None:
    found = numbers([WHOLE, OTHER, WHOLE])
    assert [each and each.points[0].name for each in found] == ["a", "b", "a"]
