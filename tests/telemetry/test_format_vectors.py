"""The contract's vectors, as far as decoding alone goes: rows and dead letters, without a database."""

import base64
import json
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from caudal.telemetry.decode import decode
from caudal.telemetry.model import Decoded
from caudal.telemetry.timestamps import micros
from caudal.telemetry.topics import TopicTable

NOW = micros(datetime.fromisoformat("2026-06-01T00:00:00+00:00"))
STORED_LATER = {"unknown_device", "unknown_tenant", "conflict", "storage"}
"""Reasons that only a database can give."""
COLUMNS = ("device_id", "point_id", "ts", "v_num", "v_bool", "v_text", "unit", "qual")


def read(topic: str, payload: bytes) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows as `ts_measure` shows them, and the reasons of what is dead."""
    route = TopicTable().match(topic)
    if route is None:
        return [], ["topic"]
    result = decode(route, payload, now=NOW, max_skew_us=60_000_000)
    if not isinstance(result, Decoded):
        return [], [result.reason]
    rows = []
    for sample in result.samples:
        row = dict(zip(COLUMNS, sample, strict=True), tenant_id=route.tenant)
        rows.append(row if row["device_id"] is not None else row | {"device_id": route.device})
    return rows, [fault.reason for fault in result.faults]


def ordered(rows: list[dict[str, Any]]) -> list[list[tuple[str, Any]]]:
    return sorted((sorted(row.items()) for row in rows), key=repr)


def test_every_vector(shared_dir: Path, subtests: pytest.Subtests) -> None:
    vectors = [json.loads(line) for line in (shared_dir / "vectors/telemetry.jsonl").read_text().splitlines()]
    assert len(vectors) >= 24
    for vector in vectors:
        with subtests.test(vector["name"]):
            text = vector.get("payload")
            payload = base64.b64decode(vector["payload_b64"]) if text is None else text.encode()
            rows, dead = read(vector["topic"], payload)
            expected = [
                row | {"ts": micros(datetime.fromisoformat(row["ts"]))} for row in vector["expect"]["rows"]
            ]
            reasons = [d["reason"] for d in vector["expect"]["dead"]]
            if STORED_LATER.intersection(reasons):
                assert dead == []
            else:
                assert ordered(rows) == ordered(expected)
                assert Counter(dead) == Counter(reasons)
