"""What holds for every format: valid messages come back whole, and nothing raises or goes uncounted."""

import json
import math
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, get_args
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caudal.telemetry import fields
from caudal.telemetry.decode import FORMATS, decode, parse
from caudal.telemetry.fields import Context
from caudal.telemetry.formats import v1
from caudal.telemetry.model import NAME_MAX, TEXT_MAX, UNIT_MAX, Decoded, Fault, Limits, Match, Reason, Reject
from caudal.telemetry.rows import NO_META, head, pack_double
from caudal.telemetry.rows import times as pack_times
from caudal.telemetry.timestamps import EPOCH, MAX_US, MIN_US
from caudal.telemetry.topics import Kind, Route

NOW = 1_780_272_000_000_000
SKEW = 60_000_000
ROUTES = {
    "telem": Route("telem", "t", "s", "d"),
    "ack": Route("ack", "t", "s", "d"),
    "event": Route("event", "t", "s", "d"),
    "cmd": Route("cmd", "t", "s", "d"),
    "asset": Route("asset", "t", "s", "d"),
    "meter": Route("meter", mac="aa:bb:cc:00:00:01"),
    "meter_cmd": Route("meter_cmd", mac="aa:bb:cc:00:00:01"),
}

storable = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
names = st.text(storable, min_size=1, max_size=30)
units = st.none() | st.text(storable, min_size=1, max_size=10)
numbers = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
instants = st.integers(0, 4 * 10**15)
keys = st.sampled_from(
    [
        "schema",
        "ts",
        "points",
        "name",
        "t",
        "v",
        "u",
        "qual",
        "q",
        "meta",
        "di1",
        "di2",
        "rssi",
        "fw",
        "DATA",
        "INFO",
        "TS",
        "INPUT1",
        "INPUT2",
        "VAR0",
        "WRSSI",
        "RELE",
        "sensors",
        "device_id",
        "timestamp",
        "sensor_id",
        "value",
        "unit",
        "labels",
        "leituras",
        "gateway_mac",
        "dispositivo_codigo",
        "valor",
        "bn",
        "bt",
        "bu",
        "bv",
        "bs",
        "bver",
        "n",
        "vs",
        "vb",
        "vd",
        "s",
        "ut",
        "cmd_id",
        "ok",
        "ts_exec",
        "err",
        "event_id",
        "event_type",
        "data",
        "x_",
    ]
)
words = st.sampled_from(
    ["v1", "num", "bool", "text", "A", "Cel", "model", "283286b20a000036", "2025-10-07T15:30:00Z"]
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | words
documents = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(keys | st.text(max_size=4), inner, max_size=8)
    ),
    max_leaves=30,
)
shaped = st.one_of(
    st.fixed_dictionaries({"schema": st.just("v1"), "ts": scalars, "points": documents}),
    st.fixed_dictionaries(
        {
            "schema": st.just("v1"),
            "ts": st.just("2025-10-07T15:30:00Z"),
            "points": st.lists(st.dictionaries(keys, scalars), max_size=5),
            "meta": documents,
        }
    ),
    st.fixed_dictionaries({"DATA": st.dictionaries(keys, scalars).map(lambda d: d | {"TS": 1_759_851_000})}),
    st.fixed_dictionaries({"INFO": st.dictionaries(st.text(), documents)}),
    st.dictionaries(keys, scalars).map(lambda d: d | {"di1": 1, "ts": "2025-10-07T15:30:00Z"}),
    st.lists(st.dictionaries(keys, scalars).map(lambda d: {"n": "a"} | d), min_size=1, max_size=5),
    st.lists(st.dictionaries(keys, scalars), max_size=5).map(
        lambda s: {"device_id": "d", "timestamp": "2025-10-07T15:30:00Z", "sensors": s}
    ),
    st.lists(st.dictionaries(keys, scalars), max_size=5).map(
        lambda s: {"gateway_mac": "AA:bb:cc:00:00:01", "timestamp": "2025-10-07T15:30:00Z", "leituras": s}
    ),
)


