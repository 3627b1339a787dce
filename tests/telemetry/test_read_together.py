"""Messages that are read together come to what each of them comes to alone, whatever they are made of."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from caudal.telemetry.formats.v1 import Numbers, numbers, rows_of, single_rows
from caudal.telemetry.rows import head

WHOLE = b'{"schema":"v1","ts":"2026-01-01T00:00:00Z","points":[{"name":"a","v":1.5}]}'
OTHER = b'{"schema":"v1","ts":"2026-01-01T00:00:01Z","points":[{"name":"b","v":2,"u":"C"}],"meta":null}'
TWO = OTHER.replace(b"}]", b'},{"name":"c","v":1,"u":"C"}]')
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


NOW = 1_767_225_601_000_000  # 2026-01-01T00:00:01Z
HEADS = {"a": (None, head(7, 0, None)), "b": ("C", head(8, 0, 3)), "c": ("C", head(9, 0, 3))}
singles = st.builds(
    lambda name, value, unit, second: (
        f'{{"schema":"v1","ts":"{second}","points":[{{"name":"{name}","v":{value},"u":{unit}}}]}}'.encode()
    ),
    st.sampled_from("bbbbbcad"),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(['"C"'] * 8 + ["null", '"F"']),
    st.sampled_from(["2026-01-01T00:00:00.5Z", "2025-12-31T23:59:59Z", "2026-01-02T00:00:00Z"]),
)


@given(st.lists(singles, min_size=1, max_size=4), st.sampled_from([0, 86_400_000_000]))
@settings(max_examples=500)
def test_single_numbers_make_the_rows_that_they_make_alone(payloads: list[bytes], skew: int) -> None:
    messages = [each for each in numbers(payloads) if each is not None]
    assert len(messages) == len(payloads)
    found = single_rows(messages, [HEADS] * len(messages), NOW, NOW + skew)
    one_by_one = [rows_of(message, HEADS, NOW, NOW + skew) for message in messages]
    if found is None:
        # Without a unit a row has another shape, and goes the other way.
        assert None in one_by_one or any(message.points[0].u is None for message in messages)
    else:
        assert one_by_one == [(row, 1, ts) for row, ts in zip(*found, strict=True)]


def test_single_numbers_are_found() -> None:
    found = single_rows([each for each in numbers([OTHER, OTHER]) if each], [HEADS, HEADS], NOW, NOW)
    assert found is not None
    assert single_rows([each for each in numbers([OTHER, TWO]) if each], [HEADS, HEADS], NOW, NOW) is None
