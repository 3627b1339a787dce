"""Payloads of every kind, as strategies, and what must hold of whatever is made of them."""

import json
import math
from datetime import timedelta
from typing import get_args

from hypothesis import strategies as st

from caudal.telemetry import fields
from caudal.telemetry.decode import decode
from caudal.telemetry.fields import Context
from caudal.telemetry.model import NAME_MAX, TEXT_MAX, UNIT_MAX, Decoded, Fault, Limits, Reason, Reject
from caudal.telemetry.timestamps import EPOCH, MAX_US, MIN_US
from caudal.telemetry.topics import Route

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


def context(limits: Limits | None = None) -> Context:
    return Context(ROUTES["telem"], None, NOW, NOW + SKEW, limits or Limits())
