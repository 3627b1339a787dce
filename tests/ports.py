"""Ports for servers that tests start, stop and start again on the same port."""

from __future__ import annotations

import itertools
import os
import socket

# Below what the system gives to outgoing connections: a port from there can be gone by the time a killed
# server comes back to it. Each test process begins elsewhere, and goes round.
FIRST, COUNT = 12_000, 20_000
_numbers = itertools.count(os.getpid() * 211 % COUNT)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on, and that this process has not given away lately."""
    while True:
        port = FIRST + next(_numbers) % COUNT
        with socket.socket() as probe:
            # As servers do it, so that what a closed connection left behind does not count.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
