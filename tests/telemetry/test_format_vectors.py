"""The contract's vectors, as far as decoding alone goes: rows and dead letters, without a database."""

import base64
import json
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from caudal.telemetry.decode import FORMATS, decode
from caudal.telemetry.model import Decoded
from caudal.telemetry.timestamps import micros
from caudal.telemetry.topics import TopicTable

NOW = micros(datetime.fromisoformat("2026-06-01T00:00:00+00:00"))
STORED_LATER = {"unknown_device", "unknown_tenant", "conflict", "storage"}
"""Reasons that only a database can give."""
OURS = Path(__file__).parent / "vectors"
"""Cases beyond the contract's, one file a format; a row may leave out the topic's names."""
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


def vectors(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def check(vector: dict[str, Any]) -> None:
    text = vector.get("payload")
    payload = base64.b64decode(vector["payload_b64"]) if text is None else text.encode()
    rows, dead = read(vector["topic"], payload)
    route = TopicTable().match(vector["topic"])
    own = {"tenant_id": route.tenant, "device_id": route.device} if route else {}
    expected = [
        own | row | {"ts": micros(datetime.fromisoformat(row["ts"]))} for row in vector["expect"]["rows"]
    ]
    reasons = [d["reason"] for d in vector["expect"]["dead"]]
    if STORED_LATER.intersection(reasons):
        assert dead == []
    else:
        assert ordered(rows) == ordered(expected)
        assert Counter(dead) == Counter(reasons)


def test_every_vector_of_the_contract(shared_dir: Path, subtests: pytest.Subtests) -> None:
    found = vectors(shared_dir / "vectors/telemetry.jsonl")
    assert len(found) >= 24
    for vector in found:
        with subtests.test(vector["name"]):
            check(vector)


@pytest.mark.parametrize("file", sorted(OURS.glob("*.jsonl")), ids=lambda f: f.stem)
def test_every_vector_of_ours(file: Path, subtests: pytest.Subtests) -> None:
    for vector in vectors(file):
        with subtests.test(vector["name"]):
            check(vector)


def test_no_format_is_without_vectors() -> None:
    assert {file.stem for file in OURS.glob("*.jsonl")} >= set(FORMATS)