def iso(us: int) -> str:
    return (EPOCH + timedelta(microseconds=us)).isoformat()


def read(payload: bytes, kind: str = "telem", bound: str | None = None) -> Decoded | Reject:
    return decode(ROUTES[kind], payload, bound_format=bound, now=NOW, max_skew_us=SKEW)


def holds(result: Decoded | Reject) -> None:
    """What the pipeline and the database rest on."""
    if isinstance(result, Reject):
        speaks(result)
        return
    assert result.items == max(
        1, len(result.samples) + len(result.faults) + bool(result.ack) + bool(result.event)
    )
    for device, point, ts, num, flag, text, unit, qual in result.samples:
        assert device is None or 0 < len(device) <= NAME_MAX
        assert 0 < len(point) <= NAME_MAX
        assert type(ts) is int
        assert MIN_US <= ts <= MAX_US
        assert [num is None, flag is None, text is None].count(False) == 1
        assert num is None or (type(num) is float and math.isfinite(num))
        assert flag is None or type(flag) is bool
        assert text is None or len(text) <= TEXT_MAX
        assert unit is None or 0 < len(unit) <= UNIT_MAX
        assert qual in (0, 1, 2)
        for written in (device, point, text, unit):
            assert written is None or b"\0" not in written.encode()
    for fault in result.faults:
        speaks(fault)
        assert fault.part is None or len(fault.part) <= 4096
    for data in (result.meta, result.ack and result.ack.payload, result.event and result.event.data):
        if data:
            assert fields.storable(json.loads(data.decode()))
    for facts in (result.device_meta or {}).values():
        assert fields.storable(facts)


def speaks(dead: Fault | Reject) -> None:
    assert dead.reason in get_args(Reason)
    assert len(dead.sentence) > 5
    for said in (dead.sentence, dead.pointer):
        assert "\0" not in said
        said.encode()


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


def typed(draw: st.DrawFn) -> tuple[str, Any]:
    kind = draw(st.sampled_from(["num", "float", "bool", "enum", "text"]))
    values: dict[str, st.SearchStrategy[Any]] = {"num": numbers, "float": numbers, "bool": st.booleans()}
    return kind, draw(values.get(kind, st.text(storable, max_size=20)))


@st.composite
def v1_messages(draw: st.DrawFn) -> tuple[dict[str, Any], list[Any]]:
    ts = draw(instants)
    points, samples = [], []
    for _ in range(draw(st.integers(0, 5))):
        name, unit, (kind, value), qual = draw(names), draw(units), typed(draw), draw(st.integers(0, 2))
        points.append({"name": name, "t": kind, "v": value, "u": unit, "qual": qual})
        num = float(value) if kind in ("num", "float") else None
        flag = value if kind == "bool" else None
        text = value if kind in ("enum", "text") else None
        samples.append((None, name, ts, num, flag, text, unit, qual or int(ts > NOW + SKEW)))
    return {"schema": "v1", "ts": iso(ts), "points": points}, samples


@given(v1_messages(), st.booleans())
def test_v1(message: tuple[dict[str, Any], list[Any]], ascii_: bool) -> None:
    document, samples = message
    payload = json.dumps(document, ensure_ascii=ascii_).encode()
    result = read(payload, bound="v1")
    assert result == Decoded("v1", samples)
    assert v1.fast(payload, context()) is not None


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
    found = v1.numbers(payload, HEADS, NOW, NOW + SKEW)
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


def context(limits: Limits | None = None) -> Context:
    return Context(ROUTES["telem"], None, NOW, NOW + SKEW, limits or Limits())


