"""Files: a 2 GiB upload and download, the API's memory meanwhile, and `dd` to the same disk beside it."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from bench import stack
from caudal.core import db
from caudal.core.supervisor import Child, child_environ
from caudal.registry.passwords import Passwords
from caudal.registry.permissions import Role
from caudal.registry.tenants import create_person, create_tenant

Row = dict[str, Any]
MIB = 1024 * 1024
BOUNDARY = "bench"


def request(base: str, head: str, body: tuple[bytes, int, bytes] | None = None) -> tuple[bytes, int, float]:
    """One request on a plain socket, whose client costs next to nothing; answer's start, length, seconds.

    `body` is what goes before, how many MiB, and what goes after.
    """
    address = urlsplit(base)
    with socket.create_connection((address.hostname or "", address.port or 80)) as sock:
        started = time.perf_counter()
        sock.sendall(head.encode())
        if body is not None:
            before, size, after = body
            piece = os.urandom(MIB)
            sock.sendall(before)
            for _ in range(size):
                sock.sendall(piece)
            sock.sendall(after)
        start = b""
        while b"\r\n\r\n" not in start:
            start += sock.recv(65_536)
        header, _, rest = start.partition(b"\r\n\r\n")
        found = re.search(rb"(?i)content-length: (\d+)", header)
        wanted = int(found[1]) if found else 0
        got, kept = len(rest), rest
        buffer = bytearray(MIB)
        while got < wanted:
            count = sock.recv_into(buffer)
            if not count:
                break
            if got < 65_536:
                kept += bytes(buffer[:count])
            got += count
        return header + b"\r\n\r\n" + kept, got, time.perf_counter() - started


def disk(folder: Path, size: int) -> float:
    """Seconds that `dd` takes for so many MiB, brought to the disk."""
    target = folder / "dd"
    command = ["dd", "if=/dev/zero", f"of={target}", "bs=1M", f"count={size}", "conv=fsync", "status=none"]
    started = time.perf_counter()
    subprocess.run(command, check=True)
    took = time.perf_counter() - started
    target.unlink()
    return took


async def run(quick: bool) -> list[Row]:
    """Upload, download, dd; in turn, so that none takes the disk from another."""
    size = 256 if quick else 2048
    rows: list[Row] = []
    async with stack.database() as server:
        with tempfile.TemporaryDirectory(
            prefix="caudal-bench-files-", dir=os.environ.get("BENCH_DIR")
        ) as name:
            folder = Path(name)
            pool = await db.open_pool(server.url, minimum=1, maximum=2)
            await create_tenant(pool, "bench")
            await create_person(pool, Passwords(threads=1), tenant="bench", role=Role.MEMBER,
                                username="bench", password="bench-bench")  # fmt: skip
            await pool.close()
            environ = child_environ(
                os.environ, DATABASE_URL=server.url, API_PORT="0", CAUDAL_MASTER_KEY="bench" * 10,
                FILES_URL=str(folder / "files"), STATE_DIR=str(folder / "state"),
            )  # fmt: skip
            child = Child("api", ("caudal", "api"), environ, folder / "api.log")
            await child.start()
            try:
                rows = await asyncio.to_thread(_measure, child, folder, size)
            finally:
                await child.stop()
    return rows


def _measure(child: Child, folder: Path, size: int) -> list[Row]:
    base = child.endpoints["api_url"]
    assert child.pid is not None
    login = b'{"username":"bench","password":"bench-bench"}'
    answer, _, _ = request(
        base,
        "POST /auth/token HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(login)}\r\n\r\n",
        (login, 0, b""),
    )
    token = msgspec.json.decode(answer.partition(b"\r\n\r\n")[2])["access_token"]
    rate = [disk(folder, size)]
    idle, _ = stack.memory(child.pid)
    before = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="conversation_id"\r\n\r\nc\r\n'
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="big"\r\n\r\n'
    ).encode()
    after = f"\r\n--{BOUNDARY}--\r\n".encode()
    # The whole form: a file of exactly the limit is allowed.
    length = len(before) + size * MIB + len(after)
    used = stack.cpu(child.pid)
    head = (
        f"POST /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\nContent-Length: {length}\r\n\r\n"
    )
    answer, _, took = request(base, head, (before, size, after))
    made = msgspec.json.decode(answer.partition(b"\r\n\r\n")[2])
    assert made["size_bytes"] == size * MIB, made
    cpu = stack.cpu(child.pid) - used
    _, peak = stack.memory(child.pid)
    rate.append(disk(folder, size))
    bare = sum(rate) / len(rate)
    used = stack.cpu(child.pid)
    path = f"/v1/files/{made['file_id']}/content"
    head = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
    _, got, down = request(base, head)
    assert got == size * MIB, got
    _, after_peak = stack.memory(child.pid)
    return [
        {"what": f"upload of {size} MiB, SHA-256 and fsync", "mb_s": round(size * MIB / took / 1e6),
         "cpu_s": round(cpu, 1), "idle_mb": round(idle), "peak_mb": round(peak)},
        {"what": "dd with fsync to the same disk, before and after",
         "mb_s": [round(size * MIB / seconds / 1e6) for seconds in rate],
         "upload_against_dd": round(bare / took, 2)},
        {"what": f"download of {size} MiB", "mb_s": round(size * MIB / down / 1e6),
         "cpu_s": round(stack.cpu(child.pid) - used, 1), "peak_mb": round(after_peak)},
    ]  # fmt: skip
