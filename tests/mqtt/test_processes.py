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


# A worker that stores what a broker sends it, and settles a little later.
WORKER = """
import asyncio, os, sys, uvloop
from pathlib import Path
from caudal.mqtt.identity import WorkerIdentity
from caudal.mqtt.ports import settle
from caudal.mqtt.settings import SubscriberSettings
from caudal.mqtt.subscriber import Subscriber

class Store:
    accepting = True
    def __init__(self): self.file = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    def submit(self, batch):
        os.write(self.file, b"".join(m.payload + b"\\n" for m in batch))
        asyncio.get_running_loop().call_later(0.005, settle, batch)
    def on_resume(self, callback): pass

async def main():
    name = WorkerIdentity(Path(sys.argv[2]).parent / "workers")
    url = f"mqtt://127.0.0.1:{sys.argv[1]}"
    settings = SubscriberSettings(url=url, topics=("a",), client_id=name.client_id, retry_first=0.1)
    subscriber = Subscriber(settings, Store())
    subscriber.start()
    await subscriber.online.wait()
    print(sys.argv[1], flush=True)
    await asyncio.Event().wait()

uvloop.run(main())
"""


async def start(port: int, store: Any, program: str = PROGRAM) -> tuple[asyncio.subprocess.Process, int]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(port), str(store), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(20):
        async for line in process.stdout:  # what is not a number is its log
            if line.strip().isdigit():
                return process, int(line)
    raise RuntimeError("the process ended before it was ready")


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


async def test_a_worker_killed_and_a_broker_restarted_lose_nothing(broker: Any, tmp_path: Any) -> None:
    store = tmp_path / "store"
    worker, _ = await start(broker.port, store, WORKER)
    fleet = LoadFleet("127.0.0.1", broker.port, connects(3), window=20, reconnect=True)
    await fleet.open()
    sources = [[("a", b"%d-%d" % (c, n)) for n in range(10_000)] for c in range(3)]
    running = asyncio.create_task(fleet.run(sources, rate=3000, seconds=40))
    try:
        for number in range(4):
            before = fleet.totals.acked
            async with asyncio.timeout(20):
                while fleet.totals.acked < before + 2000:
                    await asyncio.sleep(0.005)
            if number == 2:
                await broker.stop()  # writes its sessions down, as a restart of the service does
                await broker.start()
            else:
                os.kill(worker.pid, signal.SIGKILL)
                await worker.wait()
                worker, _ = await start(broker.port, store, WORKER)
        totals = await running
        expected = {payload for source in sources for _, payload in source}
        async with asyncio.timeout(20):
            while set(store.read_bytes().split()) != expected:
                await asyncio.sleep(0.1)
    finally:
        running.cancel()
        await fleet.close()
        await stop(worker)
    assert totals.unacked == 0
