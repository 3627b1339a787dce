"""Publishing commands: a task that takes what is due, and dates what got no answer.

Any number of processes may run it; each command is claimed by one at a time. A crash between the publishing
and its record costs a repetition (a device knows a command by its `cmd_id`), never a command.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Protocol

import asyncpg

from caudal.core import logs
from caudal.core.notifications import listen_for_ever

from . import commands
from .access import Access, addressable

log = logs.get("commands")

IN_FLIGHT = 500
"""Commands being published at a time; a device that does not answer holds up none but itself."""


class CommandPublisher(Protocol):
    """Brings a command to its device: our endpoint, or a broker."""

    async def publish(self, topic: str, payload: bytes, *, expiry: int) -> bool:
        """Publish at QoS 1. True once the device (or the broker) has acknowledged it; False when nobody is
        there to take it. `expiry` is in seconds: it is of no use later. Raises when it cannot be known."""


# What is due: pending and not yet expired, or sent and without an answer in its time.
_CLAIM = """
update caudal.command c set next_at = now() + make_interval(secs => c.ack_seconds + 5)
from (
  select id from caudal.command
  where next_at <= now() and expires_at > now() and attempts < max_attempts and status in ('pending', 'sent')
  order by next_at limit $1 for update skip locked
) due
where c.id = due.id
returning c.id, c.cmd_id, c.name, c.params, c.created_at, c.expires_at, c.status, c.ack_seconds,
  (select t.name from caudal.tenant t where t.id = c.tenant_id) as tenant"""

_ADDRESS = """
select c.id, d.name as device, coalesce(s.name, '-') as site, coalesce(g.mac, own.mac) as mac, d.code
from caudal.command c left join caudal.device d on d.id = c.device_id
left join caudal.site s on s.id = d.site_id left join caudal.gateway g on g.id = d.gateway_id
left join caudal.gateway own on own.id = c.gateway_id
where c.id = any($1)"""

_SENT = """
update caudal.command set status = 'sent', sent_at = now(), error = null, attempts = attempts + 1,
  next_at = now() + make_interval(secs => ack_seconds)
where id = $1 and status in ('pending', 'sent')"""

# A gateway has no topic to answer on: that it has taken the command is all that there will be to know.
_TAKEN = """
update caudal.command set status = 'sent', sent_at = now(), settled_at = now(), error = null,
  attempts = attempts + 1, next_at = null
where id = $1 and status in ('pending', 'sent')"""

# Nobody was there: it was no attempt. It is offered again: soon at first (the device may be connected to
# another process, whose turn may be next), then less and less often.
_AWAY = """
update caudal.command set error = $2,
  next_at = least(expires_at, now()
    + least(greatest((now() - created_at) / 4, interval '0.5 s'), interval '30 s'))
where id = $1 and status in ('pending', 'sent')"""

_OVERDUE = """
update caudal.command set next_at = null, settled_at = now(),
  status = case when sent_at is null then 'expired' else 'timed_out' end,
  error = case when sent_at is null then coalesce(error, 'the device was not there in time')
          else 'the device has not answered' end
where status in ('pending', 'sent') and next_at is not null
  and (expires_at <= now() and (sent_at is null or next_at <= now())
       or next_at <= now() and attempts >= max_attempts)
returning id"""


class Dispatcher:
    """Publishes due commands through `publisher`. `run` is a task for the life of the process."""

    def __init__(
        self,
        pool: asyncpg.Pool[Any],
        publisher: CommandPublisher,
        rules: Access,
        *,
        every_seconds: float = 1.0,
    ) -> None:
        self._pool = pool
        self._publisher = publisher
        self._rules = rules
        self._every = every_seconds
        self._wake = asyncio.Event()
        self._flying: set[asyncio.Task[None]] = set()

    def wake(self, _payload: str = "") -> None:
        """There may be something to do (channel `caudal_command`)."""
        self._wake.set()

    async def step(self) -> int:
        """Begin to publish what is due, and settle what got no answer; returns how many were begun."""
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(_OVERDUE)
            claimed = await connection.fetch(_CLAIM, IN_FLIGHT - len(self._flying))
            addresses = await connection.fetch(_ADDRESS, [row["id"] for row in claimed])
        where = {row["id"]: row for row in addresses}
        for row in claimed:
            task = asyncio.create_task(self._send(row, where[row["id"]]), name=f"command {row['id']}")
            self._flying.add(task)
            task.add_done_callback(self._landed)
        return len(claimed)

    def _landed(self, task: asyncio.Task[None]) -> None:
        if len(self._flying) >= IN_FLIGHT:
            self._wake.set()
        self._flying.discard(task)
        if not task.cancelled() and (error := task.exception()):
            # Its claim runs out, and it is due again.
            log.warning("a command's state could not be written", error=repr(error))

    async def landed(self) -> None:
        """Return once nothing is being published."""
        while self._flying:
            await asyncio.wait(self._flying)

    def _topics(self, tenant: str, address: Any) -> tuple[tuple[str, ...], bool]:
        """The device's own topics, or its gateway's where its name cannot stand on one; whether acks come."""
        device, mac = address["device"], address["mac"]
        if device is not None and addressable(device):
            site = address["site"] if addressable(address["site"]) else "-"
            return self._rules.filters("cmd", tenant=tenant, site=site, device=device), True
        return () if mac is None else self._rules.filters("meter_cmd", mac=mac), False

    async def _send(self, row: Any, address: Any) -> None:
        topics, answers = self._topics(row["tenant"], address)
        if not topics:
            await self._pool.execute(
                "update caudal.command set status = 'failed', next_at = null, settled_at = now(),"
                " error = 'no topic for commands takes in the device, or its name cannot stand on one'"
                " where id = $1",
                row["id"],
            )
            return
        body = commands.payload({**dict(row), "mac": address["mac"], "code": address["code"]})
        # Nobody keeps it for a device beyond the moment at which it is offered again.
        expiry = int(min(row["ack_seconds"], (row["expires_at"] - datetime.now(UTC)).total_seconds()))
        try:
            async with asyncio.timeout(row["ack_seconds"]):
                # Where there are several schemes, which one the device listens to is for it to know.
                taken = False
                for topic in topics:
                    taken = taken or await self._publisher.publish(topic, body, expiry=max(1, expiry))
            why = "nobody is subscribed to the device's commands"
        except TimeoutError:
            taken, why = False, "the device did not take it in time"
        except Exception as error:
            taken, why = False, f"publishing failed: {error!r}"[:500]
            log.warning("a command could not be published", command=row["id"], error=repr(error))
        if taken:
            await self._pool.execute(_SENT if answers else _TAKEN, row["id"])
        else:
            await self._pool.execute(_AWAY, row["id"], why)

    async def run(self, connect: Callable[[], Awaitable[asyncpg.Connection[Any]]]) -> None:
        """Dispatch for ever: after a notification, and every `every_seconds` for what time makes due."""
        listener = asyncio.create_task(
            listen_for_ever(connect, {"caudal_command": self.wake}, on_gap=self.wake), name="command listener"
        )
        try:
            while True:
                self._wake.clear()
                try:
                    await self.step()
                except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                    log.warning("commands cannot be read; trying again", error=repr(error))
                    await asyncio.sleep(1)
                try:
                    await asyncio.wait_for(self._wake.wait(), self._every)
                except TimeoutError:
                    pass
        finally:
            for task in (listener, *self._flying):
                task.cancel()
            await asyncio.wait([listener, *self._flying])
