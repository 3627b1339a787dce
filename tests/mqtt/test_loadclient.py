"""The load client knows what became of each of its messages."""

from __future__ import annotations

from typing import Any

import pytest

from caudal.mqtt import packets as pk
from caudal.mqtt.codes import Reason
from caudal.mqtt.loadclient import LoadError, LoadFleet


def connects(count: int, version: int = 5, **more: Any) -> list[pk.Connect]:
    return [pk.Connect(f"c{n}", version, keep_alive=60, **more) for n in range(count)]


def messages(name: str, count: int) -> list[tuple[str, bytes]]:
    return [(f"load/{name}", b"%d" % n) for n in range(count)]


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("qos", [0, 1])
async def test_everything_is_sent_and_acknowledged(endpoint: Any, sink: Any, version: int, qos: int) -> None:
    fleet = LoadFleet("127.0.0.1", endpoint.port, connects(3, version), qos=qos, window=50)
    await fleet.open()
    totals = await fleet.run([messages(str(n), 1000) for n in range(3)])
    await sink.wait(3000)
    await fleet.close()
    assert (totals.sent, totals.acked, totals.unacked) == (3000, 3000, 0)
    assert all(client.acked == b"\1" * 1000 for client in fleet.clients)
    assert [m.payload for m in sink.messages if m.topic == "load/1"] == [b"%d" % n for n in range(1000)]
    if qos:
        assert 0 < totals.latencies.percentile(0.5) <= totals.latencies.percentile(0.99) < 5


async def test_refusals_are_told_apart(endpoint: Any, sink: Any) -> None:
    sink.reason = Reason.QUOTA_EXCEEDED
    fleet = LoadFleet("127.0.0.1", endpoint.port, connects(1))
    await fleet.open()
    totals = await fleet.run([messages("a", 10)])
    await fleet.close()
    assert totals.refused == {Reason.QUOTA_EXCEEDED: 10}
    assert totals.acked == totals.unacked == 0


async def test_a_window_holds_and_unacknowledged_is_known(endpoint: Any, sink: Any) -> None:
    sink.automatic = False
    fleet = LoadFleet("127.0.0.1", endpoint.port, connects(1), window=7)
    await fleet.open()
    totals = await fleet.run([messages("a", 100)], seconds=0.2, patience=0.1)
    await fleet.close(politely=False)
    assert totals.sent == totals.unacked == 7
    assert len(sink.messages) == 7


async def test_a_rate_is_kept(endpoint: Any, sink: Any) -> None:
    fleet = LoadFleet("127.0.0.1", endpoint.port, connects(10))
    await fleet.open()
    totals = await fleet.run([messages(str(n), 10_000) for n in range(10)], rate=1000, seconds=0.5)
    await fleet.close()
    assert totals.unacked == 0
    assert 300 <= totals.sent <= 550
    each = [len(client.acked) for client in fleet.clients]
    assert max(each) - min(each) <= 1


async def test_it_comes_back_and_sends_again(endpoint: Any, sink: Any) -> None:
    sink.automatic = False
    fleet = LoadFleet("127.0.0.1", endpoint.port, connects(1), reconnect=True)
    await fleet.open()
    fleet.clients[0].credit = float("inf")
    fleet.clients[0].feed(messages("a", 10))
    await sink.wait(10)
    endpoint.disconnect(lambda principal, client_id: True)
    sink.automatic = True
    await fleet.clients[0].finished()
    await fleet.close()
    assert fleet.totals.acked == fleet.totals.resent == 10
    assert all(m.dup for m in sink.messages[10:])


async def test_a_refused_connection(endpoint: Any) -> None:
    fleet = LoadFleet("127.0.0.1", endpoint.port, connects(1, username="nobody"))
    with pytest.raises(ExceptionGroup) as caught:
        await fleet.open()
    assert caught.group_contains(LoadError, match="BAD_USER_NAME_OR_PASSWORD")
