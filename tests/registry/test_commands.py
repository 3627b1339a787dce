"""Commands: validated, idempotent, published, retried, settled by the device and never turned back."""

from __future__ import annotations

import asyncio
import json
from typing import Any, TypeAlias

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from caudal.core.db import tenant_transaction
from caudal.core.errors import Conflict, InvalidInput, NotFound
from caudal.registry import commands, devices, gateways, profiles
from caudal.registry.access import Access
from caudal.registry.commands import CommandIn
from caudal.registry.devices import DeviceIn
from caudal.registry.dispatch import Dispatcher
from caudal.registry.gateways import GatewayIn
from caudal.registry.profiles import CommandSpec, Param, ProfileIn

Pool: TypeAlias = "asyncpg.Pool[Any]"
SETPOINT = CommandSpec(
    "setpoint",
    [
        Param("value", "number", required=True, minimum=4, maximum=20),
        Param("mode", "text", choices=["eco", "full"]),
        Param("hold", "boolean"),
        Param("minutes", "integer", minimum=0),
    ],
    ack_seconds=10,
)
GOOD = CommandIn("setpoint", {"value": 7.5})


class Published:
    """Stands for the endpoint: what was published, and whether somebody took it."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.answer: bool | Exception = True

    async def publish(self, topic: str, payload: bytes, *, expiry: int) -> bool:
        assert expiry >= 1
        self.sent.append((topic, json.loads(payload)))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
async def device(app_pool: Pool) -> int:
    async with tenant_transaction(app_pool, "acme") as c:
        profile = (await profiles.create(c, ProfileIn("p", commands=[SETPOINT, CommandSpec("reset")]))).id
        return (await devices.create(c, DeviceIn("chiller", profile_id=profile))).id


async def send(app_pool: Pool, device: int, given: CommandIn = GOOD) -> commands.Command:
    async with tenant_transaction(app_pool, "acme") as c:
        return (await commands.create(c, device, given, by="ana"))[0]


async def acknowledge(
    ingest_pool: Pool, device: int, cmd_id: str, ok: bool = True, err: str | None = None
) -> None:
    """As the ingest writer does: one row a command."""
    await ingest_pool.execute(
        "insert into caudal.ack(tenant_id, device_id, cmd_id, ok, payload)"
        " select tenant_id, id, $2, $3, $4 from caudal.device where id = $1 on conflict do nothing",
        device, cmd_id, ok, {"err": err} if err else {},
    )  # fmt: skip


async def state(app_pool: Pool, command: int) -> tuple[str, str | None, list[str]]:
    async with tenant_transaction(app_pool, "acme") as c:
        found = await commands.get(c, command)
    return found.command.status, found.command.error, [event.status for event in found.history]


async def age(pool: Pool, seconds: int) -> None:
    """Let time pass for all commands."""
    await pool.execute(
        "update caudal.command set next_at = next_at - $1 * interval '1 s',"
        " expires_at = expires_at - $1 * interval '1 s', created_at = created_at - $1 * interval '1 s'",
        seconds,
    )


@pytest.mark.parametrize(
    "params",
    [{}, {"value": None}, {"value": "7"}, {"value": True}, {"value": 3}, {"value": 21}, {"value": 5, "x": 1},
     {"value": 5, "mode": "off"}, {"value": 5, "hold": 1}, {"value": 5, "minutes": 1.5},
     {"value": 5, "minutes": -1}, {"value": float("nan")}, {"value": 5, "mode": "\0"}],
)  # fmt: skip
def test_params_are_what_the_profile_says(params: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=r"params"):
        commands.check(SETPOINT, params)


def test_good_params() -> None:
    for params in ({"value": 4}, {"value": 20.0, "mode": "eco", "hold": False, "minutes": 3.0}):
        assert commands.check(SETPOINT, params) == params


async def test_sent_and_acknowledged(app_pool: Pool, ingest_pool: Pool, device: int) -> None:
    made = await send(app_pool, device)
    out = Published()
    dispatcher = Dispatcher(ingest_pool, out, Access())
    assert await dispatcher.step() == 1
    await dispatcher.landed()
    topic, payload = out.sent[0]
    assert topic == "traksense/acme/-/chiller/cmd"
    assert payload.pop("ts").endswith("Z")
    assert payload.pop("expires_at").endswith("Z")
    assert payload == {"schema": "v1", "cmd_id": made.cmd_id, "type": "setpoint", "params": {"value": 7.5}}
    assert await state(app_pool, made.id) == ("sent", None, ["pending", "sent"])
    assert await dispatcher.step() == 0
    await acknowledge(ingest_pool, device, made.cmd_id)
    assert await state(app_pool, made.id) == ("acknowledged", None, ["pending", "sent", "acknowledged"])
    async with tenant_transaction(app_pool, "rival") as c:
        with pytest.raises(NotFound):
            await commands.get(c, made.id)
        with pytest.raises(NotFound):
            await commands.create(c, device, GOOD)
        assert (await commands.find(c)).items == []


async def test_refusals(app_pool: Pool, pool: Pool, device: int) -> None:
    for wrong in (CommandIn("explode"), CommandIn("setpoint"), CommandIn("reset", expires_in=0),
                  CommandIn("reset", retries=20), CommandIn("reset", idempotency_key="\0")):  # fmt: skip
        with pytest.raises(InvalidInput):
            await send(app_pool, device, wrong)
    await pool.execute("update caudal.device set status = 'quarantined'")
    with pytest.raises(Conflict):
        await send(app_pool, device)


async def test_idempotent_also_at_once(app_pool: Pool, device: int) -> None:
    given = CommandIn("setpoint", {"value": 5}, idempotency_key="k")
    made = await asyncio.gather(*(send(app_pool, device, given) for _ in range(6)))
    assert len({command.id for command in made}) == 1
    with pytest.raises(Conflict, match="idempotency_key"):
        await send(app_pool, device, CommandIn("setpoint", {"value": 6}, idempotency_key="k"))


async def test_retried_and_timed_out(app_pool: Pool, ingest_pool: Pool, pool: Pool, device: int) -> None:
    made = await send(app_pool, device, CommandIn("setpoint", {"value": 5}, retries=1))
    out = Published()
    dispatcher = Dispatcher(ingest_pool, out, Access())
    for begun in (1, 0):
        assert await dispatcher.step() == begun
        await dispatcher.landed()
    await age(pool, 11)
    assert await dispatcher.step() == 1
    await dispatcher.landed()
    await age(pool, 11)
    assert await dispatcher.step() == 0
    status, error, steps = await state(app_pool, made.id)
    assert (status, steps) == ("timed_out", ["pending", "sent", "sent", "timed_out"])
    assert error == "the device has not answered"
    assert len({payload["cmd_id"] for _, payload in out.sent}) == 1
    # It had been executed all the same: the device's word beats our clock.
    await acknowledge(ingest_pool, device, made.cmd_id)
    assert (await state(app_pool, made.id))[0] == "acknowledged"


@pytest.mark.parametrize("answer", [False, OSError("gone")])
async def test_nobody_there(
    answer: bool | Exception, app_pool: Pool, ingest_pool: Pool, pool: Pool, device: int
) -> None:
    made = await send(app_pool, device, CommandIn("reset", expires_in=60))
    out = Published()
    out.answer = answer
    dispatcher = Dispatcher(ingest_pool, out, Access())
    for _ in range(3):
        assert await dispatcher.step() == 1
        await dispatcher.landed()
        await age(pool, 10)
    assert (await state(app_pool, made.id))[2] == ["pending"]  # no attempt, so no step in its history
    await age(pool, 60)
    assert await dispatcher.step() == 0
    assert (await state(app_pool, made.id))[0] == "expired"
    assert len(out.sent) == 3


async def test_a_slow_device_holds_up_nobody(app_pool: Pool, ingest_pool: Pool, device: int) -> None:
    slow = await send(app_pool, device)
    release = asyncio.Event()

    class Slow(Published):
        async def publish(self, topic: str, payload: bytes, *, expiry: int) -> bool:
            if json.loads(payload)["cmd_id"] == slow.cmd_id:
                await release.wait()
            return await super().publish(topic, payload, expiry=expiry)

    out = Slow()
    dispatcher = Dispatcher(ingest_pool, out, Access())
    await dispatcher.step()
    quick = await send(app_pool, device)
    await dispatcher.step()
    while not out.sent:
        await asyncio.sleep(0.01)
    assert out.sent[0][1]["cmd_id"] == quick.cmd_id
    release.set()
    await dispatcher.landed()
    assert len(out.sent) == 2


async def test_two_dispatchers_send_once(app_pool: Pool, ingest_pool: Pool, device: int) -> None:
    for _ in range(40):
        await send(app_pool, device)
    out = Published()
    both = [Dispatcher(ingest_pool, out, Access()) for _ in range(2)]
    await asyncio.gather(*(dispatcher.step() for dispatcher in both))
    for dispatcher in both:
        await dispatcher.landed()
    assert len(out.sent) == 40
    assert len({payload["cmd_id"] for _, payload in out.sent}) == 40


async def test_a_meter_is_reached_through_its_gateway(app_pool: Pool, ingest_pool: Pool, pool: Pool) -> None:
    async with tenant_transaction(app_pool, "acme") as c:
        gateway = (await gateways.create(c, GatewayIn("g", "aa:bb:cc:dd:ee:01"))).id
        profile = (await profiles.create(c, ProfileIn("m", commands=[CommandSpec("reset")]))).id
        meter = (await devices.create(c, DeviceIn(
            gateway_id=gateway, code="D1", kind="meter", modbus_register=1, modbus_slave=1,
            profile_id=profile,
        ))).id  # fmt: skip
    await send(app_pool, meter, CommandIn("reset"))
    out = Published()
    dispatcher = Dispatcher(ingest_pool, out, Access())
    await dispatcher.step()
    await dispatcher.landed()
    topic, payload = out.sent[0]
    assert topic == "tds_new/devices/aa:bb:cc:dd:ee:01/commands"
    assert payload["dispositivo_codigo"] == "D1"
    # A gateway has no topic to answer on: that it took the command is the end, and no time-out is invented.
    await pool.execute("update caudal.command set expires_at = now() - interval '1 day'")
    assert await dispatcher.step() == 0
    row = await pool.fetchrow("select status, error, attempts, settled_at from caudal.command")
    assert row is not None
    assert (row["status"], row["error"], row["attempts"]) == ("sent", None, 1)
    assert row["settled_at"] is not None


async def test_run_publishes_at_once(
    app_pool: Pool, ingest_pool: Pool, database_url: str, device: int
) -> None:
    out = Published()
    came = asyncio.Event()
    original = out.publish

    async def publish(topic: str, payload: bytes, *, expiry: int) -> bool:
        came.set()
        return await original(topic, payload, expiry=expiry)

    out.publish = publish  # type: ignore[method-assign]
    dispatcher = Dispatcher(ingest_pool, out, Access(), every_seconds=60)
    task = asyncio.create_task(dispatcher.run(lambda: asyncpg.connect(database_url)))
    try:
        while not dispatcher._wake.is_set() and not came.is_set():
            await send(app_pool, device)
            try:
                await asyncio.wait_for(came.wait(), 0.5)
            except TimeoutError:
                continue
        await asyncio.wait_for(came.wait(), 30)
    finally:
        task.cancel()
        await asyncio.wait([task])


STEPS = st.lists(st.sampled_from(["ok", "not ok", "sent", "timeout", "again"]), min_size=1, max_size=6)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
async def test_a_recorded_outcome_never_turns(
    steps: list[str], app_pool: Pool, ingest_pool: Pool, pool: Pool, device: int
) -> None:
    made = await send(app_pool, device, CommandIn("reset", retries=3))
    outcome: str | None = None
    dispatcher = Dispatcher(ingest_pool, Published(), Access())
    for step in steps:
        if step in ("ok", "not ok"):
            await acknowledge(ingest_pool, device, made.cmd_id, step == "ok", "no" if step != "ok" else None)
            outcome = outcome or ("acknowledged" if step == "ok" else "failed")
        elif step == "timeout":
            await age(pool, 400)
        await dispatcher.step()
        await dispatcher.landed()
        if outcome is not None:
            assert (await state(app_pool, made.id))[0] == outcome
