"""A fleet that costs little: many connections, each publishing once a second in its own turn, PUBACKs timed.

Runs as a process of its own (`python -m bench.fleet`), without a loop or a collector that could pause it:
what it measures would be its own. Says `ready` when every device has published once and been acknowledged,
then publishes, and prints one line of JSON. A message's time runs from its `send` to its PUBACK; how late the
`send` itself was against its turn is told beside it.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import select
import socket
import sys
import time
from array import array

from bench.load import open_connection, payload, varint


class Device:
    """One connection, and when each message that is not acknowledged was sent."""

    __slots__ = ("head", "number", "sent", "sock", "tail", "waiting")

    def __init__(self, sock: socket.socket, topic: bytes, points: int) -> None:
        body = payload(points, 0)
        # `{"schema":"v1","ts":"` + 27 characters of instant + the rest.
        at = body.index(b'"ts":"') + 6
        size = 2 + len(topic) + 2 + len(body)
        self.head = b"\x32" + varint(size) + len(topic).to_bytes(2, "big") + topic
        self.tail = (body[:at], body[at + 27 :])
        self.sock = sock
        self.number = 0
        self.waiting: dict[int, float] = {}
        self.sent = 0

    def publish(self, stamp: bytes) -> None:
        number = self.number = self.number % 65_535 + 1
        before, after = self.tail
        packet = b"".join((self.head, number.to_bytes(2, "big"), before, stamp, after))
        self.waiting[number] = time.perf_counter()
        try:
            done = self.sock.send(packet)
        except BlockingIOError:
            done = 0
        if done != len(packet):  # its socket is full: it is not read, and a device waits then
            self.sock.setblocking(True)
            self.sock.sendall(packet[done:])
            self.sock.setblocking(False)
        self.sent += 1

    def receive(self, into: array[float]) -> None:
        data = self.sock.recv(4096)
        now = time.perf_counter()
        if not data:
            raise SystemExit("the server closed the connection")
        while len(data) % 4:
            data += self.sock.recv(4 - len(data) % 4)
        for at in range(0, len(data), 4):
            into.append(now - self.waiting.pop(data[at + 2] << 8 | data[at + 3]))


def stamp_of(moment: float) -> bytes:
    """An instant as 27 characters."""
    second = int(moment)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
    return f"{text}.{int((moment - second) * 1e6):06d}Z".encode()


def run(devices: list[Device], poll: select.epoll, seconds: float) -> tuple[array[float], array[float]]:
    """Each device once a second, evenly spread; returns times to PUBACK and how late each `send` was."""
    by_fd = {device.sock.fileno(): device for device in devices}
    taken, late = array("d"), array("d")
    count, step = len(devices), 1.0 / len(devices)
    began, turn, total = time.perf_counter(), 0, int(len(devices) * seconds)
    offset = time.time() - began
    while turn < total:
        now = time.perf_counter()
        while turn < total and began + turn * step <= now:
            late.append(now - began - turn * step)
            devices[turn % count].publish(stamp_of(now + offset))
            turn += 1
            now = time.perf_counter()
            if not turn % 16:
                break
        for fd, _ in poll.poll(max(0.0, min(0.001, began + turn * step - now)), 1000):
            by_fd[fd].receive(taken)
    drain(devices, by_fd, poll, taken, 60)
    return taken, late


def drain(
    devices: list[Device],
    by_fd: dict[int, Device],
    poll: select.epoll,
    taken: array[float],
    patience: float,
) -> None:
    until = time.perf_counter() + patience
    while any(device.waiting for device in devices) and time.perf_counter() < until:
        for fd, _ in poll.poll(0.05, 1000):
            by_fd[fd].receive(taken)


def percentiles(values: array[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        f"p{p}": round(ordered[min(len(ordered) - 1, int(len(ordered) * p / 100))] * 1000, 1)
        for p in (50, 95, 99, 99.9)
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--devices", type=int, default=15_000)
    parser.add_argument("--points", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--warm", type=float, default=5, help="seconds before the measurement")
    parser.add_argument("--tag", default="f")
    chosen = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    poll = select.epoll()
    devices = []
    for number in range(chosen.devices):
        name = f"{chosen.tag}{number:05d}"
        sock = open_connection("127.0.0.1", chosen.port, name, "", "")
        sock.setblocking(False)
        poll.register(sock.fileno(), select.EPOLLIN)
        devices.append(Device(sock, f"traksense/bench/site/{name}/telem".encode(), chosen.points))
    by_fd = {device.sock.fileno(): device for device in devices}
    # Every device once, so that registering them is not part of what follows.
    stamp = stamp_of(time.time() - 1)
    for device in devices:
        device.publish(stamp)
    drain(devices, by_fd, poll, array("d"), 120)
    gc.collect()
    gc.disable()
    run(devices, poll, chosen.warm)
    print("ready", file=sys.stderr, flush=True)
    before, began = time.process_time(), time.perf_counter()
    taken, late = run(devices, poll, chosen.seconds)
    slices = [taken[i : i + chosen.devices] for i in range(0, len(taken), chosen.devices)]
    json.dump(
        {
            "messages": len(late),
            "unacknowledged": sum(len(device.waiting) for device in devices),
            "seconds": time.perf_counter() - began,
            "cpu": time.process_time() - before,
            "puback_ms": percentiles(taken),
            "late_ms": percentiles(late),
            "p99_by_second_ms": [percentiles(one)["p99"] for one in slices],
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main()
