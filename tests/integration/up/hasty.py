"""An ingest whose door acknowledges on receipt, before the commit: what `caudal validate` has to catch.

A process of its own. All is stored, a moment later.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import msgspec

from caudal.app import ingest
from caudal.app.process import run_process
from caudal.mqtt.ports import Inbound, Principal, settle
from caudal.telemetry.pipeline import Pipeline


class Nobody:
    """Has had its acknowledgement already."""

    def __init__(self, message: Inbound) -> None:
        self.principal: Principal = message.origin.principal
        self.client_id = message.origin.client_id

    def settle(self, messages: Sequence[Inbound], reason: int = 0) -> None: ...


class Hasty(Pipeline):
    def submit(self, batch: list[Inbound]) -> None:
        settle(batch)
        super().submit([msgspec.structs.replace(message, origin=Nobody(message)) for message in batch])


if __name__ == "__main__":
    ingest.Pipeline = Hasty  # type: ignore[misc]
    sys.exit(run_process(ingest.start))
