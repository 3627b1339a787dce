"""Limit of the door alone: our endpoint, or our subscriber, that settles at once and stores nothing.

A process of its own (`python -m bench.null endpoint|subscriber`), announced like any of ours.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from caudal.app.ingest import OpenHooks
from caudal.app.process import run_process
from caudal.core.lifecycle import Lifecycle
from caudal.core.readiness import announce
from caudal.mqtt.endpoint import Endpoint
from caudal.mqtt.ports import Inbound, settle
from caudal.mqtt.settings import EndpointSettings, SubscriberSettings
from caudal.mqtt.subscriber import Subscriber


class NullSink:
    """Acknowledges on receipt: what a device is promised by most servers."""

    accepting = True

    def __init__(self) -> None:
        self.count = 0

    def submit(self, batch: list[Inbound]) -> None:
        self.count += len(batch)
        settle(batch)
        if os.environ.get("COUNT_TO") and self.count >= int(os.environ["COUNT_TO"]):
            Path(os.environ["COUNT_FILE"]).touch()

    def on_resume(self, callback: Callable[[], None]) -> None: ...


async def start(life: Lifecycle) -> None:
    sink = NullSink()
    if sys.argv[1] == "endpoint":
        endpoint = Endpoint(EndpointSettings(port=0), sink, OpenHooks())
        await endpoint.start()
        life.on_stop("endpoint", endpoint.close)
        url = f"mqtt://127.0.0.1:{endpoint.port}"
    else:
        url = os.environ["MQTT_URL"]
        subscriber = Subscriber(
            SubscriberSettings(url=url, topics=("traksense/+/+/+/telem",), client_id="null"), sink
        )
        subscriber.start()
        life.on_stop("subscriber", subscriber.close)
        await subscriber.online.wait()
    await announce(life, os.environ, {"mqtt_url": url})


if __name__ == "__main__":
    sys.exit(run_process(start))
