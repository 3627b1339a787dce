"""A collector of traces: OTLP over HTTP, as much of it as an exporter needs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Span(NamedTuple):
    """One span as it came over the wire."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent: str
    seconds: float
    failed: bool
    attributes: dict[str, Any]


class Collector:
    """What came so far; `url` is where to send it."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.url = ""
        self._changed = threading.Condition()

    def take(self, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        with self._changed:
            for resource in request.resource_spans:
                service = values(resource.resource.attributes)["service.name"]
                for scope in resource.scope_spans:
                    self.spans += [made(service, span) for span in scope.spans]
            self._changed.notify_all()

    def wait(self, *names: str, seconds: float = 30) -> list[Span]:
        """All spans, once there is one of each of these names."""
        with self._changed:
            done = self._changed.wait_for(lambda: set(names) <= {span.name for span in self.spans}, seconds)
            assert done, sorted({span.name for span in self.spans})
            return list(self.spans)


def values(attributes: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in attributes}


def made(service: str, span: Any) -> Span:
    return Span(
        service, span.name, span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex(),
        (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9, span.status.code == 2,
        values(span.attributes),
    )  # fmt: skip


@contextmanager
def collector() -> Iterator[Collector]:
    """One that listens on loopback for the time being."""
    found = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            found.take(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.url = f"http://127.0.0.1:{server.server_port}/v1/traces"
    thread = threading.Thread(target=server.serve_forever, name="collector")
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
