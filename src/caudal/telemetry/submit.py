"""Putting messages through the pipeline and hearing what each came to: for doors that are not MQTT.

HTTP ingest, replays of dead letters and the release of held messages all come in here, and so take the very
path that a device's publish takes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec

from caudal.core.errors import Unavailable
from caudal.mqtt.ports import Inbound, Principal
from caudal.telemetry.batch import Dead, Tally, Told
from caudal.telemetry.pipeline import Pipeline
from caudal.telemetry.storage import now_us

# How much is handed over before asking again whether there is room.
CHUNK = 256

Message = tuple[str, bytes, Principal]
"""(topic, payload, who sent it)."""


class Outcome(msgspec.Struct, frozen=True):
    """What one message came to, committed. `tally` counts its parts; `dead` are its dead letters."""

    tally: Tally
    dead: list[Dead]

    @property
    def accepted(self) -> bool:
        """Whether no part of it became a dead letter. What is held, or stored already, counts as accepted."""
        return not self.dead


class _Origin(Told):
    """One message's origin. It keeps the outcome, never the message (see mqtt.ports.Inbound)."""

    __slots__ = ("_future", "_outcome", "client_id", "principal")

    def __init__(self, principal: Principal, future: asyncio.Future[Outcome]) -> None:
        self.principal = principal
        self.client_id = ""
        self._future = future
        self._outcome: Outcome | None = None

    def tell(self, message: Inbound, outcome: Tally, dead: list[Dead]) -> None:
        self._outcome = Outcome(outcome, dead)

    def settle(self, messages: Sequence[Inbound], reason: int = 0) -> None:
        # Whoever waited may have gone (a client that hung up); the message is stored all the same.
        if self._future.done():
            return
        if self._outcome is None:
            self._future.set_exception(Unavailable("The message was not taken in. Send it again."))
        else:
            self._future.set_result(self._outcome)


async def submit(
    pipeline: Pipeline,
    messages: Sequence[Message],
    *,
    received: Sequence[int] | None = None,
    timeout: float | None = None,
) -> list[Outcome]:
    """Put `messages` through the whole path; returns, once all are committed, what each came to, in order.

    `received` are the instants of receipt (microseconds since 1970) of messages that came in earlier; left
    out, it is now. While the pipeline is full this waits for room, and while the database is away for its
    return; after `timeout` seconds it raises Unavailable. What was handed over by then may still be stored:
    who sends it again sends a duplicate, which is no harm.
    """
    loop = asyncio.get_running_loop()
    futures: list[asyncio.Future[Outcome]] = []
    try:
        async with asyncio.timeout(timeout):
            for start in range(0, len(messages), CHUNK):
                await pipeline.room()
                now = now_us()
                batch = []
                for index in range(start, min(start + CHUNK, len(messages))):
                    topic, payload, principal = messages[index]
                    future: asyncio.Future[Outcome] = loop.create_future()
                    futures.append(future)
                    at = now if received is None else received[index]
                    origin: Any = _Origin(principal, future)
                    batch.append(Inbound(topic, payload, 1, False, False, 0, origin, at))
                pipeline.submit(batch)
            return list(await asyncio.gather(*futures))
    except TimeoutError:
        raise Unavailable(
            "The database did not take the data in time. Send it again; what is stored stays stored once."
        ) from None
    finally:
        for future in futures:
            future.cancel()
