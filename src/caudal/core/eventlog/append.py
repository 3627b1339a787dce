"""Appending to the log's tables: what both logs publish by, and where its records are heard of."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from caudal.core.eventlog.port import Connection, Outgoing

CHANNEL = "caudal_log"
"""The NOTIFY channel whose words are topics."""


async def append(connection: Connection, records: Sequence[Outgoing]) -> None:
    """Append records within the caller's transaction; late in it: partitions stay locked until its end."""
    # By topic in one order for everybody: no two publishers hold what the other waits for.
    for topic, group in groupby(sorted(records, key=lambda r: r.topic), key=lambda r: r.topic):
        same = list(group)
        await connection.execute(
            "select caudal.log_append($1, $2, $3)", topic, [r.key for r in same], [r.value for r in same]
        )
