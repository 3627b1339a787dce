"""Each format: valid messages come back whole."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caudal.telemetry import fields
from caudal.telemetry.decode import FORMATS, decode
from caudal.telemetry.formats import v1
from caudal.telemetry.model import Decoded, Match, Reject
from tests.telemetry.messages import (
    NOW,
    ROUTES,
    SKEW,
    context,
    instants,
    iso,
    names,
    numbers,
    read,
    storable,
    units,
)  # fmt: skip


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
    assert result == Decoded("parsec_v1", expected, (), None, facts)


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
