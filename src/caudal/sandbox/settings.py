"""What `caudal sandbox` can be told."""

from __future__ import annotations

from typing import Annotated

import msgspec

from caudal.core.settings import setting


class SandboxSettings(msgspec.Struct, frozen=True):
    """Where the sandbox listens and what it starts with."""

    sandbox_host: Annotated[str, setting("Address the sandbox listens on")] = "127.0.0.1"
    sandbox_port: Annotated[int, setting("Port of the sandbox; 0 takes a free one", ge=0, le=65535)] = 8090
    sandbox_seed: Annotated[int, setting("Seed of the sandbox's chance, so that faults repeat")] = 1
    sandbox_retry_first: Annotated[
        float, setting("Seconds before a webhook that was not taken is sent again; doubles each time", gt=0)
    ] = 1.0
