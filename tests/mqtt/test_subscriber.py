"""The subscriber against Mosquitto: acknowledged once settled, nothing lost, nobody fought."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from caudal.mqtt import packets as pk
from caudal.mqtt.broker import BrokerError
from caudal.mqtt.codec import encode
from caudal.mqtt.codes import Reason
from caudal.mqtt.identity import WorkerIdentity
from caudal.mqtt.ports import settle
from caudal.mqtt.settings import SubscriberSettings
from caudal.mqtt.subscriber import TAKEN_OVER_PAUSE, Subscriber

VERSIONS = pytest.mark.parametrize("version", [4, 5])


@pytest.fixture
async def subscribe(sink: Any) -> AsyncIterator[Any]:
    made: list[Subscriber] = []

    async def make(port: int, *, to: Any = None, wait: bool = True, **more: Any) -> Subscriber:
        chosen = {
            "url": f"mqtt://127.0.0.1:{port}",
            "topics": ("traksense/#",),
            "client_id": "worker-1",
            "retry_first": 0.1,
            **more,
        }
        subscriber = Subscriber(SubscriberSettings(**chosen), to or sink)
        made.append(subscriber)
        subscriber.start()
        if wait:
            async with asyncio.timeout(30):
                await subscriber.online.wait()
        return subscriber

    yield make
    for subscriber in made:
        await subscriber.close()


@pytest.fixture
async def publisher(broker: Any, open_client: Any) -> Any:
    return await connected(open_client, broker.port)


async def connected(open_client: Any, port: int) -> Any:
    class At:
        pass

    At.port = port
    c = await open_client(At, 4)
    answer = await c.ask(pk.Connect("publisher", 4, keep_alive=60))
    assert answer == pk.Connack(False, 0)
    return c


async def publish(c: Any, *payloads: bytes, qos: int = 1) -> None:
    for number, payload in enumerate(payloads, 1):
        c.send(pk.Publish("traksense/t/s/d/telem", payload, qos, packet_id=number if qos else 0))
        if qos == 1:
            assert await c.receive() == pk.Puback(number)
        elif qos == 2:
            assert await c.receive() == pk.Pubrec(number)
            assert await c.ask(pk.Pubrel(number)) == pk.Pubcomp(number)


@VERSIONS
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("group", [None, "workers"])
async def test_messages_arrive(
    broker: Any, publisher: Any, sink: Any, subscribe: Any, version: int, qos: int, group: str | None
) -> None:
    subscriber = await subscribe(broker.port, version=version, qos=qos, group=group)
    await publish(publisher, *[b"%d" % n for n in range(50)], qos=qos)
    await sink.wait(50)
    assert [m.payload for m in sink.messages] == [b"%d" % n for n in range(50)]
    assert {m.qos for m in sink.messages} == {qos}
    assert subscriber.granted == {subscriber.filters[0]: qos}
    assert subscriber.counters.unsettled == 0


@VERSIONS
@pytest.mark.parametrize("qos", [1, 2])
async def test_what_was_not_settled_comes_again(
    broker: Any, publisher: Any, sink: Any, subscribe: Any, version: int, qos: int
) -> None:
    sink.automatic = False
    first = await subscribe(broker.port, version=version, qos=qos)
    await publish(publisher, b"1", b"2", b"3", qos=qos)
    await sink.wait(3)
    await first.close()
    await publish(publisher, b"4", qos=qos)  # nobody is there
    sink.automatic = True
    sink.settle_all()  # too late: that connection is gone
    await subscribe(broker.port, version=version, qos=qos)  # a new process, as it were
    await sink.wait(7)
    assert sorted(m.payload for m in sink.messages) == [b"1", b"1", b"2", b"2", b"3", b"3", b"4"]


async def test_qos_2_comes_once_when_only_the_connection_was_lost(
    broker: Any, publisher: Any, sink: Any, subscribe: Any
) -> None:
    sink.automatic = False
    subscriber = await subscribe(broker.port, qos=2)
    await publish(publisher, b"1", qos=2)
    await sink.wait(1)
    subscriber.online.clear()
    subscriber.connection._transport.abort()
    await asyncio.wait_for(subscriber.online.wait(), 30)
    sink.settle_all()
    sink.automatic = True
    await publish(publisher, b"2", qos=2)
    await sink.wait(2)
    assert [m.payload for m in sink.messages] == [b"1", b"2"]


async def test_receive_maximum_is_backpressure(
    broker: Any, publisher: Any, sink: Any, subscribe: Any
) -> None:
    sink.automatic = False
    subscriber = await subscribe(broker.port, receive_maximum=5)
    await publish(publisher, *[b"%d" % n for n in range(20)])
    await sink.wait(5)
    # Mosquitto 2.0.11 forgets the bound after the first acknowledgements; until then it keeps to it.
    await subscriber.publish("elsewhere", b"")
    assert len(sink.messages) == 5
    sink.automatic = True
    sink.settle_all()
    await sink.wait(20)
    assert [m.payload for m in sink.messages] == [b"%d" % n for n in range(20)]


async def test_a_full_sink_is_not_read_and_not_lost(
    broker: Any, publisher: Any, sink: Any, subscribe: Any
) -> None:
    subscriber = await subscribe(broker.port, keep_alive=2)
    sink.close()
    await publish(publisher, *[b"%d" % n for n in range(100)])
    async with asyncio.timeout(30):
        while not subscriber.counters.paused:
            await asyncio.sleep(0.01)
    await asyncio.sleep(4.5)  # the broker would have given up a silent client; real time, as it keeps it
    assert sink.messages == []
    assert subscriber.online.is_set()
    sink.open()
    await sink.wait(100)
    assert [m.payload for m in sink.messages] == [b"%d" % n for n in range(100)]
    assert subscriber.counters.connects == 1


async def test_a_refused_message_comes_again(broker: Any, publisher: Any, sink: Any, subscribe: Any) -> None:
    sink.reason = Reason.QUOTA_EXCEEDED
    subscriber = await subscribe(broker.port)
    await publish(publisher, b"1")
    await sink.wait(1)
    sink.reason = 0
    messages = await sink.wait(2, 10)
    assert [(m.payload, m.dup) for m in messages[:2]] == [(b"1", False), (b"1", True)]
    assert subscriber.counters.connects >= 1


async def test_the_broker_restarts(
    broker: Any, publisher: Any, open_client: Any, sink: Any, subscribe: Any
) -> None:
    subscriber = await subscribe(broker.port)
    await publish(publisher, b"1")
    await sink.wait(1)
    await broker.stop()
    async with asyncio.timeout(30):
        while subscriber.online.is_set():
            await asyncio.sleep(0.01)
    with pytest.raises(BrokerError):
        await subscriber.publish("a", b"")
    await broker.start()
    await asyncio.wait_for(subscriber.online.wait(), 15)
    await publish(await connected(open_client, broker.port), b"2")
    await sink.wait(2)


async def test_shared_subscriptions_split_the_load(
    broker: Any, publisher: Any, sink: Any, subscribe: Any
) -> None:
    one = await subscribe(broker.port, group="g", client_id="one")
    two = await subscribe(broker.port, group="g", client_id="two")
    await publish(publisher, *[b"%d" % n for n in range(100)])
    await sink.wait(100)
    assert sorted(int(m.payload) for m in sink.messages) == list(range(100))
    assert one.counters.publishes_in > 10
    assert two.counters.publishes_in > 10


async def test_commands_go_out_through_the_broker(broker: Any, subscribe: Any, open_client: Any) -> None:
    subscriber = await subscribe(broker.port)
    device = await connected(open_client, broker.port)
    await device.ask(pk.Subscribe(1, [pk.Subscription("traksense/t/s/d/cmd", 1)]))
    assert await subscriber.publish("traksense/t/s/d/cmd", b"on") == 0
    assert (await device.receive()).payload == b"on"


async def test_a_taken_over_worker_steps_back(endpoint: Any, client: Any, subscribe: Any) -> None:
    # Against our endpoint, which says why it hangs up; Mosquitto 2.0 does not.
    subscriber = await subscribe(endpoint.port)
    thief = await client(endpoint, 5, client_id="worker-1")
    async with asyncio.timeout(30):
        while subscriber.last_error is None:
            await asyncio.sleep(0.01)
    assert "SESSION_TAKEN_OVER" in subscriber.last_error
    assert subscriber.pause(1, Reason.SESSION_TAKEN_OVER) >= TAKEN_OVER_PAUSE
    assert await thief.ask(pk.Pingreq()) == pk.Pingresp()  # left in peace


def test_pauses_grow_and_are_left_to_chance() -> None:
    settings = SubscriberSettings(
        url="mqtt://h", topics=("a",), client_id="c", retry_first=0.5, retry_max=30.0
    )

    class Nothing:
        accepting = True

        def submit(self, batch: Any) -> None: ...
        def on_resume(self, callback: Any) -> None: ...

    subscriber = Subscriber(settings, Nothing())
    drawn = {n: [subscriber.pause(n, 0x80) for _ in range(200)] for n in (1, 4, 50)}
    assert max(drawn[1]) <= 0.5
    assert 2.0 < max(drawn[4]) <= 4.0
    assert 20 < max(drawn[50]) <= 30
    assert min(drawn[50]) < 5


def test_bad_urls() -> None:
    with pytest.raises(ValueError, match="MQTT_URL"):
        Subscriber(SubscriberSettings(url="http://x", topics=(), client_id="c"), None)


async def old_broker(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Knows 3.1.1 alone, and refuses one topic."""
    head = await reader.readexactly(2)
    body = await reader.readexactly(head[1])
    if body[6] == 5:
        writer.write(b"\x20\x02\0\1")
        writer.close()
        return
    writer.write(b"\x20\x02\0\0")
    head = await reader.readexactly(2)
    body = await reader.readexactly(head[1])
    writer.write(encode(pk.Suback(int.from_bytes(body[:2], "big"), [1, 0x80]), 4))
    await reader.read()
    writer.close()


