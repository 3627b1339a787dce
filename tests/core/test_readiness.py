"""A process says once that it is ready, and stops in order when its starter is gone."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator

import msgspec
import pytest

from caudal.core.lifecycle import Lifecycle
from caudal.core.readiness import VARIABLE, announce


@pytest.fixture
async def life() -> AsyncIterator[Lifecycle]:
    made = Lifecycle()
    yield made
    await made.stop()


def ends() -> tuple[socket.socket, dict[str, str]]:
    """The starter's end, and the environment that the started process finds."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    return ours, {VARIABLE: str(theirs.detach())}


async def test_without_a_starter_nothing_happens(life: Lifecycle) -> None:
    await announce(life, {}, {"a_url": "http://a"})
    await announce(life, {VARIABLE: ""}, {"a_url": "http://a"})
    assert not life.stopping


async def test_one_line_of_json_says_where_it_answers(life: Lifecycle) -> None:
    ours, environ = ends()
    await announce(life, environ, {"a_url": "http://a", "b_url": "mqtt://b"})
    line = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(ours, 4096), 5)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert msgspec.json.decode(line) == {"a_url": "http://a", "b_url": "mqtt://b"}
    assert not life.stopping
    ours.close()


async def test_a_starter_that_goes_takes_the_process_along(life: Lifecycle) -> None:
    stopped: list[str] = []

    async def stop() -> None:
        stopped.append("part")

    life.on_stop("part", stop)
    ours, environ = ends()
    await announce(life, environ, {})
    ours.close()
    await asyncio.wait_for(life.wait(), 5)
    await life.stop()
    # A stop that was asked for, and no failure: in order, with the exit status 0.
    assert (stopped, life.failure) == (["part"], None)


async def test_our_end_is_closed_when_we_stop_first(life: Lifecycle) -> None:
    ours, environ = ends()
    await announce(life, environ, {})
    loop = asyncio.get_running_loop()
    await asyncio.wait_for(loop.sock_recv(ours, 4096), 5)
    await life.stop()
    assert await asyncio.wait_for(loop.sock_recv(ours, 4096), 5) == b""
    ours.close()


async def test_a_number_that_is_no_socket_is_an_error(life: Lifecycle) -> None:
    reading, writing = os.pipe()
    try:
        with pytest.raises(OSError, match="socket"):
            await announce(life, {VARIABLE: str(reading)}, {})
    finally:
        os.close(writing)
