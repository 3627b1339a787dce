"""Recorded data read as it was measured: local times, gaps, hours that come twice."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from caudal.core.errors import InvalidInput
from caudal.telemetry.decode import decode
from caudal.telemetry.model import Decoded
from caudal.telemetry.recordings import messages, pauses, read
from caudal.telemetry.simulation import FORMATS, Faults, fleet, publish
from caudal.telemetry.topics import Scheme, TopicTable

TOPIC = "traksense/t/s/d/telem"


def test_local_times_and_gaps() -> None:
    lines = ["date,a,b", "2016-07-01 00:00:00,1.5,", "2016-07-01T01:00:00+02:00,x,2"]
    rows = list(read(lines, ZoneInfo("America/Sao_Paulo")))
    assert [(row.at.astimezone(UTC).isoformat(), row.values) for row in rows] == [
        ("2016-07-01T03:00:00+00:00", {"a": 1.5}), ("2016-06-30T23:00:00+00:00", {"b": 2.0}),
    ]  # fmt: skip
    assert pauses(rows, 60) == [0.0, 0.0]


def test_an_hour_that_comes_twice() -> None:
    lines = ["timestamp,value"] + [f"2017-10-29 0{h}:00:00,{n}" for n, h in enumerate((1, 2, 2, 3))]
    rows = list(read(lines, ZoneInfo("Europe/Berlin")))
    assert pauses(rows, 3600) == [0.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("lines", [["a,b", "1,2"], ["date,a", "yesterday,1"], []])
def test_what_is_no_recording(lines: list[str]) -> None:
    with pytest.raises(InvalidInput):
        list(read(lines, ZoneInfo("UTC")))


@pytest.mark.parametrize(
    ("name", "count", "columns"),
    [
        ("ETTh1.csv", 17_420, 7),
        ("machine_temperature_system_failure.csv", 22_695, 1),
        ("ambient_temperature_system_failure.csv", 7_267, 1),
    ],
)
def test_the_recordings_that_there_are(shared_dir: Path, name: str, count: int, columns: int) -> None:
    with (shared_dir / "data" / name).open(newline="") as lines:
        rows = list(read(lines, ZoneInfo("UTC")))
    assert len(rows) == count
    assert {len(row.values) for row in rows} == {columns}
    _, payload = next(messages(rows, TOPIC))
    assert json.loads(payload)["points"][-1]["v"] == rows[0].values[json.loads(payload)["points"][-1]["name"]]


@pytest.mark.parametrize("form", FORMATS)
def test_every_simulated_format_is_read_as_itself(form: str) -> None:
    now = datetime(2025, 10, 7, 15, tzinfo=UTC).timestamp()
    machine = fleet(1, 1, 1)[0]
    for topic, payload in publish(machine, "t", clock=lambda: now, topics=Scheme(), form=form, count=20):
        route = TopicTable().match(topic)
        assert route is not None
        decoded = decode(route, payload, now=int(now * 1e6), max_skew_us=10**6)
        assert isinstance(decoded, Decoded)
        assert decoded.format == form
        assert decoded.samples
        assert not decoded.faults


def test_faults_come_as_ordered() -> None:
    now = 1_759_851_000.0
    faults = Faults(late=0.1, duplicated=0.1, malformed=0.1, ahead=0.1)
    machines = fleet(2, 2, 3)
    sent = list(
        publish(machines[0], "t", clock=lambda: now, topics=Scheme(), faults=faults, seed=3, count=5000)
    )
    again = fleet(2, 2, 3)[0]
    assert sent == list(
        publish(again, "t", clock=lambda: now, topics=Scheme(), faults=faults, seed=3, count=5000)
    )
    assert len(sent) == 5000
    bad = late = ahead = 0
    for _, payload in sent:
        try:
            at = datetime.fromisoformat(json.loads(payload)["ts"]).timestamp()
        except (ValueError, TypeError, KeyError):
            bad += 1
            continue
        late += at < now - 3000
        ahead += at > now + 3000
    twice = sum(first == second for first, second in itertools.pairwise(sent))
    for count in (bad, late, ahead, twice):
        assert 250 < count < 900


def test_a_counter_grows_and_a_temperature_has_a_day() -> None:
    machine = fleet(1, 1, 5)[0]
    start = 1_759_795_200.0
    values = [machine.measure(start + 300 * step) for step in range(288)]
    energy = [float(v["energy_kwh"]) for v in values]
    assert energy == sorted(energy)
    assert energy[-1] > energy[0]
    temperatures = [float(v["temp_water"]) for v in values]
    assert 1.5 < max(temperatures) - min(temperatures) < 8
    assert max(abs(a - b) for a, b in itertools.pairwise(temperatures)) < 0.5
