"""What ingest says about itself; names and labels are the contract's, more beside them."""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import get_args

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from caudal.core.metrics import SIZES, SLOW_SECONDS, Metrics
from caudal.telemetry.batch import Batch, Tally
from caudal.telemetry.model import Reason


class Ages(Collector):
    """A histogram of how long ago things were, many at once: one bisection a bucket, no lock, no labels."""

    def __init__(self, metrics: Metrics, name: str, sentence: str, buckets: Sequence[float]) -> None:
        self._name, self._sentence, self._buckets = name, sentence, buckets
        self._bounds = [round(bound * 1e6) for bound in buckets]
        self._counts = [0] * (len(buckets) + 1)
        self._sum = 0.0
        metrics.registry.register(self)

    def observe(self, now: int, instants: list[int]) -> None:
        """Count how long ago, at `now`, each of these was, in microseconds; the list is sorted in place.

        What is still to come counts as now.
        """
        instants.sort()
        total = len(instants)
        # The latest are the shortest ago.
        after = total
        for bucket, bound in enumerate(self._bounds):
            begin = bisect_left(instants, now - bound, 0, after)
            self._counts[bucket] += after - begin
            after = begin
        self._counts[-1] += after
        past = bisect_right(instants, now)
        self._sum += (past * now - sum(instants[:past])) / 1e6

    def collect(self) -> Iterable[HistogramMetricFamily]:
        family = HistogramMetricFamily(self._name, self._sentence)
        total = 0
        buckets = []
        for bound, count in zip([*map(str, map(float, self._buckets)), "+Inf"], self._counts, strict=True):
            total += count
            buckets.append((bound, total))
        family.add_metric([], buckets, self._sum)
        yield family


class IngestMetrics:
    """Counters and histograms of the pipeline. All are counted after the commit."""

    def __init__(self, metrics: Metrics, *, in_flight: Callable[[], float] | None = None) -> None:
        self._messages = metrics.counter("ingest_messages", "Messages settled", "type")
        self._points = metrics.counter("ingest_points", "Samples stored")
        self._errors = metrics.counter("ingest_errors", "Dead letters", "reason")
        for reason in get_args(Reason):
            self._errors.labels(reason)  # so that a rate over none is 0, and not an empty panel
        self._duplicates = metrics.counter("ingest_duplicates", "Known duplicates")
        self._held = metrics.counter("ingest_held", "Held for devices in quarantine")
        self._bytes = metrics.counter("ingest_payload_bytes", "Bytes of payloads settled")
        self._sizes = metrics.histogram("ingest_batch_size", "Messages in a batch", buckets=SIZES)
        self._latency = Ages(
            metrics, "ingest_latency_seconds", "A device's timestamp to the commit", SLOW_SECONDS
        )
        self._commit = Ages(
            metrics, "ingest_commit_seconds", "Receipt of a message to its commit", SLOW_SECONDS
        )
        self._queue = metrics.gauge("ingest_queue_size", "Messages in flight")

    def watch(self, in_flight: Callable[[], float]) -> None:
        """Have the queue gauge ask the pipeline at each scrape."""
        self._queue.set_function(in_flight)

    def committed(self, batch: Batch, tallies: dict[int, Tally]) -> None:
        """Count a batch that has just been committed."""
        now = time.time_ns() // 1000
        self._sizes.observe(len(batch.entries))
        entries = batch.entries
        self._latency.observe(now, [entry.oldest for entry in entries if entry.oldest])
        self._commit.observe(now, [entry.message.received for entry in entries])
        for name, count in Counter([entry.format for entry in entries]).items():
            self._messages.labels(name or "none").inc(count)
        letters = [entry.letters for entry in entries if entry.letters]
        for name, count in Counter([letter.reason for some in letters for letter in some]).items():
            self._errors.labels(name).inc(count)
        size = sum([len(entry.message.payload) for entry in entries])
        self._bytes.inc(size)
        self._points.inc(sum(tally.stored for tally in tallies.values()))
        self._duplicates.inc(sum(tally.duplicates for tally in tallies.values()))
        self._held.inc(sum(tally.held for tally in tallies.values()))
