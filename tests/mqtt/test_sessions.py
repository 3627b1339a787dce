"""What outlives a connection, and what ends one: sessions, wills, keep-alive, commands, watching."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from caudal.mqtt import packets as pk
from caudal.mqtt.codes import Reason
from caudal.mqtt.properties import Properties

VERSIONS = pytest.mark.parametrize("version", [4, 5])
CMD = "traksense/t/s/d/cmd"


def lasting(version: int, seconds: int = 60, **more: Any) -> dict[str, Any]:
    """Fields of a CONNECT whose session outlives its connection."""
    props = Properties(session_expiry_interval=seconds) if version == 5 else None
    return {"clean_start": False, "props": props, **more}


async def subscribed(c: Any, *patterns: str, qos: int = 1) -> list[int]:
    answer = await c.ask(pk.Subscribe(1, [pk.Subscription(pattern, qos) for pattern in patterns]))
    assert isinstance(answer, pk.Suback)
    return answer.reasons


async def gone(hooks: Any, client_id: str = "c") -> None:
    """Until the endpoint has noticed that the client is away."""
    async with asyncio.timeout(30):
        while not any(entry[:2] == ("disconnected", client_id) for entry in hooks.log):
            await asyncio.sleep(0)


# Commands.


@VERSIONS
async def test_a_command_is_done_when_acknowledged(endpoint: Any, client: Any, version: int) -> None:
    c = await client(endpoint, version)
    assert await subscribed(c, CMD) == [1]
    sending = asyncio.create_task(endpoint.publish(CMD, b"on"))
    message = await c.receive()
    assert (message.topic, message.payload, message.qos, message.dup) == (CMD, b"on", 1, False)
    assert not sending.done()
    c.send(pk.Puback(message.packet_id))
    assert await sending == [0]


async def test_a_command_for_nobody(endpoint: Any) -> None:
    assert await endpoint.publish(CMD, b"on") == []


@VERSIONS
async def test_commands_wait_for_a_client_that_is_away(
    endpoint: Any, hooks: Any, client: Any, version: int
) -> None:
    first = await client(endpoint, version, **lasting(version))
    await subscribed(first, CMD)
    one = asyncio.create_task(endpoint.publish(CMD, b"1"))
    await first.receive()  # sent, never acknowledged
    first.close()
    await gone(hooks)
    two = asyncio.create_task(endpoint.publish(CMD, b"2"))
    await asyncio.sleep(0)
    again = await client(endpoint, version, **lasting(version))
    assert again.connack.session_present
    messages = [await again.receive(), await again.receive()]
    assert [(m.payload, m.dup) for m in messages] == [(b"1", True), (b"2", False)]
    again.send(*[pk.Puback(m.packet_id) for m in messages])
    assert await one == await two == [0]


async def test_a_session_that_ends_tells_who_waits(endpoint: Any, hooks: Any, client: Any) -> None:
    c = await client(endpoint, 5, **lasting(5, 10))
    await subscribed(c, CMD)
    c.close()
    await gone(hooks)
    sending = asyncio.create_task(endpoint.publish(CMD, b"1"))
    await asyncio.sleep(0)
    endpoint.wheel.advance(5)
    assert endpoint.counters.sessions == 1
    endpoint.wheel.advance(10)
    assert endpoint.counters.sessions == 0
    assert await sending == [Reason.NO_MATCHING_SUBSCRIBERS]
    assert not (await client(endpoint, 5, **lasting(5))).connack.session_present


async def test_windows_and_queues_are_bounded(make_endpoint: Any, client: Any) -> None:
    endpoint = await make_endpoint(queue_messages=3)
    c = await client(endpoint, 5, props=Properties(receive_maximum=2))
    await subscribed(c, CMD)
    outcomes: list[tuple[int, int]] = []
    for number in range(6):
        endpoint.send(CMD, b"%d" % number, done=lambda reason, n=number: outcomes.append((n, reason)))
    assert outcomes == [(5, Reason.QUOTA_EXCEEDED)]  # two sent, three waiting
    first, second = await c.receive(), await c.receive()
    c.send(pk.Pingreq())
    assert await c.receive() == pk.Pingresp()  # and not the third
    c.send(pk.Puback(first.packet_id), pk.Puback(second.packet_id, Reason.NOT_AUTHORIZED))
    for expected in (b"2", b"3"):
        message = await c.receive()
        assert message.payload == expected
    assert outcomes[1:] == [(0, 0), (1, Reason.NOT_AUTHORIZED)]


async def test_expired_and_oversized_commands_are_not_sent(endpoint: Any, hooks: Any, client: Any) -> None:
    c = await client(endpoint, 5, **lasting(5, 100))
    await subscribed(c, CMD)
    c.close()
    await gone(hooks)
    outcomes: list[int] = []
    endpoint.send(CMD, b"late", expiry=5, done=outcomes.append)
    endpoint.send(CMD, b"good", expiry=50, done=outcomes.append)
    endpoint.wheel.advance(10)
    props = Properties(session_expiry_interval=100, maximum_packet_size=100)
    c = await client(endpoint, 5, clean_start=False, props=props)
    message = await c.receive()
    assert message.payload == b"good"
    assert message.props.message_expiry_interval == 40
    c.send(pk.Puback(message.packet_id))
    assert await endpoint.publish(CMD, b"x" * 200) == [Reason.PACKET_TOO_LARGE]
    assert await c.ask(pk.Pingreq()) == pk.Pingresp()
    assert outcomes == [Reason.MESSAGE_RATE_TOO_HIGH, 0]


# Subscribing and watching.


async def test_subscriptions_that_are_refused(make_endpoint: Any, client: Any) -> None:
    endpoint = await make_endpoint(max_subscriptions=2)
    c = await client(endpoint, 5)
    codes = await subscribed(c, "a/#/b", "$share/g/a", "secret/x", "a", "b", "c", qos=2)
    assert codes == [
        Reason.TOPIC_FILTER_INVALID,
        Reason.SHARED_SUBSCRIPTIONS_NOT_SUPPORTED,
        Reason.NOT_AUTHORIZED,
        1,
        1,
        Reason.QUOTA_EXCEEDED,
    ]
    four = await client(endpoint, 4, client_id="four")
    assert await subscribed(four, "secret/x", "a") == [0x80, 1]
    answer = await c.ask(pk.Unsubscribe(2, ["a", "nothing"]))
    assert answer == pk.Unsuback(2, [0, Reason.NO_SUBSCRIPTION_EXISTED], Properties())


@VERSIONS
async def test_watching_live(endpoint: Any, sink: Any, client: Any, version: int) -> None:
    sink.watching = endpoint
    watcher = await client(endpoint, version, client_id="w")
    await subscribed(watcher, "traksense/+/s/#", "traksense/t/s/d/telem", "other", qos=0)
    device = await client(endpoint, 5, client_id="d")
    props = Properties(content_type="json", user_properties=(("a", "b"),), topic_alias=1)
    await device.ask(pk.Publish("traksense/t/s/d/telem", b"1", 1, packet_id=1, props=props))
    await device.ask(pk.Publish("traksense/t/x/d/telem", b"2", 1, packet_id=1))
    await device.ask(pk.Publish("other", b"3", 1, packet_id=1))
    first, second = await watcher.receive(), await watcher.receive()
    assert (first.payload, second.payload) == (b"1", b"3")  # once, though two filters match
    if version == 5:
        assert first.props == Properties(content_type="json", user_properties=(("a", "b"),))


async def test_no_local_and_subscription_identifiers(endpoint: Any, sink: Any, client: Any) -> None:
    sink.watching = endpoint
    c = await client(endpoint, 5)
    props = Properties(subscription_identifiers=(7,))
    await c.ask(pk.Subscribe(1, [pk.Subscription("a", 1, no_local=True)]))
    await c.ask(pk.Subscribe(2, [pk.Subscription("b", 1)], props))
    c.send(pk.Publish("a", b""), pk.Publish("b", b"2"))
    message = await c.receive()
    assert message.topic == "b"
    assert message.props.subscription_identifiers == (7,)


async def test_a_slow_watcher_misses_messages_and_delays_nobody(
    make_endpoint: Any, sink: Any, client: Any
) -> None:
    endpoint = await make_endpoint(max_inflight=100)
    sink.watching = endpoint
    watcher = await client(endpoint, 5, client_id="w")
    await subscribed(watcher, "a", qos=0)
    watcher.writer.transport.pause_reading()
    device = await client(endpoint, 5, client_id="d")
    for number in range(200):
        await device.ask(pk.Publish("a", bytes(100_000), 1, packet_id=number + 1))
    assert endpoint.counters.dropped_out > 0
    assert endpoint.counters.publishes_out + endpoint.counters.dropped_out == 200


async def test_rights_taken_away(endpoint: Any, hooks: Any, client: Any) -> None:
    c = await client(endpoint, 5)
    await subscribed(c, CMD)
    hooks.may_subscribe = lambda principal, pattern: False
    endpoint.recheck(lambda principal, client_id: client_id == "c")
    assert await endpoint.publish(CMD, b"on") == []
    assert endpoint.disconnect(lambda principal, client_id: client_id == "c") == 1
    assert await c.receive() == pk.Disconnect(Reason.ADMINISTRATIVE_ACTION)
    assert await c.ended() == b""


# Wills.

WILL = pk.Will("traksense/t/s/d/state", b"gone", 1)


@VERSIONS
async def test_a_will_is_published_when_the_client_vanishes(
    endpoint: Any, sink: Any, hooks: Any, client: Any, version: int
) -> None:
    c = await client(endpoint, version, will=WILL, username="t:t:d:d")
    c.close()
    (message,) = await sink.wait(1)
    assert (message.topic, message.payload, message.qos) == (WILL.topic, b"gone", 1)
    assert message.origin.principal.name == "t:t:d:d"


@VERSIONS
async def test_no_will_after_a_goodbye(
    endpoint: Any, sink: Any, hooks: Any, client: Any, version: int
) -> None:
    c = await client(endpoint, version, will=WILL)
    c.send(pk.Disconnect())
    await gone(hooks)
    assert sink.messages == []
    assert hooks.log[-1] == ("disconnected", "c", 0)


async def test_a_goodbye_with_will(endpoint: Any, sink: Any, client: Any) -> None:
    c = await client(endpoint, 5, will=WILL)
    c.send(pk.Disconnect(Reason.DISCONNECT_WITH_WILL))
    await sink.wait(1)


async def test_will_delay(endpoint: Any, sink: Any, hooks: Any, client: Any) -> None:
    will = pk.Will("a", b"gone", props=Properties(will_delay_interval=10))
    c = await client(endpoint, 5, **lasting(5, will=will))
    c.close()
    await gone(hooks)
    endpoint.wheel.advance(5)
    c = await client(endpoint, 5, **lasting(5, will=will))  # back in time: no will
    endpoint.wheel.advance(20)
    assert sink.messages == []
    hooks.log.clear()
    c.close()
    await gone(hooks)
    endpoint.wheel.advance(12)
    assert len(sink.messages) == 1


async def test_one_will_when_its_delay_outlasts_the_session(
    endpoint: Any, sink: Any, hooks: Any, client: Any
) -> None:
    will = pk.Will("a", b"gone", props=Properties(will_delay_interval=100))
    for number in range(8):  # both are due in the same second, in any order
        c = await client(endpoint, 5, **lasting(5, 10, will=will, client_id=f"c{number}"))
        c.close()
        await gone(hooks, f"c{number}")
    endpoint.wheel.advance(20)
    assert endpoint.counters.sessions == 0
    assert len(sink.messages) == 8


async def test_a_will_waits_for_the_sink(endpoint: Any, sink: Any, hooks: Any, client: Any) -> None:
    c = await client(endpoint, 5, will=WILL)
    sink.close()
    c.close()
    await gone(hooks)
    assert sink.messages == []
    sink.open()
    assert len(sink.messages) == 1


async def test_session_expiry_may_be_changed_at_the_end(endpoint: Any, hooks: Any, client: Any) -> None:
    c = await client(endpoint, 5, **lasting(5))
    c.send(pk.Disconnect(0, Properties(session_expiry_interval=0)))
    await gone(hooks)
    assert endpoint.counters.sessions == 0
    c = await client(endpoint, 5)
    answer = await c.ask(pk.Disconnect(0, Properties(session_expiry_interval=9)))
    assert answer == pk.Disconnect(Reason.PROTOCOL_ERROR)


# Silence.


async def test_silence_ends_the_connection(endpoint: Any, sink: Any, client: Any) -> None:
    c = await client(endpoint, 5, keep_alive=10, will=WILL)
    endpoint.wheel.advance(12)
    assert await c.ask(pk.Pingreq()) == pk.Pingresp()
    endpoint.wheel.advance(14)
    assert await c.ask(pk.Pingreq()) == pk.Pingresp()
    endpoint.wheel.advance(20)
    assert await c.receive() == pk.Disconnect(Reason.KEEP_ALIVE_TIMEOUT)
    await sink.wait(1)
    assert endpoint.counters.keep_alive_timeouts == 1


async def test_a_socket_that_says_nothing_is_closed(endpoint: Any, open_client: Any) -> None:
    c = await open_client(endpoint)
    c.send(b"\x10\x20\0\4MQ")  # half a CONNECT
    while not endpoint.counters.bytes_in:
        await asyncio.sleep(0)
    endpoint.wheel.advance(20)
    assert await c.ended() == b""


async def test_too_many_sockets_without_a_connect(make_endpoint: Any, open_client: Any, client: Any) -> None:
    endpoint = await make_endpoint(max_pending=2)
    silent = [await open_client(endpoint) for _ in range(2)]
    while endpoint.counters.pending < 2:
        await asyncio.sleep(0)
    turned_away = await open_client(endpoint)
    assert await turned_away.ended() == b""
    silent[0].close()
    while endpoint.counters.pending > 1:
        await asyncio.sleep(0)
    await client(endpoint)


async def test_too_many_connections(make_endpoint: Any, client: Any, open_client: Any) -> None:
    endpoint = await make_endpoint(max_connections=1)
    await client(endpoint)
    c = await open_client(endpoint, 5)
    assert (await c.ask(pk.Connect("d", 5))).reason == Reason.QUOTA_EXCEEDED
    c = await open_client(endpoint, 4)
    assert (await c.ask(pk.Connect("d", 4))).reason == Reason.SERVER_UNAVAILABLE


async def test_authentications_wait_their_turn(make_endpoint: Any, hooks: Any, open_client: Any) -> None:
    endpoint = await make_endpoint(max_authenticating=2)
    hooks.gate = asyncio.Event()
    clients = [await open_client(endpoint) for _ in range(5)]
    for number, c in enumerate(clients):
        c.send(pk.Connect(f"c{number}", 5))
    while endpoint.counters.packets_in < 5:
        await asyncio.sleep(0.01)
    assert len(hooks.infos) == 2
    hooks.gate.set()
    for c in clients:
        assert (await c.receive()).reason == 0


async def test_our_last_words_survive_what_the_client_is_still_sending(
    make_endpoint: Any, sink: Any, client: Any
) -> None:
    endpoint = await make_endpoint(max_inflight=3)
    sink.automatic = False
    for number in range(20):
        c = await client(endpoint, 5, client_id=f"c{number}")
        for packet_id in range(1, 200):  # a reset would throw away the DISCONNECT among these
            c.send(pk.Publish("a", bytes(1000), 1, packet_id=packet_id))
            if packet_id % 5 == 0:
                await asyncio.sleep(0)
        assert await c.receive() == pk.Disconnect(Reason.RECEIVE_MAXIMUM_EXCEEDED)
        c.close()


async def test_expired_messages_are_not_shown(endpoint: Any, sink: Any, hooks: Any, client: Any) -> None:
    sink.watching = endpoint
    watcher = await client(endpoint, 5, **lasting(5, 100, client_id="w"))
    await subscribed(watcher, "a")
    watcher.close()
    await gone(hooks, "w")
    device = await client(endpoint, 5, client_id="d")
    for number, seconds in ((1, 5), (2, 50)):
        props = Properties(message_expiry_interval=seconds)
        await device.ask(pk.Publish("a", b"%d" % number, 1, packet_id=number, props=props))
    endpoint.wheel.advance(10)
    watcher = await client(endpoint, 5, **lasting(5, 100, client_id="w"))
    message = await watcher.receive()
    assert (message.payload, message.props.message_expiry_interval) == (b"2", 40)
