"""Messages to clients: who is subscribed to what, commands, and watching live."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from . import packets as pk
from .codes import Reason
from .ports import Counters, Inbound
from .properties import Properties
from .session import Done, Interest, Outgoing, Session
from .settings import EndpointSettings
from .topics import FilterIndex
from .turns import Turns
from .wheel import Wheel


class Delivery:
    """The outgoing half of an endpoint."""

    def __init__(self, settings: EndpointSettings) -> None:
        self.settings = settings
        self.counters = Counters()
        self.wheel = Wheel()
        self.turns = Turns()
        self._index: FilterIndex[Interest] = FilterIndex()

    def subscribe(self, session: Session, wanted: pk.Subscription, identifier: int | None) -> int:
        """The QoS granted, or a reason code. Two is more than we send at."""
        mine = session.subscriptions
        if mine is None:
            mine = session.subscriptions = {}
        if wanted.filter not in mine and len(mine) >= self.settings.max_subscriptions:
            return Reason.QUOTA_EXCEEDED
        qos = min(wanted.qos, 1)
        interest = Interest(session, qos, wanted.no_local, wanted.retain_as_published, identifier)
        mine[wanted.filter] = interest
        self._index.add(wanted.filter, session, interest)
        return qos

    def unsubscribe(self, session: Session, pattern: str) -> bool:
        mine = session.subscriptions
        if mine is None or mine.pop(pattern, None) is None:
            return False
        self._index.discard(pattern, session)
        return True

    def send(
        self, topic: str, payload: bytes, qos: int = 1, *, expiry: int | None = None, done: Done | None = None
    ) -> int:
        """Sends to every session subscribed to `topic`; returns how many.

        `done` is called once for each session with how it ended: 0 acknowledged (QoS 0: written), the
        client's own refusal, QUOTA_EXCEEDED (its queue is full), PACKET_TOO_LARGE, NO_MATCHING_SUBSCRIBERS
        (its session ended), MESSAGE_RATE_TOO_HIGH (not sent within `expiry` seconds). Sessions of clients
        that are away keep QoS 1 messages until they come back.
        """
        targets = _by_session(self._index.match(topic))
        expires = None if expiry is None else self.wheel.now + expiry
        for session, interests in targets.items():
            props = _outgoing_props(interests, None, expiry)
            granted = min(qos, max(interest.qos for interest in interests))
            session.offer(Outgoing(topic, payload, granted, False, props, expires, done))
        return len(targets)

    async def publish(
        self, topic: str, payload: bytes, qos: int = 1, *, expiry: int | None = None
    ) -> list[int]:
        """As `send`, and waits: how each session ended, an empty list when nobody is subscribed."""
        outcomes: list[int] = []
        finished = asyncio.get_running_loop().create_future()
        expected = -1

        def done(reason: int) -> None:
            outcomes.append(reason)
            if len(outcomes) == expected and not finished.done():
                finished.set_result(None)

        expected = self.send(topic, payload, qos, expiry=expiry, done=done)
        if len(outcomes) < expected:
            await finished
        return outcomes

    def fan_out(self, messages: Iterable[Inbound]) -> None:
        """Shows messages to those who watch. Never blocks: who reads too slowly misses messages (counted)."""
        index = self._index
        if not len(index):
            return
        for message in messages:
            found = index.match(message.topic)
            if not found:
                continue
            for session, interests in _by_session(found).items():
                connection = session.connection
                local = connection is not None and connection is message.origin
                wanted = [i for i in interests if not (local and i.no_local)]
                if not wanted:
                    continue
                qos = min(message.qos, max(interest.qos for interest in wanted))
                retain = message.retain and any(interest.retain_as_published for interest in wanted)
                props = _outgoing_props(wanted, message.props, None)
                expiry = message.props.message_expiry_interval if message.props is not None else None
                expires = None if expiry is None else self.wheel.now + expiry
                session.offer(Outgoing(message.topic, message.payload, qos, retain, props, expires))


def _by_session(found: Iterable[Interest]) -> dict[Session, list[Interest]]:
    """One copy for each session, however many of its filters match."""
    targets: dict[Session, list[Interest]] = {}
    for interest in found:
        targets.setdefault(interest.session, []).append(interest)
    return targets


def _outgoing_props(
    interests: list[Interest], given: Properties | None, expiry: int | None
) -> Properties | None:
    identifiers = tuple(i.identifier for i in interests if i.identifier is not None)
    if given is None:
        if not identifiers and expiry is None:
            return None
        return Properties(subscription_identifiers=identifiers, message_expiry_interval=expiry)
    return Properties(
        payload_format_indicator=given.payload_format_indicator,
        message_expiry_interval=given.message_expiry_interval,
        content_type=given.content_type,
        response_topic=given.response_topic,
        correlation_data=given.correlation_data,
        user_properties=given.user_properties,
        subscription_identifiers=identifiers,
    )