@given(st.data(), instants, st.sampled_from([0, 1]), st.booleans(), st.integers(-200, 0))
def test_parsec_v1(data: st.DataObject, ts: int, di1: int, di2: bool, rssi: int) -> None:
    body = {"di1": di1, "di2": int(di2), "rssi": rssi, "ts": iso(ts), "fw": data.draw(names)}
    for key in data.draw(st.sets(st.sampled_from(["di2", "rssi", "fw"]))):
        del body[key]
    result = read(json.dumps(body).encode())
    qual = int(ts > NOW + SKEW)
    expected: list[Any] = [(None, "status", ts, None, None, "RUN" if di1 else "STOP", None, qual)]
    if "di2" in body:
        expected.append((None, "fault", ts, None, di2, None, None, qual))
    if "rssi" in body:
        expected.append((None, "rssi", ts, float(rssi), None, None, "dBm", qual))
    facts = {None: {"fw": body["fw"]}} if "fw" in body else None
    assert result == Decoded("parsec_v1", expected, (), None, facts)  # type: ignore[arg-type]


@given(st.integers(0, 4 * 10**9), st.integers(-(10**14), 10**14), st.integers(0, 10**9))
def test_je02_v1(ts: int, var: int, uptime: int) -> None:
    result = read(json.dumps({"DATA": {"TS": ts, "VAR0": var, "UPTIME": uptime}}).encode())
    assert isinstance(result, Decoded)
    (_, _, us, up, *_), (_, _, _, tenth, *_) = result.samples
    assert (us, up) == (ts * 1_000_000, float(uptime))
    assert tenth is not None
    assert f"{tenth:.1f}" == f"{'-' if var < 0 else ''}{abs(var) // 10}.{abs(var) % 10}"


@given(
    names,
    instants,
    st.lists(st.tuples(names, units, numbers | st.booleans() | st.text(storable)), max_size=5),
)
def test_sensors(device: str, ts: int, sensors: list[tuple[str, str | None, Any]]) -> None:
    body = {
        "device_id": device,
        "timestamp": iso(ts),
        "sensors": [{"sensor_id": n, "unit": u, "value": v} for n, u, v in sensors],
    }
    result = read(json.dumps(body).encode(), "asset")
    assert isinstance(result, Decoded)
    assert not result.faults
    for (point, unit, value), sample in zip(sensors, result.samples, strict=True):
        assert (sample[0], sample[1], sample[2], sample[6]) == (device, point, ts, unit)
        column = 4 if isinstance(value, bool) else 5 if isinstance(value, str) else 3
        assert sample[column] == (float(value) if column == 3 else value)


@given(instants, st.lists(st.tuples(names, numbers, units), max_size=5))
def test_leituras(ts: int, readings: list[tuple[str, float, str | None]]) -> None:
    body = {
        "gateway_mac": "AA:BB:CC:00:00:01",
        "timestamp": iso(ts),
        "leituras": [{"dispositivo_codigo": c, "valor": v, "unidade": u} for c, v, u in readings],
    }
    result = read(json.dumps(body).encode(), "meter")
    qual = int(ts > NOW + SKEW)
    mac = "aa:bb:cc:00:00:01"
    expected = [(f"{mac}/{c}", "valor", ts, float(v), None, None, u, qual) for c, v, u in readings]
    assert result == Decoded("leituras", expected)


@given(
    st.integers(2**28, 4 * 10**9),
    st.lists(
        st.tuples(st.from_regex(r"[a-z][a-z0-9_]{3,8}x", fullmatch=True), st.integers(-1000, 1000), numbers),
        min_size=1,
    ),
)
def test_senml(base: int, records: list[tuple[str, int, float]]) -> None:
    pack: list[dict[str, Any]] = [{"bn": "dev", "bt": base + 1000}]
    pack += [{"n": n, "t": t, "v": v} for n, t, v in records]
    result = read(json.dumps(pack).encode())
    assert isinstance(result, Decoded)
    assert not result.faults
    for (name, t, value), sample in zip(records, result.samples, strict=True):
        assert sample[:4] == ("dev", name, (base + 1000 + t) * 1_000_000, float(value))


