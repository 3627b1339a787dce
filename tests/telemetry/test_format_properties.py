"""What holds for every format: nothing raises or goes uncounted, and all roads lead to the same rows."""

import json
from typing import Any, get_args

from hypothesis import given, settings
from hypothesis import strategies as st

from caudal.telemetry.decode import FORMATS, decode, parse
from caudal.telemetry.formats import v1
from caudal.telemetry.model import Decoded, Limits, Reject
from caudal.telemetry.rows import NO_META, head, pack_double
from caudal.telemetry.rows import times as pack_times
from caudal.telemetry.topics import Kind
from tests.telemetry.messages import (
    NOW,
    ROUTES,
    SKEW,
    context,
    documents,
    holds,
    iso,
    numbers,
    read,
    scalars,
    shaped,
)  # fmt: skip


@given(st.binary(max_size=300), st.sampled_from(sorted(ROUTES)), st.sampled_from([None, "nobody", *FORMATS]))
def test_bytes_of_any_kind(payload: bytes, kind: str, bound: str | None) -> None:
    holds(read(payload, kind, bound))


@settings(max_examples=400)
@given(documents | shaped, st.sampled_from(sorted(ROUTES)), st.sampled_from([None, "nobody", *FORMATS]))
def test_json_of_any_kind(document: Any, kind: str, bound: str | None) -> None:
    holds(read(json.dumps(document).encode(), kind, bound))
    holds(read(json.dumps(document, ensure_ascii=False).encode(errors="surrogatepass"), kind, bound))


@settings(max_examples=400)
@given(shaped)
def test_what_looks_like_a_format(document: Any) -> None:
    result = read(json.dumps(document).encode())
    holds(result)
    if isinstance(result, Decoded) and result.format in PARTS:
        parts = PARTS[result.format]
        dead = sum(f.pointer.startswith(f"/{parts}/") for f in result.faults)
        # Labels that cannot be kept are a fault beside their sample.
        assert len(result.samples) + dead >= len(document[parts]), "a part went uncounted"
        assert result.format != "v1" or len(result.samples) + dead == len(document[parts])


PARTS = {"v1": "points", "sensors": "sensors", "leituras": "leituras"}


points_nearly_right = st.lists(
    st.fixed_dictionaries(
        {"name": st.text(max_size=5), "v": numbers | st.booleans() | st.text(max_size=5) | scalars},
        optional={
            "t": st.sampled_from(["num", "float", "bool", "enum", "text", "int", None]),
            "u": scalars,
            "qual": st.integers(-1, 3) | scalars,
            "q": st.integers(-1, 3),
            "more": documents,
        },
    ),
    max_size=3,
)
times = st.sampled_from(
    [
        "2025-10-07T15:30:00.1234565Z",
        "2025-10-07 15:30:00-0330",
        "0001-01-01T00:00:00+01:00",
        "2030-01-01T00:00:00z",
    ]
)
nearly_right = st.fixed_dictionaries(
    {"schema": st.just("v1"), "ts": times, "points": points_nearly_right},
    optional={"meta": st.none() | st.dictionaries(st.text(max_size=3), documents, max_size=3)},
)


HEADS = {"p": ("C", head(7, 0, 1)), "q": ("%", head(8, 0, 2)), "bare": (None, head(9, 0, None))}
points_mostly_known = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.sampled_from(["p", "q", "bare", "r"]),
            "v": numbers | st.sampled_from([True, None, "1", 1e308]),
        },
        optional={
            "t": st.sampled_from(["num", "float", "bool", "text"]),
            "u": st.sampled_from(["C", "%", "", None]),
            "qual": st.sampled_from([0, 0, 0, 1, 2, True, "0"]),
            "q": st.sampled_from([0, 2]),
            "more": documents,
        },
    ),
    max_size=3,
)


@settings(max_examples=800)
@given(times, points_mostly_known, st.none() | st.just({}) | st.just({"fw": "1"}), st.booleans())
def test_the_shortest_road_makes_the_rows_of_the_others(ts: str, points: Any, meta: Any, right: bool) -> None:
    if right:
        units = {"p": "C", "q": "%", "bare": None}
        points = [
            {"name": n, "v": v, "u": units[n]} for n, v in [(p["name"], p["v"]) for p in points] if n != "r"
        ]
    payload = json.dumps({"schema": "v1", "ts": ts, "points": points, "meta": meta}).encode()
    (message,) = v1.numbers([payload])
    found = None if message is None else v1.rows_of(message, HEADS, NOW, NOW + SKEW)
    result = read(payload)
    if found is None:
        usual = points and meta is None and all(type(p["v"]) in (int, float) for p in points)
        assert not (right and usual and isinstance(result, Decoded) and result.plain) or ts > "2026"
        return
    assert isinstance(result, Decoded)
    assert result.plain
    rows = [
        HEADS[point][1] + pack_times(at, NOW) + pack_double(num) + NO_META
        for _, point, at, num, _, _, unit, qual in result.samples
        if num is not None and HEADS[point][0] == unit and not qual
    ]
    assert found == (b"".join(rows), len(result.samples), result.samples[0][2])


@settings(max_examples=800)
@given(nearly_right)
def test_the_fast_road_and_the_careful_one_agree(document: Any) -> None:
    payload = json.dumps(document).encode()
    holds(read(payload))
    fast = v1.fast(payload, context())
    if fast is not None:
        assert fast == v1.decode(parse(payload), context())


@given(st.integers(-(10**308), 10**308) | st.decimals(allow_nan=False, allow_infinity=False))
def test_numbers_are_rounded_once(number: Any) -> None:
    payload = f'{{"schema":"v1","ts":"2025-10-07T15:30:00Z","points":[{{"name":"a","v":{number}}}]}}'.encode()
    result = read(payload)
    holds(result)
    if isinstance(result, Decoded) and result.samples:
        assert result.samples[0][3] == float(str(number))


def test_limits() -> None:
    points = [{"name": f"p{i}", "v": i} for i in range(11)]
    payload = json.dumps({"schema": "v1", "ts": iso(0), "points": points, "meta": {"a": "x" * 50}}).encode()
    for limits, reason in (
        (Limits(payload_bytes=100), "too_large"),
        (Limits(items=10), "too_large"),
        (Limits(), None),
    ):
        result = decode(ROUTES["telem"], payload, now=NOW, max_skew_us=SKEW, limits=limits)
        assert (result.reason if isinstance(result, Reject) else None) == reason
    small = decode(ROUTES["telem"], payload, now=NOW, max_skew_us=SKEW, limits=Limits(meta_bytes=20))
    assert isinstance(small, Decoded)
    assert [f.pointer for f in small.faults] == ["/meta"]
    assert (len(small.samples), small.meta, small.items) == (11, None, 12)


def test_every_kind_of_route_is_covered() -> None:
    assert set(ROUTES) == set(get_args(Kind))
