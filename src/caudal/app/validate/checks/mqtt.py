"""Both versions, every QoS, wrong credentials, and a connection that breaks with messages under way."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final

import msgspec

from caudal.app.validate.context import Context, Failed, now, v1
from caudal.app.validate.line import Refused
from caudal.app.validate.report import Area, Finding

AREA: Final[Area] = "telemetry"
NUMBER = 2
TITLE = "MQTT and reconnection"
UNDER_WAY = 50


async def run(context: Context, finding: Finding) -> None:
    await _every_qos(context, finding)
    if not context.load.broker:
        await _wrong_password(context, finding)
    await _reconnection(context, finding)
    finding.sentence = (
        f"MQTT 3.1.1 and 5 at QoS 0, 1 and 2; {UNDER_WAY} messages sent again after a broken connection are"
        " stored once each."
    )


async def _every_qos(context: Context, finding: Finding) -> None:
    for version in (4, 5):
        line = await context.line(f"v{version}", version=version)
        for qos in (0, 1, 2):
            device = context.device(f"mqtt-{version}-{qos}")
            future = line.publish(context.topic(device), msgspec.json.encode(v1(now(), {"n": qos})), qos=qos)
            await context.settled(future)
            rows = await context.eventually(lambda device=device: context.rows(device), bool)  # type: ignore[misc]
            finding.equal(f"Rows of a message at QoS {qos}, version {version}", len(rows), 1)
        finding.expect(not line.closed.is_set(), f"The connection of version {version} was closed.")


async def _wrong_password(context: Context, finding: Finding) -> None:
    name = f"t:{context.ground.tenant}:d:{context.device('nobody')}"
    stranger = msgspec.structs.replace(context.address, username=name, password=b"wrong")
    try:
        line = await context.line("stranger", address=stranger)
    except (Refused, ConnectionError):
        return
    line.close()
    finding.expect(False, "A device nobody knows came in with a password nobody gave it.")


async def _reconnection(context: Context, finding: Finding) -> None:
    device = context.device("reconnecting")
    began = now()
    payloads = [
        msgspec.json.encode(v1(began + timedelta(milliseconds=n), {"n": n})) for n in range(UNDER_WAY)
    ]
    topic = context.topic(device)
    line = await context.line("broken")
    futures = [line.publish(topic, payload) for payload in payloads]
    await asyncio.wait(futures, timeout=5, return_when=asyncio.FIRST_COMPLETED)
    line.drop()
    await asyncio.wait(futures, timeout=5)
    before = sum(future.exception() is None for future in futures if future.done())
    again = await context.line("broken")
    answers = [again.publish(topic, payload, dup=True) for payload in payloads]
    for answer in answers:
        await context.settled(answer)
    rows = await context.eventually(lambda: context.rows(device), lambda rows: len(rows) >= UNDER_WAY, 5)
    finding.measured["acknowledged_before_break"] = before
    finding.measured["sent_again"] = len(answers)
    finding.equal("Rows after sending again", len(rows), UNDER_WAY)
    if await context.letters(topic):
        raise Failed("What was sent again became dead letters.")