@given(st.integers(1, 10**15 - 1), st.integers(0, 15), st.sampled_from(["", "-"]))
def test_fifteen_digits_come_back(digits: int, point: int, sign: str) -> None:
    text = f"{digits:016d}"
    written = f"{sign}{int(text[:point] or '0')}.{text[point:] or '0'}"
    result = read(
        f'{{"schema":"v1","ts":"2025-10-07T15:30:00Z","points":[{{"name":"a","v":{written}}}]}}'.encode()
    )
    assert isinstance(result, Decoded)
    number = result.samples[0][3]
    assert number is not None
    assert float(f"{number:.15g}") == number == float(written)


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


@pytest.mark.parametrize("bound", sorted(FORMATS))
def test_a_bound_device_is_read_as_its_format_alone(bound: str) -> None:
    messages = {
        "v1": {"schema": "v1", "ts": iso(0), "points": []},
        "parsec_v1": {"di1": 1, "ts": iso(0)},
        "je02_v1": {"INFO": {}},
        "senml": [{"n": "a", "v": 1}],
        "sensors": {"device_id": "d", "timestamp": iso(0), "sensors": []},
        "leituras": {"gateway_mac": "a", "timestamp": iso(0), "leituras": []},
    }
    for name, body in messages.items():
        result = read(json.dumps(body).encode(), bound=bound)
        if name == bound:
            assert isinstance(result, Decoded)
            assert (result.format, result.items) == (name, 1)
        else:
            assert isinstance(result, Reject)
            assert result.reason == "unknown_format"
            assert bound in result.sentence


def test_a_fault_says_which_field_and_shows_it() -> None:
    body = {
        "schema": "v1",
        "ts": iso(0),
        "points": [{"name": "a", "v": 1}, {"name": "warm", "t": "num", "v": "hot"}],
    }
    result = read(json.dumps(body).encode())
    assert isinstance(result, Decoded)
    (fault,) = result.faults
    assert fault.reason == "value"
    assert fault.pointer == "/points/1/v"
    assert fault.sentence == 'points[1].v (of "warm", declared num) is text, and must be a number'
    assert json.loads(fault.part or b"") == {"name": "warm", "t": "num", "v": "hot"}


def test_every_kind_of_route_is_covered() -> None:
    assert set(ROUTES) == set(get_args(Kind))


def test_metadata_is_read_once_for_each_text_of_it() -> None:
    payload = json.dumps({"schema": "v1", "ts": iso(0), "points": [], "meta": {"fw": "only-here"}}).encode()
    fields.raw_meta.cache_clear()
    with mock.patch.object(fields, "as_json", wraps=fields.as_json) as seen:
        results = [read(payload) for _ in range(5)]
    assert seen.call_count == 1
    assert all(isinstance(r, Decoded) and r.meta == b'{"fw":"only-here"}' for r in results)


def test_the_site_s_zone_is_the_naive_clock_s() -> None:
    zone = datetime.fromisoformat("2025-01-01T00:00:00-03:00").tzinfo
    payload = b'{"schema":"v1","ts":"2025-10-07T12:30:00","points":[{"name":"a","v":1}]}'
    result = decode(ROUTES["telem"], payload, zone=zone, now=NOW, max_skew_us=SKEW)
    assert isinstance(result, Decoded)
    assert iso(result.samples[0][2]) == "2025-10-07T15:30:00+00:00"
    assert result.samples[0][7] == 1


def test_the_format_in_the_docs_works() -> None:
    page = (Path(__file__).parents[2] / "docs/formats.md").read_text()
    space: dict[str, Any] = {}
    exec(page.split("```python\n")[1].split("```")[0], space)
    document = {"tally": 7, "at": "2025-10-07T15:30:00Z"}
    assert space["recognises"](document) is Match.KEYS
    assert space["recognises"]([]) is Match.NO
    assert space["decode"](document, context()).samples == [
        (None, "tally", 1_759_851_000_000_000, 7.0, None, None, None, 0)
    ]
