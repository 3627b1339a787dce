"""A publisher that costs next to nothing: packets encoded beforehand, many in one write, PUBACKs counted.

Runs as a process of its own (`python -m bench.load`), because a generator that shares the loop of what it
measures measures itself. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import selectors
import socket
import struct
import sys
import time


def varint(number: int) -> bytes:
    out = bytearray()
    while True:
        number, low = divmod(number, 128)
        out.append(low | (128 if number else 0))
        if not number:
            return bytes(out)


def connect_packet(client_id: str, user: str = "", password: str = "") -> bytes:
    flags = 2 | (0xC0 if user else 0)
    body = b"\0\4MQTT\4" + bytes([flags]) + struct.pack(">H", 60)
    for text in (client_id, *((user, password) if user else ())):
        raw = text.encode()
        body += struct.pack(">H", len(raw)) + raw
    return b"\x10" + varint(len(body)) + body


def publish_packet(topic: bytes, payload: bytes, number: int) -> bytes:
    body = struct.pack(">H", len(topic)) + topic + struct.pack(">H", number) + payload
    return b"\x32" + varint(len(body)) + body


def payload(points: int, at_us: int) -> bytes:
    """A `v1` message; about 500 bytes at 10 points."""
    seconds, micro = divmod(at_us, 1_000_000)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{micro:06d}Z"
    inside = ",".join(
        f'{{"name":"p{i:02d}","t":"num","v":{20 + i * 1.25 + (at_us % 977) / 100:.2f},"u":"C"}}'
        for i in range(points)
    )
    return f'{{"schema":"v1","ts":"{stamp}","points":[{inside}]}}'.encode()


class Source:
    """One connection: its packets, how far it has sent, how many were acknowledged."""

    __slots__ = ("acked", "blob", "ends", "partial", "sent", "sock")

    def __init__(self, sock: socket.socket, packets: list[bytes]) -> None:
        self.sock = sock
        self.blob = memoryview(b"".join(packets))
        self.ends = [0]
        for packet in packets:
            self.ends.append(self.ends[-1] + len(packet))
        self.sent = 0  # bytes
        self.acked = 0  # messages
        self.partial = 0  # bytes of a PUBACK cut in two

    def window_end(self, window: int) -> int:
        return self.ends[min(self.acked + window, len(self.ends) - 1)]


def open_connection(host: str, port: int, client_id: str, user: str, password: str) -> socket.socket:
    sock = socket.create_connection((host, port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(connect_packet(client_id, user, password))
    answer = b""
    while len(answer) < 4:
        answer += sock.recv(4 - len(answer))
    if answer[3] != 0:
        raise SystemExit(f"refused: {answer!r}")
    return sock


def run(sources: list[Source], window: int) -> float:
    """Send everything, each connection with at most `window` unacknowledged; returns the seconds it took."""
    chooser = selectors.DefaultSelector()
    left = 0
    for source in sources:
        source.sock.setblocking(False)
        chooser.register(source.sock, selectors.EVENT_READ | selectors.EVENT_WRITE, source)
        left += len(source.ends) - 1
    began = time.perf_counter()
    while left:
        for key, mask in chooser.select(10):
            source: Source = key.data
            if mask & selectors.EVENT_READ:
                data = source.sock.recv(65536)
                if not data:
                    raise SystemExit("the server closed the connection")
                total = source.partial + len(data)
                source.partial = total % 4
                source.acked += total // 4
                left -= total // 4
            end = source.window_end(window)
            if source.sent < end:
                try:
                    source.sent += source.sock.send(source.blob[source.sent : min(end, source.sent + 262144)])
                except BlockingIOError:
                    pass
            wanted = selectors.EVENT_READ
            if source.sent < source.window_end(window):
                wanted |= selectors.EVENT_WRITE
            if wanted != key.events:
                chooser.modify(source.sock, wanted, source)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--user", default="")
    parser.add_argument("--password", default="")
    parser.add_argument("--messages", type=int, default=50_000)
    parser.add_argument("--points", type=int, default=10)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--devices", type=int, default=800)
    parser.add_argument("--window", type=int, default=1000)
    parser.add_argument("--tag", default="a")
    parser.add_argument("--tenant", default="bench")
    parser.add_argument("--at", type=int, default=0, help="microseconds since 1970 of the first message")
    chosen = parser.parse_args()
    at = chosen.at or time.time_ns() // 1000
    each = chosen.messages // chosen.connections
    fleet = max(1, chosen.devices // chosen.connections)
    sources = []
    for number in range(chosen.connections):
        packets = []
        for index in range(each):
            device = number * fleet + index % fleet
            topic = f"traksense/{chosen.tenant}/site/{chosen.tag}{device:05d}/telem".encode()
            body = payload(chosen.points, at + (index // fleet) * 10_000)
            packets.append(publish_packet(topic, body, index % 65_535 + 1))
        sock = open_connection(
            chosen.host, chosen.port, f"bench-{chosen.tag}-{number}", chosen.user, chosen.password
        )
        sources.append(Source(sock, packets))
    # What the clients cost is theirs: everything is encoded before the clock starts.
    print("ready", file=sys.stderr, flush=True)
    before, began = time.process_time(), time.time()
    seconds = run(sources, chosen.window)
    messages = each * chosen.connections
    json.dump(
        {
            "messages": messages,
            "points": messages * chosen.points,
            "seconds": seconds,
            "began": began,
            "cpu": time.process_time() - before,
            "bytes": sum(source.ends[-1] for source in sources),
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main()
