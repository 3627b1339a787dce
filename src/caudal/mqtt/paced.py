"""When a connection is read and when not: why it waits, its turns, and its keep-alive meanwhile."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from .codec import PINGRESP
from .codes import Reason
from .ports import Counters
from .stream import PacketStream
from .turns import Turns
from .wheel import Wheel

if TYPE_CHECKING:
    from .session import Session

# Why we do not read from a connection; it is read again when no reason is left.
PAUSE_SINK, PAUSE_OWN, PAUSE_WRITE, PAUSE_AUTH, PAUSE_SHARE, PAUSE_QUOTA, PAUSE_TURN = 1, 2, 4, 8, 16, 32, 64
MOMENTARY = PAUSE_AUTH | PAUSE_TURN  # nothing that a device, or who looks at the metrics, could notice


class Paced(PacketStream):
    """The transport of a client's connection, and whether it is read. A subclass says what is read."""

    __slots__ = ("_transport", "answered", "congested", "keep_alive", "kept", "paused", "session", "slot")

    def __init__(self, wheel: Wheel, turns: Turns, counters: Counters, max_packet: int) -> None:
        super().__init__(wheel, turns, counters, max_packet)
        self.session: Session | None = None
        self.slot = -1
        self.keep_alive = 0
        self.kept = 0  # bytes of a chunk that wait because it was held back, for longer than its turn
        self.paused = 0
        self.answered = 0  # when it had an answer to a PINGREQ, asked for or not; by the wheel's clock
        self.congested = False
        self._transport: asyncio.Transport | None = None

    def shut(self, reason: Reason, *, will: bool = True) -> None:
        """Tells an MQTT 5 client why, and hangs up."""
        raise NotImplementedError

    def pause_writing(self) -> None:
        self.congested = True
        self.pause(PAUSE_WRITE)

    def resume_writing(self) -> None:
        self.congested = False
        self.resume(PAUSE_WRITE)
        if self.session is not None and not self.closed:
            self.session.pump()

    def write(self, data: bytes) -> None:
        transport = self._transport
        if transport is not None and not self.closed:
            self.counters.bytes_out += len(data)
            self.counters.packets_out += 1
            transport.write(data)

    def about(self, name: str) -> Any:
        """What the transport knows (`peername`, `ssl_object`)."""
        return self._transport.get_extra_info(name) if self._transport is not None else None

    # Not reading.

    def hold_back(self, *, quota: bool = False) -> None:
        """Stop reading this client: its tenant has more than its share in flight, or no quota left."""
        self.pause(PAUSE_QUOTA if quota else PAUSE_SHARE)

    def let_go(self, *, quota: bool = False) -> None:
        """Read it again, unless there is another reason not to."""
        self.resume(PAUSE_QUOTA if quota else PAUSE_SHARE)

    def pause(self, why: int) -> None:
        before = self.paused
        self.paused |= why
        if self.closed or self._transport is None:
            return
        if not before:
            self._transport.pause_reading()
        if why & ~MOMENTARY and not before & ~MOMENTARY:
            self.counters.paused += 1
            self.counters.pauses += 1
            if self.keep_alive:
                # One that is paused again and again must not have to wait anew each time.
                self.wheel.add(self, max(0, self._ping_every - (self.wheel.now - self.answered)))

    def resume(self, why: int) -> None:
        before = self.paused
        self.paused &= ~why
        if self.closed or self._transport is None:
            return
        if before & ~MOMENTARY and not self.paused & ~MOMENTARY:
            self.counters.paused -= 1
        if before and not self.paused:
            self._transport.resume_reading()
            if self.session is not None:
                self._expect()
                if self.stopped:
                    self._keep(0)
                    self.proceed()

    def wait_turn(self, size: int) -> None:
        self.pause(PAUSE_TURN)
        self.turns.wait(self, size)

    def take_turn(self) -> None:
        """Parse on, and read again once what was kept is parsed."""
        self.paused &= ~PAUSE_TURN
        if self.closed or self._transport is None:
            return
        if self.paused:
            self._keep(self.waiting)
            return
        self.proceed()
        if not self.paused and not self.closed:
            self._transport.resume_reading()

    def dispose(self) -> None:
        super().dispose()
        self._keep(0)

    def _keep(self, size: int) -> None:
        self.turns.kept += size - self.kept
        self.kept = size

    def answer_ping(self) -> None:
        self.answered = self.wheel.now
        self.write(PINGRESP)

    @property
    def _ping_every(self) -> float:
        return max(1, min(10, self.keep_alive // 3 - 1))

    def _expect(self) -> None:
        """From now on the client has its keep-alive, and half of it more, to be heard of."""
        self.seen = self.wheel.now
        if self.keep_alive:
            self.wheel.add(self, self.keep_alive * 1.5)

    def due(self) -> None:
        if self.closed or self.session is None:
            if self._transport is not None:
                self._transport.abort()
        elif self.paused & ~PAUSE_TURN:
            # Its PINGREQ may lie behind messages we do not read. An answer it has not asked for yet does no
            # harm to any client we know; silence would make it leave, and come back with all it has to say.
            if not self.congested:
                self.answer_ping()
            self.wheel.add(self, self._ping_every)
        else:
            left = self.keep_alive * 1.5 - (self.wheel.now - self.seen)
            if left > 0:
                self.wheel.add(self, left)
            else:
                self.counters.keep_alive_timeouts += 1
                self.shut(Reason.KEEP_ALIVE_TIMEOUT)
