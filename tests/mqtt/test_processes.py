"""Several processes on one port, and a process that is killed: what is acknowledged has been settled."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

from caudal.mqtt import packets as pk
from caudal.mqtt.loadclient import LoadFleet

# An endpoint that stores each payload as a line, and settles after the write.
PROGRAM = """
import asyncio, os, sys, uvloop
from caudal.mqtt.endpoint import Endpoint
from caudal.mqtt.ports import Principal, settle
from caudal.mqtt.settings import EndpointSettings

class Store:
    accepting = True
    def __init__(self): self.file = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    def submit(self, batch):
        os.write(self.file, b"".join(m.payload + b"\\n" for m in batch))
        asyncio.get_running_loop().call_soon(settle, batch)
    def on_resume(self, callback): pass

class Hooks:
    async def authenticate(self, info): return Principal(info.username or "")
    def may_publish(self, principal, topic): return True
    def may_subscribe(self, principal, pattern): return True
    def connected(self, *_): pass
    def disconnected(self, *_): pass

async def main():
    endpoint = Endpoint(EndpointSettings(port=int(sys.argv[1])), Store(), Hooks())
    await endpoint.start()
    print(endpoint.port, flush=True)
    await asyncio.Event().wait()

uvloop.run(main())
"""


async def start(port: int, store: Any) -> tuple[asyncio.subprocess.Process, int]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, str(port), str(store), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(20):
        return process, int(await process.stdout.readline())


async def stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()


def connects(count: int) -> list[pk.Connect]:
    return [pk.Connect(f"c{n}", 5, clean_start=False, keep_alive=60) for n in range(count)]


async def test_processes_share_a_port(tmp_path: Any) -> None:
    one, port = await start(0, tmp_path / "one")
    two, _ = await start(port, tmp_path / "two")
    try:
        fleet = LoadFleet("127.0.0.1", port, connects(50))
        await fleet.open()
        totals = await fleet.run([[("a", b"%d" % n)] for n in range(50)])
        await fleet.close()
    finally:
        await stop(one)
        await stop(two)
    assert totals.acked == 50
    shares = [(tmp_path / name).read_bytes().split() for name in ("one", "two")]
    assert sorted(int(line) for share in shares for line in share) == list(range(50))
    assert all(shares)  # the kernel spreads connections; all fifty on one side would be a broken port


async def test_what_was_acknowledged_survives_kill_9(tmp_path: Any) -> None:
    store = tmp_path / "store"
    process, port = await start(0, store)
    fleet = LoadFleet("127.0.0.1", port, connects(5), window=50, reconnect=True)
    await fleet.open()
    sources = [[("a", b"%d-%d" % (c, n)) for n in range(20_000)] for c in range(5)]
    running = asyncio.create_task(fleet.run(sources, seconds=30))
    try:
        for number in range(3):
            before = fleet.totals.acked
            async with asyncio.timeout(20):
                while fleet.totals.acked < before + 5000:
                    await asyncio.sleep(0.005)
            os.kill(process.pid, signal.SIGKILL)
            await process.wait()
            stored = set(store.read_bytes().split())
            for client_number, client in enumerate(fleet.clients):
                acked = {b"%d-%d" % (client_number, n) for n, was in enumerate(client.acked) if was}
                assert acked <= stored, f"kill {number}"
            process, _ = await start(port, store)
        totals = await running
    finally:
        running.cancel()
        await fleet.close()
        await stop(process)
    assert totals.reconnects >= 5
    assert totals.unacked == 0
    assert set(store.read_bytes().split()) == {payload for source in sources for _, payload in source}
