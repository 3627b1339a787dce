"""The endpoint, packet by packet: connecting, publishing, sessions, and every limit with its reason code."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from caudal.mqtt import packets as pk
from caudal.mqtt.codec import encode
from caudal.mqtt.codes import Reason
from caudal.mqtt.properties import Properties

VERSIONS = pytest.mark.parametrize("version", [4, 5])
TOPIC = "traksense/t/s/d/telem"


@VERSIONS
async def test_acknowledged_after_the_sink_has_settled(
    endpoint: Any, sink: Any, client: Any, version: int
) -> None:
    sink.automatic = False
    c = await client(endpoint, version)
    c.send(*[pk.Publish(TOPIC, b"%d" % n, 1, packet_id=n) for n in (1, 2, 3)], pk.Pingreq())
    assert await c.receive() == pk.Pingresp()  # nothing acknowledged so far
    await sink.wait(3)
    assert endpoint.counters.unsettled == 3
    sink.settle_all()
    assert [(await c.receive()).packet_id for _ in range(3)] == [1, 2, 3]
    assert endpoint.counters.unsettled == 0
    assert [m.payload for m in sink.messages] == [b"1", b"2", b"3"]


@VERSIONS
async def test_qos_0_and_one_batch_for_a_chunk(endpoint: Any, sink: Any, client: Any, version: int) -> None:
    c = await client(endpoint, version)
    c.send(*[pk.Publish(TOPIC, b"x") for _ in range(50)])
    await sink.wait(50)
    assert sink.batches == [50]
    assert sink.messages[0].origin.client_id == "c"


@VERSIONS
async def test_qos_2_is_delivered_once(endpoint: Any, sink: Any, client: Any, version: int) -> None:
    sink.automatic = False
    c = await client(endpoint, version)
    c.send(pk.Publish(TOPIC, b"1", 2, packet_id=5), pk.Publish(TOPIC, b"1", 2, dup=True, packet_id=5))
    await sink.wait(1)
    sink.settle_all()
    assert await c.receive() == pk.Pubrec(5)
    assert await c.ask(pk.Publish(TOPIC, b"1", 2, dup=True, packet_id=5)) == pk.Pubrec(5)
    assert await c.ask(pk.Pubrel(5)) == pk.Pubcomp(5)
    assert len(sink.messages) == 1
    assert endpoint.counters.duplicates_in == 2
    # The identifier is free again.
    c.send(pk.Publish(TOPIC, b"2", 2, packet_id=5))
    await sink.wait(2)


@VERSIONS
async def test_qos_2_survives_a_new_connection(endpoint: Any, sink: Any, client: Any, version: int) -> None:
    sink.automatic = False
    lasting = {"clean_start": False}
    if version == 5:
        lasting["props"] = Properties(session_expiry_interval=60)
    first = await client(endpoint, version, **lasting)
    first.send(pk.Publish(TOPIC, b"1", 2, packet_id=5))
    await sink.wait(1)
    first.close()
    second = await client(endpoint, version, **lasting)
    assert second.connack.session_present
    second.send(pk.Publish(TOPIC, b"1", 2, dup=True, packet_id=5), pk.Pingreq())
    assert await second.receive() == pk.Pingresp()
    assert len(sink.messages) == 1
    sink.settle_all()  # the answer goes to the connection there is now
    assert await second.receive() == pk.Pubrec(5)
    assert await second.ask(pk.Pubrel(5)) == pk.Pubcomp(5)


async def test_pubrel_for_nothing(endpoint: Any, client: Any) -> None:
    c = await client(endpoint, 5)
    assert await c.ask(pk.Pubrel(9)) == pk.Pubcomp(9, Reason.PACKET_ID_NOT_FOUND)


async def test_refused_messages(endpoint: Any, sink: Any, client: Any) -> None:
    sink.reason = Reason.QUOTA_EXCEEDED
    five = await client(endpoint, 5)
    assert await five.ask(pk.Publish(TOPIC, b"", 1, packet_id=1)) == pk.Puback(1, Reason.QUOTA_EXCEEDED)
    assert await five.ask(pk.Publish(TOPIC, b"", 2, packet_id=2)) == pk.Pubrec(2, Reason.QUOTA_EXCEEDED)
    # Without reason codes the only way to refuse is to hang up, unacknowledged.
    four = await client(endpoint, 4, client_id="four")
    four.send(pk.Publish(TOPIC, b"", 1, packet_id=1))
    assert await four.ended() == b""


async def test_topics_that_are_not_allowed(endpoint: Any, sink: Any, hooks: Any, client: Any) -> None:
    five = await client(endpoint, 5)
    answer = await five.ask(pk.Publish("secret/a", b"", 1, packet_id=1))
    assert answer == pk.Puback(1, Reason.NOT_AUTHORIZED)
    five.send(pk.Publish("secret/a", b""))
    assert await five.ask(pk.Pingreq()) == pk.Pingresp()
    four = await client(endpoint, 4, client_id="four")
    four.send(pk.Publish("secret/a", b"", 1, packet_id=1))
    assert await four.ended() == b""
    assert sink.messages == []
    assert endpoint.counters.publishes_refused == 3


async def test_the_hook_is_asked_once_for_a_topic(endpoint: Any, sink: Any, hooks: Any, client: Any) -> None:
    c = await client(endpoint)
    for _ in range(3):
        await c.ask(pk.Publish(TOPIC, b"", 1, packet_id=1))
    assert hooks.asked == 1
    endpoint.recheck(lambda principal, client_id: True)
    await c.ask(pk.Publish(TOPIC, b"", 1, packet_id=1))
    assert hooks.asked == 2


@VERSIONS
async def test_refused_at_the_door(endpoint: Any, open_client: Any, version: int) -> None:
    c = await open_client(endpoint, version)
    answer = await c.ask(pk.Connect("c", version, username="nobody", password=b"x"))
    assert answer == pk.Connack(
        False, Reason.BAD_USER_NAME_OR_PASSWORD, Properties() if version == 5 else None
    )
    assert await c.ended() == b""
    assert endpoint.counters.connects_refused == 1


async def test_a_hook_that_fails_is_no_reason_to_let_anyone_in(
    endpoint: Any, hooks: Any, open_client: Any
) -> None:
    hooks.error = RuntimeError("registry is gone")
    c = await open_client(endpoint, 5)
    assert (await c.ask(pk.Connect("c", 5))).reason == Reason.SERVER_UNAVAILABLE


CONNECTS = [
    (pk.Connect("", 4, clean_start=False), Reason.CLIENT_IDENTIFIER_NOT_VALID),
    (pk.Connect("x" * 300, 5), Reason.CLIENT_IDENTIFIER_NOT_VALID),
    (pk.Connect("c", 5, props=Properties(authentication_method="x")), Reason.BAD_AUTHENTICATION_METHOD),
    (pk.Connect("c", 5, will=pk.Will("a", b"", retain=True)), Reason.RETAIN_NOT_SUPPORTED),
    (pk.Connect("c", 5, will=pk.Will("a/#", b"")), Reason.TOPIC_NAME_INVALID),
    (pk.Connect("c", 5, will=pk.Will("secret/a", b"")), Reason.NOT_AUTHORIZED),
    (pk.Connect("c", 4, will=pk.Will("secret/a", b"")), Reason.NOT_AUTHORIZED),
    (b"\x10\x0e\0\6MQIsdp\3\2\0\0\0\0", Reason.UNSUPPORTED_PROTOCOL_VERSION),
    (b"\x10\x0d\0\4MQTT\6\2\0\0\0\0\0", Reason.UNSUPPORTED_PROTOCOL_VERSION),
    (b"\x10\x0d\0\4MQTT\5\3\0\0\0\0\0", Reason.MALFORMED_PACKET),
]


@pytest.mark.parametrize(("packet", "reason"), CONNECTS)
async def test_connects_that_are_refused(
    endpoint: Any, open_client: Any, packet: Any, reason: Reason
) -> None:
    version = packet.version if isinstance(packet, pk.Connect) else (4 if packet[8:9] == b"d" else 5)
    c = await open_client(endpoint, version)
    assert (await c.ask(packet)).reason == reason
    assert await c.ended() == b""


async def test_what_it_says_of_itself(make_endpoint: Any, client: Any) -> None:
    endpoint = await make_endpoint(max_inflight=10, max_packet=5000, max_keep_alive=100)
    c = await client(endpoint, 5, client_id="", keep_alive=0)
    props = c.connack.props
    assert props.receive_maximum == 10
    assert props.maximum_packet_size == 5000
    assert props.retain_available == 0
    assert props.shared_subscription_available == 0
    assert props.server_keep_alive == 100
    assert len(props.assigned_client_identifier) == 32


async def fails(c: Any, data: pk.Packet | bytes) -> int:
    """The reason in the DISCONNECT that answers `data`."""
    answer = await c.ask(data)
    assert isinstance(answer, pk.Disconnect), answer
    assert await c.ended() == b""
    return answer.reason


LIMITS = [
    (pk.Publish("a/+", b""), Reason.TOPIC_NAME_INVALID),
    (pk.Publish("a", b"", retain=True), Reason.RETAIN_NOT_SUPPORTED),
    (pk.Publish("", b""), Reason.PROTOCOL_ERROR),
    (pk.Publish("a", b"", props=Properties(topic_alias=17)), Reason.TOPIC_ALIAS_INVALID),
    (pk.Publish("a", b"x" * 5000), Reason.PACKET_TOO_LARGE),
    (pk.Publish("a", b"", props=Properties(subscription_identifiers=(1,))), Reason.PROTOCOL_ERROR),
    (pk.Connect("c", 5), Reason.PROTOCOL_ERROR),
    (pk.Connack(False, 0), Reason.PROTOCOL_ERROR),
    (pk.Auth(0x18), Reason.PROTOCOL_ERROR),
    (pk.Pubrec(1), Reason.PROTOCOL_ERROR),
    (b"\x36\x06\0\1a\0\1\0", Reason.MALFORMED_PACKET),
    (b"\x00\x00", Reason.MALFORMED_PACKET),
    (b"\xc0\xff\xff\xff\xff\x01", Reason.MALFORMED_PACKET),
]


@pytest.mark.parametrize(("packet", "reason"), LIMITS)
async def test_rules_and_limits(make_endpoint: Any, client: Any, packet: Any, reason: Reason) -> None:
    endpoint = await make_endpoint(max_packet=4096)
    c = await client(endpoint, 5)
    assert await fails(c, packet) == reason
    assert endpoint.counters.protocol_errors == 1


async def test_receive_maximum(make_endpoint: Any, sink: Any, client: Any) -> None:
    endpoint = await make_endpoint(max_inflight=3)
    sink.automatic = False
    c = await client(endpoint, 5)
    c.send(*[pk.Publish("a", b"", 1 + n % 2, packet_id=n) for n in (1, 2, 3)])
    await sink.wait(3)
    assert await fails(c, pk.Publish("a", b"", 1, packet_id=4)) == Reason.RECEIVE_MAXIMUM_EXCEEDED
    assert len(sink.messages) == 3


async def test_the_first_packet_is_a_connect(endpoint: Any, open_client: Any) -> None:
    c = await open_client(endpoint)
    c.send(pk.Publish("a", b""))
    assert await c.ended() == b""


async def test_a_second_connection_takes_the_session_over(endpoint: Any, hooks: Any, client: Any) -> None:
    first = await client(endpoint, 5)
    second = await client(endpoint, 5)
    assert await first.receive() == pk.Disconnect(Reason.SESSION_TAKEN_OVER)
    assert await second.ask(pk.Pingreq()) == pk.Pingresp()
    assert hooks.log == [("connected", "c", 0), ("disconnected", "c", 0x8E), ("connected", "c", 0)]


async def test_client_ids_belong_to_their_principal(endpoint: Any, client: Any) -> None:
    mine = await client(endpoint, 5, username="t:a:d:1")
    await client(endpoint, 5, username="t:b:d:1")  # the same client id, somebody else
    assert await mine.ask(pk.Pingreq()) == pk.Pingresp()
    assert endpoint.counters.sessions == 2


async def test_packets_behind_the_connect_wait_for_the_answer(
    endpoint: Any, hooks: Any, sink: Any, open_client: Any
) -> None:
    hooks.gate = asyncio.Event()
    c = await open_client(endpoint, 5)
    c.send(encode(pk.Connect("c", 5), 5) + encode(pk.Publish("a", b"1", 1, packet_id=1), 5))
    while not hooks.infos:
        await asyncio.sleep(0)
    assert sink.messages == []
    hooks.gate.set()
    assert isinstance(await c.receive(), pk.Connack)
    assert await c.receive() == pk.Puback(1)


async def test_close_says_goodbye(endpoint: Any, client: Any) -> None:
    c = await client(endpoint, 5, will=pk.Will("w", b"gone"))
    await endpoint.close()
    assert await c.receive() == pk.Disconnect(Reason.SERVER_SHUTTING_DOWN)


@pytest.mark.parametrize("hook", ["connected", "may_publish"])
async def test_a_hook_that_raises_costs_its_connection_and_no_other(
    endpoint: Any, hooks: Any, sink: Any, client: Any, open_client: Any, hook: str
) -> None:
    good = await client(endpoint, 5, client_id="good")

    def broken(*_args: Any) -> bool:
        raise RuntimeError("a bug in the registry")

    setattr(hooks, hook, broken)
    hooks.disconnected = broken
    bad = await open_client(endpoint, 5)
    bad.send(pk.Connect("bad", 5), pk.Publish("a", b"", 1, packet_id=1))
    await bad.ended()
    while endpoint.counters.connections > 1:
        await asyncio.sleep(0)
    assert endpoint.counters.pending == 0
    assert await good.ask(pk.Pingreq()) == pk.Pingresp()
    assert sink.messages == []
