"""When the sink is full: nobody is read or thrown out, memory is bounded, and all goes on afterwards."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from caudal.mqtt import packets as pk
from caudal.mqtt import turns
from caudal.mqtt.codec import encode

VERSIONS = pytest.mark.parametrize("version", [4, 5])


async def until(condition: Any, timeout: float = 30.0) -> None:
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.005)


@VERSIONS
async def test_a_full_sink_gets_nothing_and_loses_nothing(
    endpoint: Any, sink: Any, client: Any, version: int
) -> None:
    c = await client(endpoint, version)
    sink.close()
    c.send(*[pk.Publish("a", b"%d" % n, 1, packet_id=n) for n in range(1, 101)])
    await until(lambda: endpoint.counters.paused)
    assert sink.messages == []
    sink.open()
    assert [(await c.receive()).packet_id for _ in range(100)] == list(range(1, 101))
    assert [m.payload for m in sink.messages] == [b"%d" % n for n in range(1, 101)]
    assert endpoint.counters.paused == 0
    assert endpoint._held_bytes == 0


async def test_keep_alives_are_answered_while_paused(endpoint: Any, sink: Any, client: Any) -> None:
    c = await client(endpoint, 4, keep_alive=10)
    sink.close()
    c.send(pk.Publish("a", b"1", 1, packet_id=1), pk.Pingreq())
    await until(lambda: endpoint.counters.paused)
    for _ in range(10):  # ten keep-alives long
        endpoint.wheel.advance(10)
        assert await c.receive() == pk.Pingresp()
    sink.open()
    answers = []
    while len(answers) < 2:
        packet = await c.receive()
        if packet not in answers:
            answers.append(packet)
    assert pk.Puback(1) in answers
    endpoint.wheel.advance(12)  # the silence that was ours does not count
    c.send(pk.Pingreq())
    assert await c.receive() == pk.Pingresp()
    assert endpoint.counters.keep_alive_timeouts == 0


async def test_keep_alives_are_answered_when_it_is_paused_again_and_again(
    endpoint: Any, sink: Any, client: Any
) -> None:
    c = await client(endpoint, 4, keep_alive=10)
    connection = next(iter(endpoint._connections))
    for _ in range(5):  # half its keep-alive, and no pause of it is long
        connection.hold_back()
        endpoint.wheel.advance(1)
        connection.let_go()
    assert await c.receive() == pk.Pingresp()


@pytest.mark.parametrize("leaves", [False, True])
async def test_what_a_connection_keeps_that_is_held_back_is_counted(
    endpoint: Any, sink: Any, client: Any, monkeypatch: pytest.MonkeyPatch, leaves: bool
) -> None:
    submit = sink.submit

    def hold(batch: Any) -> None:
        submit(batch)
        for message in batch[:1]:
            message.origin.hold_back()

    sink.submit = hold
    c = await client(endpoint, 4)
    connection = next(iter(endpoint._connections))
    sent = 2000
    # At once, or the first turn may be all that has come.
    connection.data_received(
        b"".join(encode(pk.Publish("a", bytes(100), 1, packet_id=n), 4) for n in range(1, sent + 1))
    )
    await until(lambda: endpoint.turns.kept)
    assert len(sink.messages) < sent
    assert endpoint.turns.kept == connection.waiting
    # Beyond the bound chunks are parsed whole, as memory matters more.
    assert endpoint.turns.share(1 << 20) < 1 << 20
    monkeypatch.setattr(turns, "KEPT_MAX", endpoint.turns.kept)
    assert endpoint.turns.share(1 << 20) == 1 << 20
    if leaves:
        connection.abort()
    else:
        sink.submit = submit
        connection.let_go()
    await until(lambda: not endpoint.turns.kept)
    if not leaves:
        assert [(await c.receive()).packet_id for _ in range(sent)] == list(range(1, sent + 1))


async def test_who_does_not_publish_is_heard_while_the_sink_is_full(
    endpoint: Any, sink: Any, client: Any
) -> None:
    c = await client(endpoint, 5)
    sink.close()
    assert await c.ask(pk.Pingreq()) == pk.Pingresp()
    late = await client(endpoint, 5, client_id="late")
    assert await late.ask(pk.Pingreq()) == pk.Pingresp()


async def test_what_is_held_is_bounded(make_endpoint: Any, sink: Any, client: Any) -> None:
    endpoint = await make_endpoint(max_held=1000)
    devices = [await client(endpoint, 4, client_id=f"c{n}") for n in range(5)]
    sink.close()
    big = pk.Publish("a", bytes(600), 1, packet_id=1)
    devices[0].send(big)
    await until(lambda: endpoint.counters.paused == 1)
    devices[1].send(big)
    await until(lambda: endpoint.counters.paused == 5)  # now nobody is read any more
    sink.open()
    for c in devices[:2]:
        assert await c.receive() == pk.Puback(1)
    for c in devices[2:]:
        assert await c.ask(big) == pk.Puback(1)


async def test_the_sink_may_fill_up_again_while_it_resumes(endpoint: Any, sink: Any, client: Any) -> None:
    devices = [await client(endpoint, 4, client_id=f"c{n}") for n in range(4)]
    sink.close()
    for c in devices:
        c.send(pk.Publish("a", b"1", 1, packet_id=1))
    await until(lambda: endpoint.counters.paused == 4)
    submit = sink.submit

    def one_only(batch: Any) -> None:
        submit(batch)
        sink.close()

    sink.submit = one_only
    for expected in (1, 2, 3, 4):
        sink.open()
        assert len(sink.messages) == expected
    sink.submit = submit
    sink.open()
    for c in devices:
        assert await c.receive() == pk.Puback(1)


@pytest.mark.parametrize("limit", [{"max_inflight": 10}, {"max_inflight_bytes": 1000}])
async def test_one_connection_has_its_own_bound(
    make_endpoint: Any, sink: Any, client: Any, limit: dict[str, int]
) -> None:
    endpoint = await make_endpoint(**limit)
    sink.automatic = False
    c = await client(endpoint, 4)
    other = await client(endpoint, 4, client_id="other")
    c.send(*[pk.Publish("a", bytes(100), 1, packet_id=n) for n in range(1, 21)])
    await sink.wait(20)
    await until(lambda: endpoint.counters.paused == 1)
    c.send(pk.Publish("a", b"later", 1, packet_id=30))
    assert await other.ask(pk.Pingreq()) == pk.Pingresp()
    assert len(sink.messages) == 20
    sink.settle_all()
    assert [(await c.receive()).packet_id for _ in range(20)] == list(range(1, 21))
    await sink.wait(21)


async def test_a_client_that_reads_no_acknowledgements_is_not_read(
    endpoint: Any, sink: Any, client: Any
) -> None:
    c = await client(endpoint, 4)
    c.writer.transport.pause_reading()
    block = b"".join(encode(pk.Publish("a", b"", 1, packet_id=n), 4) for n in range(1, 5001))

    async def flood() -> None:
        while True:
            c.writer.write(block)
            await c.writer.drain()

    flooding = asyncio.create_task(flood())
    await until(lambda: endpoint.counters.paused == 1, 20)
    count = len(sink.messages)
    flooding.cancel()
    connection = next(iter(endpoint._connections))
    assert connection._transport.get_write_buffer_size() < 1 << 20
    c.writer.transport.resume_reading()
    async with asyncio.timeout(30):
        acknowledgements = await c.reader.readexactly(4 * count)
    assert acknowledgements[:4] == encode(pk.Puback(1), 4)


async def test_large_packets_in_pieces_are_bounded_together(
    make_endpoint: Any, sink: Any, client: Any
) -> None:
    endpoint = await make_endpoint(max_partial=100_000)
    one = await client(endpoint, 5, client_id="one")
    two = await client(endpoint, 5, client_id="two")
    packet = encode(pk.Publish("a", bytes(90_000)), 5)
    one.send(packet[:60_000])
    await until(lambda: endpoint.partial == 60_000)
    two.send(packet[:60_000])
    assert (await two.receive()).reason == 0x89  # server busy
    assert endpoint.partial == 60_000
    one.send(packet[60_000:])
    await sink.wait(1)
    assert endpoint.partial == 0


async def test_draining_settles_what_has_come(endpoint: Any, sink: Any, client: Any) -> None:
    sink.automatic = False
    c = await client(endpoint, 5)
    c.send(pk.Publish("a", b"1", 1, packet_id=1))
    await sink.wait(1)
    endpoint.drain()
    c.send(pk.Publish("a", b"2", 1, packet_id=2))
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", endpoint.port)
    sink.settle_all()
    assert await c.receive() == pk.Puback(1)
    await endpoint.close()
    assert (await c.receive()).reason == 0x8B
    assert len(sink.messages) == 1
