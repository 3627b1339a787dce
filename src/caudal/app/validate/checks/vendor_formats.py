"""What devices in the field send: parsec, JE02, SenML, sensor lists, meters behind gateways, EMQX's way."""

from __future__ import annotations

import secrets
from datetime import datetime
from typing import Any, Final

import msgspec

from caudal.app.validate.context import Context, now
from caudal.app.validate.report import Area, Finding
from caudal.telemetry.topics import Kind

AREA: Final[Area] = "telemetry"
NUMBER = 4
TITLE = "Vendor formats"

READINGS = """
select valor::float8 as valor, unidade, time from tds_new_leitura_dispositivo l
join tds_new_gateway g on g.id = l.gateway_id where g.mac = $1
"""


async def run(context: Context, finding: Finding) -> None:
    at = now().replace(microsecond=0)
    unix = int(at.timestamp())
    cases: dict[str, tuple[Kind, Any, dict[str, Any]]] = {
        "parsec_v1": (
            "telem", {"di1": 1, "di2": 0, "rssi": -67, "ts": at.isoformat()},
            {"status": "RUN", "fault": False, "rssi": -67.0},
        ),
        "je02_v1": (
            "telem",
            {"DATA": {"TS": unix, "INPUT1": 1, "INPUT2": 0, "VAR0": 235, "VAR1": 601, "WRSSI": -60}},
            {"status": "RUN", "fault": False, "var0": 23.5, "var1": 60.1, "rssi": -60.0},
        ),
        "senml": (
            "asset", [{"bn": "", "bt": unix, "n": "A", "u": "Cel", "v": 21.5}], {"A_temp": 21.5},
        ),
        "sensors": (
            "asset",
            {"device_id": "", "timestamp": at.isoformat(), "sensors": [{"sensor_id": "t", "value": 4.25}]},
            {"t": 4.25},
        ),
    }  # fmt: skip
    for name, (kind, payload, wanted) in cases.items():
        device = context.device(name)
        if name == "senml":
            payload[0]["bn"] = device
        elif name == "sensors":
            payload["device_id"] = device
        await context.send(context.topic(device, kind), payload)
        await _compare(context, finding, name, device, wanted, at)
    await _meters(context, finding, at)
    await _over_http(context, finding, at)
    finding.measured["formats"] = len(cases) + 2
    finding.sentence = f"{', '.join(cases)}, leituras behind a gateway, and emqx over HTTP."


async def _compare(
    context: Context, finding: Finding, name: str, device: str, wanted: dict[str, Any], at: datetime
) -> None:
    rows = await context.rows(device)
    found = {
        row["point_id"]: next((row[c] for c in ("v_num", "v_bool", "v_text") if row[c] is not None), None)
        for row in rows
    }
    finding.equal(name, found, wanted)
    finding.equal(f"Times of {name}", {row["ts"] for row in rows}, {at})


async def _meters(context: Context, finding: Finding, at: datetime) -> None:
    # Locally administered, so no box in the field has it.
    mac = "02:" + ":".join(f"{byte:02x}" for byte in secrets.token_bytes(5))
    await context.ground.admin.execute(
        "insert into caudal.gateway(tenant_id, code, mac) values ($1, $2, $3)",
        context.ground.tenant_id, f"V{context.ground.run}".upper(), mac,
    )  # fmt: skip
    readings = [
        {"dispositivo_codigo": code, "valor": value, "unidade": "kWh"}
        for code, value in (("M1", 10.5), ("M2", -3.25))
    ]
    payload = {"gateway_mac": mac.upper(), "timestamp": at.isoformat(), "leituras": readings}
    await context.send(context.topic(mac, "meter"), payload)
    rows = await context.ground.reader.fetch(READINGS, mac)
    found = sorted((row["valor"], row["unidade"], row["time"]) for row in rows)
    finding.equal("leituras", found, [(-3.25, "kWh", at), (10.5, "kWh", at)])


async def _over_http(context: Context, finding: Finding, at: datetime) -> None:
    device = context.device("http")
    inner = {"schema": "v1", "ts": at.isoformat(), "points": [{"name": "n", "v": 5}]}
    body = {
        "client_id": device, "topic": context.topic(device), "ts": int(at.timestamp() * 1000) + 5000,
        "payload": msgspec.json.encode(inner).decode(),
    }  # fmt: skip
    answer = await context.call("POST", "/api/ingest", body)
    if finding.equal("Answer to telemetry over HTTP", answer.status_code, 202):
        context.acknowledged += 1
    # Right after the answer: 202 is a promise as PUBACK is.
    await _compare(context, finding, "emqx over HTTP", device, {"n": 5.0}, at)
