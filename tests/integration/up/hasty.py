"""Ingest as it must not be, for `caudal validate` to catch. A process of its own: `hasty`, or `hasty lossy`.

Hasty, it acknowledges on receipt, before the commit; all is stored, a moment later. Lossy, it acknowledges
each 97th message and forgets it.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence

import msgspec

from caudal.app import ingest
from caudal.app.process import run_process
from caudal.mqtt.ports import Inbound, Principal, settle
from caudal.telemetry.pipeline import Pipeline

EACH = 97
_numbers = itertools.count(1)


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


class Lossy(Pipeline):
    def submit(self, batch: list[Inbound]) -> None:
        numbered = [(next(_numbers), message) for message in batch]
        settle([message for number, message in numbered if number % EACH == 0])
        if kept := [message for number, message in numbered if number % EACH]:
            super().submit(kept)


if __name__ == "__main__":
    ingest.Pipeline = Lossy if sys.argv[1:] == ["lossy"] else Hasty  # type: ignore[misc]
    sys.exit(run_process(ingest.start))
