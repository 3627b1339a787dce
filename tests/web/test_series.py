"""Series over HTTP: formats, limits, who may see what."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from arro3.io import read_ipc_stream

from caudal.insight import export
from caudal.registry.permissions import Role

START = datetime(2024, 5, 1, tzinfo=UTC)
SPAN = {"from": "2024-05-01T00:00:00Z", "to": "2024-05-02T00:00:00Z"}


class Points:
    """A tenant with a gauge, a counter and a state, one sample a minute for a day."""

    def __init__(self, api: Any) -> None:
        self.api = api

    async def make(self, tenant: str, minutes: int = 1440) -> dict[str, int]:
        number = await self.api.tenant(tenant)
        site = await self.api.admin.fetchval(
            "insert into caudal.site(tenant_id, name) values ($1, 'hall') returning id", number
        )
        device = await self.api.admin.fetchval(
            "insert into caudal.device(tenant_id, site_id, name) values ($1, $2, 'aa:bb/m1') returning id",
            number, site,
        )  # fmt: skip
        found = {}
        for name, kind in (("temp", "gauge"), ("valor", "counter"), ("mode", "state")):
            found[name] = await self.api.admin.fetchval(
                "insert into caudal.series(tenant_id, device_id, name, kind)"
                " values ($1, $2, $3, $4) returning id",
                number, device, name, kind,
            )  # fmt: skip
        for name, column, value in (
            ("temp", "v_num", "20 + i % 7 + 0.1"), ("valor", "v_num", "i * 0.5"),
            ("mode", "v_text", "case when i % 20 < 5 then 'STOP' else 'RUN' end"),
        ):  # fmt: skip
            await self.api.admin.execute(
                f"insert into caudal.sample(series, ts, received, {column})"
                f" select $1, $2::timestamptz + i * interval '1 minute', now(), {value}"
                " from generate_series(0, $3::int - 1) i", found[name], START, minutes,
            )  # fmt: skip
            await self.api.admin.execute(
                "insert into caudal.rollup_stale select distinct series, date_trunc('hour', ts)"
                " from caudal.sample where series = $1", found[name],
            )  # fmt: skip
        return found


@pytest.fixture
async def points(running_api: Any) -> Points:
    return Points(running_api)


async def test_data_comes_as_asked(points: Points) -> None:
    await points.make("a")
    headers = await points.api.headers("a", Role.VIEWER)
    get = points.api.client.get
    answer = await get(
        "/api/series/data", headers=headers,
        params={**SPAN, "series": ["aa:bb/m1/temp", "aa:bb/m1/valor"], "interval": "1h",
                "agg": ["avg", "last"]},
    )  # fmt: skip
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["interval"], body["truncated"], body["notes"]) == ("1h", False, [])
    assert [len(column["t"]) for column in body["series"]] == [24, 24]
    assert body["series"][1]["values"]["last"][0] == 59 * 0.5
    chosen = (await get("/api/series/data", headers=headers,
                        params={**SPAN, "series": "aa:bb/m1/temp", "pixels": 300})).json()  # fmt: skip
    assert chosen["interval"] == "5m"
    assert set(chosen["series"][0]["values"]) == {"avg", "min", "max"}


async def test_what_is_cut_off_or_coarser_is_said(points: Points) -> None:
    await points.make("a")
    headers = await points.api.headers("a", Role.VIEWER)
    raw = (await points.api.client.get(
        "/api/series/data", headers=headers,
        params={**SPAN, "series": "aa:bb/m1/temp", "interval": "raw", "limit": 100},
    )).json()  # fmt: skip
    assert raw["truncated"]
    assert len(raw["series"][0]["t"]) == 100
    assert raw["series"][0]["truncated_at"] == (START + timedelta(minutes=100)).timestamp() * 1000
    assert "temp" in raw["notes"][0]
    coarse = (await points.api.client.get(
        "/api/series/data", headers=headers,
        params={"from": "2024-01-01T00:00:00Z", "to": "2024-06-01T00:00:00Z",
                "series": "aa:bb/m1/temp", "interval": "1s"},
    )).json()  # fmt: skip
    assert coarse["interval"] != "1s"
    assert "1s" in coarse["notes"][0]
    for name in ("csv", "arrow", "parquet"):  # which have no place to say it
        refused = await points.api.client.get(
            "/api/series/data", headers=headers,
            params={"from": "2024-01-01T00:00:00Z", "to": "2024-06-01T00:00:00Z",
                    "series": "aa:bb/m1/temp", "interval": "1s", "format": name},
        )  # fmt: skip
        assert refused.status_code == 413
        assert "1s" in refused.text


@pytest.mark.parametrize("interval", ["raw", "15m"])
async def test_the_formats_hold_the_same(
    points: Points, interval: str, tmp_path: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(export, "PAGE", 500)  # several pages of each
    await points.make("a")
    headers = await points.api.headers("a", Role.VIEWER)
    params = {**SPAN, "series": ["aa:bb/m1/temp", "aa:bb/m1/mode"], "interval": interval}
    bodies = {}
    for name in ("csv", "arrow", "parquet"):
        answer = await points.api.client.get(
            "/api/series/data", headers=headers, params={**params, "format": name}
        )
        assert answer.status_code == 200, answer.text
        assert "attachment" in answer.headers["content-disposition"]
        bodies[name] = answer.content
    rows = list(csv.DictReader(io.StringIO(bodies["csv"].decode())))
    assert len(rows) == (2 * 1440 if interval == "raw" else 96)
    (tmp_path / "x.parquet").write_bytes(bodies["parquet"])
    parquet = duckdb.sql(f"select * replace (epoch_us(ts) as ts) from '{tmp_path}/x.parquet'").fetchall()
    arrow = read_ipc_stream(io.BytesIO(bodies["arrow"])).read_all()
    columns = [[cell.as_py() for cell in arrow[name]] for name in arrow.column_names]
    assert [tuple(row) for row in zip(*columns, strict=True)] == [
        (*row[:2], datetime.fromtimestamp(row[2] / 1e6, UTC), *row[3:]) for row in parquet
    ]
    name, place = ("v_num", 3) if interval == "raw" else ("max", 5)
    assert [row[name] and float(row[name]) for row in rows] == [
        "" if row[place] is None else row[place] for row in parquet
    ]
    assert rows[0]["ts"] == "2024-05-01T00:00:00Z"


@pytest.mark.parametrize("interval", ["1d", "raw"])
async def test_two_recorded_years_in_every_format_as_duckdb_has_them(
    points: Points, shared_dir: Path, tmp_path: Path, interval: str
) -> None:
    api, file = points.api, shared_dir / "data" / "ETTh1.csv"
    number = await api.tenant("ett")
    device = await api.admin.fetchval(
        "insert into caudal.device(tenant_id, name) values ($1, 'transformer') returning id", number
    )
    names = ("HUFL", "OT")
    for name in names:
        series = await api.admin.fetchval(
            "insert into caudal.series(tenant_id, device_id, name) values ($1, $2, $3) returning id",
            number, device, name,
        )  # fmt: skip
        rows = duckdb.sql(f"select date, {name} from read_csv('{file}') order by 1").fetchall()
        rows = [(series, at.replace(tzinfo=UTC), at.replace(tzinfo=UTC), value) for at, value in rows]
        await api.admin.copy_records_to_table(
            "sample", schema_name="caudal", records=rows, columns=["series", "ts", "received", "v_num"]
        )
        await api.admin.execute(
            "insert into caudal.rollup_stale select distinct series, ts from caudal.sample where series = $1",
            series,
        )
    headers = await api.headers("ett", Role.VIEWER)
    query = {
        "from": "2016-07-01T00:00:00Z", "to": "2018-07-01T00:00:00Z", "interval": interval,
        "series": [f"transformer/{name}" for name in names],
    }  # fmt: skip
    found = {}
    for name in ("json", "csv", "arrow", "parquet"):
        params = {**query, "format": name, **({"limit": 20_000} if interval == "raw" else {})}
        answer = await api.client.get("/api/series/data", headers=headers, params=params)
        assert answer.status_code == 200, answer.text
        found[name] = answer.content
    part = "date_trunc('day', date)" if interval == "1d" else "date"
    true = [
        row
        for name in names
        for row in duckdb.sql(
            f"select '{name}', epoch_ms({part}), avg({name}), min({name}), max({name})"
            f" from read_csv('{file}') group by all order by 2"
        ).fetchall()
    ]
    raw = interval == "raw"
    answer = json.loads(found["json"])
    assert not answer["truncated"]
    keys = ("value",) * 3 if raw else ("avg", "min", "max")
    said = [
        (column["series"]["point"], t, *values)
        for column in answer["series"]
        for t, *values in zip(column["t"], *(column["values"][key] for key in keys), strict=True)
    ]
    assert [row[:2] for row in said] == [row[:2] for row in true]
    assert [row[2:] for row in said] == [pytest.approx(row[2:], rel=1e-9) for row in true]
    columns = ("v_num",) * 3 if raw else ("avg", "min", "max")
    rows = list(csv.DictReader(io.StringIO(found["csv"].decode())))
    as_csv = [
        (row["point_id"], int(datetime.fromisoformat(row["ts"]).timestamp() * 1000),
         *(float(row[column]) for column in columns))
        for row in rows
    ]  # fmt: skip
    assert as_csv == said
    (tmp_path / "x.parquet").write_bytes(found["parquet"])
    parquet = duckdb.sql(
        f"select point_id, epoch_ms(ts), {', '.join(columns)} from '{tmp_path}/x.parquet'"
    ).fetchall()
    assert parquet == said
    arrow = read_ipc_stream(io.BytesIO(found["arrow"])).read_all()
    cells = [[cell.as_py() for cell in arrow[name]] for name in ("point_id", "ts", *columns)]
    assert [(p, int(t.timestamp() * 1000), *v) for p, t, *v in zip(*cells, strict=True)] == said


async def test_a_table_too_long_is_refused_and_not_cut(points: Points, monkeypatch: Any) -> None:
    monkeypatch.setattr(export, "MAX_ROWS", 1000)
    await points.make("a")
    answer = await points.api.client.get(
        "/api/series/data", headers=await points.api.headers("a", Role.VIEWER),
        params={**SPAN, "series": "aa:bb/m1/temp", "interval": "raw", "format": "csv"},
    )  # fmt: skip
    assert answer.status_code == 413
    assert "1,440" in answer.json()["detail"]


async def test_consumption_states_and_latest(points: Points) -> None:
    await points.make("a")
    headers = await points.api.headers("a", Role.VIEWER)
    get = points.api.client.get
    used = (await get("/api/series/consumption", headers=headers,
                      params={**SPAN, "series": "aa:bb/m1/valor", "unit": "day"})).json()  # fmt: skip
    assert used["series"][0]["buckets"] == [
        {"start": "2024-05-01T00:00:00Z", "total": 719.5, "readings": 1440, "resets": 0}
    ]
    refused = await get(
        "/api/series/consumption", headers=headers, params={**SPAN, "series": "aa:bb/m1/temp"}
    )
    assert refused.status_code == 400
    states = (await get("/api/series/states", headers=headers,
                        params={**SPAN, "series": "aa:bb/m1/mode", "interval": "1d"})).json()  # fmt: skip
    column = states["series"][0]
    assert column["states"] == {"RUN": [15 * 60 * 72.0], "STOP": [5 * 60 * 72.0]}
    assert column["unknown"] == [0.0]
    for site in ("hall", None):
        found = (
            await get("/api/series/latest", headers=headers, params={"site": site} if site else {})
        ).json()
        values = {item["point"]: item["value"] for item in found["items"]}
        assert values == {"temp": 20 + 1439 % 7 + 0.1, "valor": 719.5, "mode": "RUN"}
    assert (await get("/api/series/latest?site=none", headers=headers)).status_code == 404


async def test_no_tenant_sees_another_s(points: Points) -> None:
    theirs = await points.make("a", 60)
    own = await points.make("b", 60)
    headers = await points.api.headers("b", Role.OWNER)
    get = points.api.client.get
    for path in ("data", "consumption", "states"):
        for name in (str(theirs["valor"]), f"{own['valor']}"):
            answer = await get(f"/api/series/{path}", headers=headers, params={**SPAN, "series": name})
            assert answer.status_code == (200 if name == str(own["valor"]) else 404)
    latest = (await get("/api/series/latest", headers=headers)).json()["items"]
    assert {item["id"] for item in latest} == set(own.values())
    # Nor does anything below the API: the functions themselves answer for the tenant alone.
    async with points.api.parts.pool.acquire() as connection, connection.transaction():
        await connection.execute("select set_config('app.tenant_id', 'b', true)")
        assert await connection.fetchval(
            "select count(*) from caudal.series_samples($1, $2, $3, 10)",
            list(theirs.values()), START, START + timedelta(days=1),
        ) == 0  # fmt: skip
        assert (
            await connection.fetchval("select count(*) from caudal.series_latest($1)", list(theirs.values()))
            == 0
        )


@pytest.mark.parametrize(
    "params",
    [{"interval": "7h"}, {"interval": "x"}, {"from": "2024-05-03T00:00:00Z"}, {"from": "2024-05-01T00:00:00"},
     {"zone": "Mars/Olympus"}, {"zone": "../../etc/passwd"}, {"agg": "median"}, {"agg": "sum"}, {"pixels": 0},
     {"limit": 0}, {"format": "xlsx"}],
)  # fmt: skip
async def test_what_makes_no_sense_is_refused_with_a_sentence(points: Points, params: dict[str, Any]) -> None:
    await points.make("a", 10)
    answer = await points.api.client.get(
        "/api/series/data", headers=await points.api.headers("a", Role.VIEWER),
        params={**SPAN, "series": "aa:bb/m1/temp", **params},
    )  # fmt: skip
    assert answer.status_code == 400, answer.text
    assert answer.json()["detail"]


async def test_members_see_no_telemetry(points: Points) -> None:
    await points.make("a", 10)
    headers = await points.api.headers("a", Role.MEMBER)
    assert (await points.api.client.get("/api/series/latest", headers=headers)).status_code == 403


async def test_a_replaced_dial_is_noted_shown_and_taken_back(points: Points) -> None:
    ids = await points.make("a")
    api, path = points.api, f"/api/points/{ids['valor']}/replacements"
    boss, viewer = await api.headers("a", Role.ADMIN), await api.headers("a", Role.VIEWER)
    stranger = await api.headers("b", Role.ADMIN) if await api.tenant("b") else {}
    at = "2024-05-01T12:00:00Z"
    query = {**SPAN, "series": str(ids["valor"]), "unit": "day"}

    async def total() -> float:
        answer = await api.client.get("/api/series/consumption", params=query, headers=viewer)
        found: float = answer.json()["series"][0]["total"]
        return found

    # Half a unit a minute; at noon the dial shows 360. The old one is said to have ended 40 later.
    assert await total() == 719.5
    refused = [
        ({"at": at, "final_reading": 100}, "final_reading"),
        ({"at": at, "start_reading": 999}, "start_reading"),
        ({"at": "2024-05-01T12:00:00"}, "offset"),
        ({"at": "9999-01-01T00:00:00Z"}, "now"),
        ({"at": at, "start_reading": 1e300}, "start_reading"),
        ({"at": at, "nonsense": 1}, "nonsense"),
    ]  # fmt: skip
    for body, word in refused:
        answer = await api.client.post(path, json=body, headers=boss)
        assert answer.status_code in (400, 422), (body, answer.text)
        assert word in answer.text
    body = {"at": at, "final_reading": 399.5, "start_reading": 350, "note": "changed by Rui"}
    assert (await api.client.post(path, json=body, headers=viewer)).status_code == 403
    assert (await api.client.post(path, json=body, headers=stranger)).status_code == 404
    made = await api.client.post(path, json=body, headers=boss)
    assert made.status_code == 201, made.text
    assert (await api.client.post(path, json=body, headers=boss)).status_code == 409
    # 399.5 on the old dial, and from 350 to 719.5 on the new one.
    assert await total() == 399.5 + 369.5
    listed = (await api.client.get(path, headers=viewer)).json()["items"]
    assert [(one["final_reading"], one["start_reading"], one["note"]) for one in listed] == [
        (399.5, 350.0, "changed by Rui")
    ]
    assert (await api.client.get(path, headers=stranger)).status_code == 404
    gone = await api.client.delete(f"{path}/{made.json()['id']}", headers=boss)
    assert gone.status_code == 204
    assert await total() == 719.5
    gauge = await api.client.post(f"/api/points/{ids['temp']}/replacements", json={"at": at}, headers=boss)
    assert gauge.status_code == 400
    assert "counter" in gauge.text
