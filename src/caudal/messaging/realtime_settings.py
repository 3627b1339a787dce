"""Settings of realtime."""

from __future__ import annotations

from typing import Annotated

import msgspec

from caudal.core.settings import setting


class RealtimeSettings(msgspec.Struct, frozen=True):
    """Where sockets connect, how many may, and how patient we are with them."""

    realtime_port: Annotated[int, setting("Port of a gateway of sockets; 0: a free one", ge=0, le=65_535)] = (
        8085
    )
    sockets_max: Annotated[int, setting("Sockets that a process holds at most", ge=1)] = 10_000
    sockets_per_person: Annotated[int, setting("Sockets that a person holds at most in a process", ge=1)] = 20
    socket_send_seconds: Annotated[
        float, setting("Seconds that a socket may take for one frame; then it is cut off", gt=0)
    ] = 10.0
    socket_check_seconds: Annotated[
        float, setting("Seconds between looks whether a socket's token still holds", gt=0)
    ] = 30.0
