"""Acks and events: each stands or falls as one."""

import json
from typing import Any

import pytest

from caudal.telemetry.decode import decode
from caudal.telemetry.model import SUSPECT, Ack, Decoded, Event, Reject
from caudal.telemetry.timestamps import from_iso
from caudal.telemetry.topics import Route

TS = "2025-10-07T15:30:00Z"
US = from_iso(TS, None)[0]
ACK = {"schema": "v1", "cmd_id": "c-1", "ok": True, "ts_exec": TS, "err": None}
EVENT = {"schema": "v1", "event_id": "e-1", "event_type": "door", "ts": TS, "data": {"open": True}}


def read(kind: str, body: object) -> Decoded | Reject:
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    return decode(Route(kind, "t", "s", "d"), payload, now=US, max_skew_us=1)  # type: ignore[arg-type]


def test_ack() -> None:
    result = read("ack", ACK)
    assert isinstance(result, Decoded)
    assert (result.items, result.samples, result.event) == (1, [], None)
    assert isinstance(result.ack, Ack)
    assert (result.ack.cmd_id, result.ack.ok, result.ack.ts_exec, result.ack.err) == ("c-1", True, US, None)
    assert json.loads(result.ack.payload) == ACK


@pytest.mark.parametrize(
    ("change", "err"),
    [({"err": "E42: valve"}, "E42: valve"), ({"err": {"code": 42}}, '{"code":42}'), ({}, None)],
)
def test_a_failed_ack_keeps_the_device_s_words(change: dict[str, Any], err: str | None) -> None:
    result = read("ack", {"schema": "v1", "cmd_id": "c", "ok": False, **change})
    assert isinstance(result, Decoded)
    assert result.ack is not None
    assert (result.ack.ok, result.ack.ts_exec, result.ack.err) == (False, None, err)


def test_event() -> None:
    result = read("event", EVENT)
    assert isinstance(result, Decoded)
    assert result.event == Event("e-1", "door", US, b'{"open":true}', 0)
    assert result.items == 1


def test_event_with_little() -> None:
    result = read("event", {"schema": "v1", "event_type": "door", "ts": "2025-10-07T15:30:00"})
    assert isinstance(result, Decoded)
    assert result.event == Event(None, "door", US, None, SUSPECT)


@pytest.mark.parametrize(
    ("kind", "body", "reason", "pointer"),
    [
        ("ack", b"", "json", "byte 0"),
        ("ack", b"\xff", "encoding", "byte 0"),
        ("ack", [], "schema", ""),
        ("ack", {}, "schema", "/schema"),
        ("ack", {**ACK, "schema": 1}, "schema", "/schema"),
        ("ack", {**ACK, "cmd_id": ""}, "schema", "/cmd_id"),
        ("ack", {**ACK, "cmd_id": 7}, "schema", "/cmd_id"),
        ("ack", {**ACK, "cmd_id": "x" * 257}, "too_large", "/cmd_id"),
        ("ack", {**ACK, "cmd_id": "x\0"}, "value", "/cmd_id"),
        ("ack", {**ACK, "ok": 1}, "schema", "/ok"),
        ("ack", {**ACK, "ok": None}, "schema", "/ok"),
        ("ack", {**ACK, "ts_exec": "soon"}, "timestamp", "/ts_exec"),
        ("ack", {**ACK, "ts_exec": 5}, "timestamp", "/ts_exec"),
        ("ack", {**ACK, "err": "a\0"}, "value", "/err"),
        ("ack", {**ACK, "more": "a\0"}, "value", ""),
        ("event", {**EVENT, "event_type": None}, "schema", "/event_type"),
        ("event", {**EVENT, "event_id": 5}, "schema", "/event_id"),
        ("event", {**EVENT, "ts": None}, "schema", "/ts"),
        ("event", {**EVENT, "ts": "no"}, "timestamp", "/ts"),
        ("event", {**EVENT, "data": {"a": ["\0"]}}, "value", "/data"),
        (
            "event",
            b'{"schema":"v1","event_type":"a","ts":"2025-10-07T15:30:00Z","data":1e999}',
            "value",
            "/data",
        ),
    ],
)
def test_refused(kind: str, body: object, reason: str, pointer: str) -> None:
    result = read(kind, body)
    assert isinstance(result, Reject)
    assert (result.reason, result.pointer) == (reason, pointer)
    assert pointer.removeprefix("/") in result.sentence or pointer.startswith("byte")