async def test_a_broker_without_mqtt_5(subscribe: Any) -> None:
    server = await asyncio.start_server(old_broker, "127.0.0.1", 0)
    subscriber = await subscribe(server.sockets[0].getsockname()[1], topics=("a", "b"))
    assert subscriber.connection.version == 4
    assert subscriber.granted == {"a": 1, "b": 0x80}
    assert "refused" in subscriber.last_error
    await subscriber.close()
    server.close()


async def test_a_broker_that_falls_silent_is_left(subscribe: Any) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"worker-1")
        writer.write(encode(pk.Connack(False, 0), 5))
        await reader.readuntil(b"traksense/#")
        writer.write(encode(pk.Suback(1, [1]), 5))
        await reader.read()  # pings as well
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    subscriber = await subscribe(server.sockets[0].getsockname()[1], keep_alive=10)
    subscriber.wheel.advance(12)
    assert subscriber.online.is_set()
    subscriber.wheel.advance(12)
    async with asyncio.timeout(30):
        while subscriber.last_error is None:
            await asyncio.sleep(0.01)
    assert "KEEP_ALIVE_TIMEOUT" in subscriber.last_error
    await subscriber.close()
    server.close()


async def test_acknowledgements_keep_the_order_of_the_messages(subscribe: Any, sink: Any) -> None:
    acks: asyncio.Queue[int] = asyncio.Queue()

    async def broker(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"worker-1")
        writer.write(encode(pk.Connack(False, 0), 5))
        await reader.readuntil(b"traksense/#")
        await reader.readexactly(1)  # its options
        writer.write(encode(pk.Suback(1, [1]), 5))
        for number in (7, 3, 5, 4):
            writer.write(encode(pk.Publish("traksense/a", b"x", 1, packet_id=number), 5))
        while (packet := await reader.read(4)) and packet[0] == 0x40:
            acks.put_nowait(packet[3])
        writer.close()

    sink.automatic = False
    server = await asyncio.start_server(broker, "127.0.0.1", 0)
    subscriber = await subscribe(server.sockets[0].getsockname()[1])
    await sink.wait(4)
    seven, three, five, four = sink.messages
    settle([four, three])
    settle([seven])
    assert [await acks.get() for _ in range(2)] == [7, 3]
    settle([five])
    assert [await acks.get() for _ in range(2)] == [5, 4]
    await subscriber.close()
    server.close()


