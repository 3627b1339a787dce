"""Prometheus metrics: one registry a process, and the HTTP port it is scraped on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from threading import Thread
from wsgiref.simple_server import WSGIServer

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

FAST_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
SLOW_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 400, 800, 1600, 3200, 6400, 10_000)


class Metrics:
    """The metrics of one process. Domains declare theirs through it, so that tests can have their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def counter(self, name: str, sentence: str, *labels: str) -> Counter:
        """A counter; `name` without `_total`."""
        return Counter(name, sentence, labels, registry=self.registry)

    def gauge(self, name: str, sentence: str, *labels: str, read: Callable[[], float] | None = None) -> Gauge:
        """A gauge; with `read` it is asked at each scrape, so that it can never be stale."""
        made = Gauge(name, sentence, labels, registry=self.registry)
        if read is not None:
            made.set_function(read)
        return made

    def counts(self, prefix: str, what: str, source: msgspec.Struct, gauges: Collection[str]) -> None:
        """Show every number of `source`, those in `gauges` as gauges and the others as counters."""
        self.registry.register(_Counts(prefix, what, source, gauges))

    def histogram(
        self, name: str, sentence: str, *labels: str, buckets: tuple[float, ...] = FAST_SECONDS
    ) -> Histogram:
        """A histogram with buckets that resolve what the dashboards ask for."""
        return Histogram(name, sentence, labels, registry=self.registry, buckets=buckets)


class _Counts(Collector):
    """Plain numbers kept by somebody who knows nothing of Prometheus, read at each scrape."""

    def __init__(self, prefix: str, what: str, source: msgspec.Struct, gauges: Collection[str]) -> None:
        self._prefix, self._what, self._source, self._gauges = prefix, what, source, gauges

    def collect(self) -> Iterable[Metric]:
        for name in self._source.__struct_fields__:
            value = getattr(self._source, name)
            sentence = f"{self._what}: {name.replace('_', ' ')}"
            if name in self._gauges:
                yield GaugeMetricFamily(f"{self._prefix}_{name}", sentence, value)
            else:
                yield CounterMetricFamily(f"{self._prefix}_{name}", sentence, value)


class MetricsServer:
    """Serves a registry on its own thread, so that a busy loop still answers a scrape."""

    def __init__(self, server: WSGIServer, thread: Thread) -> None:
        self._server = server
        self._thread = thread
        self.port: int = server.server_port

    @classmethod
    def start(cls, metrics: Metrics, port: int, host: str = "127.0.0.1") -> MetricsServer:
        """Listen on `host:port`; port 0 takes a free one. Raises OSError when the port is taken."""
        server, thread = start_http_server(port, host, registry=metrics.registry)
        return cls(server, thread)

    async def stop(self) -> None:
        """Close the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=2)