async def test_a_broker_that_breaks_the_protocol_is_left(subscribe: Any) -> None:
    async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"worker-1")
        writer.write(encode(pk.Connack(False, 0), 5) + encode(pk.Pubrec(1), 5))
        await reader.read()
        writer.close()

    server = await asyncio.start_server(rude, "127.0.0.1", 0)
    subscriber = await subscribe(server.sockets[0].getsockname()[1], wait=False)
    async with asyncio.timeout(30):
        while subscriber.counters.protocol_errors < 2:  # and it tries again
            await asyncio.sleep(0.01)
    assert "PROTOCOL_ERROR" in str(subscriber.last_error)
    await subscriber.close()
    server.close()


def test_workers_have_names_of_their_own(tmp_path: Path) -> None:
    one, two = WorkerIdentity(tmp_path), WorkerIdentity(tmp_path)
    elsewhere = WorkerIdentity(tmp_path / "other machine")
    assert len({one.client_id, two.client_id, elsewhere.client_id}) == 3
    assert (one.number, two.number) == (0, 1)
    name = one.client_id
    one.release()
    again = WorkerIdentity(tmp_path)
    assert again.client_id == name
    for identity in (two, again, elsewhere):
        identity.release()


@VERSIONS
async def test_a_worker_with_one_tenant_is_held_back_for_it(
    broker: Any, publisher: Any, sink: Any, subscribe: Any, version: int
) -> None:
    subscriber = await subscribe(broker.port, version=version, alone=True)
    connection = subscriber.connection
    connection.hold_back(quota=True)
    connection.hold_back()
    await publish(publisher, b"1", b"2")
    connection.let_go()
    connection.release()  # the sink has room; the quota is used up all the same
    assert (connection.held, subscriber.counters.paused, sink.messages) == (True, 1, [])
    connection.let_go(quota=True)
    await sink.wait(2)
    assert (connection.held, subscriber.counters.paused, subscriber.counters.over_quota) == (False, 0, 0)


async def test_a_worker_with_several_tenants_is_not(
    broker: Any, publisher: Any, sink: Any, subscribe: Any
) -> None:
    subscriber = await subscribe(broker.port)
    subscriber.connection.hold_back(quota=True)
    await publish(publisher, b"1")
    await sink.wait(1)
    assert (subscriber.connection.held, subscriber.counters.over_quota) == (False, 1)
