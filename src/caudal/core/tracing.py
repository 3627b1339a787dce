"""OpenTelemetry traces over OTLP/HTTP, behind a setting; off, a trace costs a look at one boolean.

A span is recorded once it is over, by whoever timed it for the metrics anyway. Spans carry the ids that logs
and ledger have: a request's span its `request_id`, and the logs its `trace_id`; a batch's span the number
that the ledger's rows have. A message's trace has the message's own id, which is 128 bits too: so acceptance,
routing and delivery meet in one trace, through any log and across restarts, without a word in their records.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple
from uuid import UUID

import msgspec

from caudal.core.errors import SettingsError
from caudal.core.settings import setting

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

LOW = (1 << 62) - 1
"""The bits of a trace id that are random, in a UUID too."""
TRACEPARENT = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
Kind = Literal["internal", "server", "client", "consumer", "producer"]


class TracingSettings(msgspec.Struct, frozen=True):
    """Whether and where traces go; named as OpenTelemetry names them."""

    otel_exporter_otlp_traces_endpoint: Annotated[
        str | None,
        setting("Where traces go (OTLP/HTTP, http://…/v1/traces); none without it. Needs caudal[otel]"),
    ] = None
    otel_traces_sampler_arg: Annotated[float, setting("Share of traces that is kept", ge=0, le=1)] = 1.0
    otel_service_name: Annotated[
        str | None, setting("The process's name in traces; caudal-ingest, caudal-api, … when left out")
    ] = None


class Trace(NamedTuple):
    """Where a span belongs: its trace, and the span it is part of (0: none)."""

    trace_id: int
    parent: int = 0

    @property
    def hex(self) -> str:
        """The trace's id as tools write it."""
        return f"{self.trace_id:032x}"


class _Tracing:
    """The process's one exporter; like its log, there is one or there is none."""

    def __init__(self) -> None:
        self.provider: TracerProvider | None = None
        self.share = 1.0
        self.forced: tuple[int, int] = (0, 0)


on = False
"""Whether anything is recorded. Look before you compute something for a span."""
_state = _Tracing()


def configure(settings: TracingSettings, service: str) -> Callable[[], None]:
    """Set up tracing for the process; returns what sends the rest and ends it.

    At most 2,048 spans wait for the exporter, on a thread of its own; more are dropped, never waited for.
    Raises SettingsError when the setting is there and the package is not.
    """
    global on
    if not settings.otel_exporter_otlp_traces_endpoint:
        return lambda: None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON
    except ImportError as error:
        raise SettingsError(
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is set, and OpenTelemetry is not installed: "
            "pip install 'caudal[otel]', or unset it."
        ) from error

    class Ids(RandomIdGenerator):
        def generate_trace_id(self) -> int:
            return _state.forced[0] or super().generate_trace_id()

        def generate_span_id(self) -> int:
            return _state.forced[1] or super().generate_span_id()

    name = settings.otel_service_name or service
    provider = TracerProvider(
        sampler=ALWAYS_ON, resource=Resource.create({"service.name": name}), id_generator=Ids()
    )
    provider.add_span_processor(
        BatchSpanProcessor(OTLPSpanExporter(settings.otel_exporter_otlp_traces_endpoint, timeout=5))
    )
    _state.provider, _state.share, on = provider, settings.otel_traces_sampler_arg, True

    def end() -> None:
        global on
        on = False
        provider.shutdown()

    return end


def begin(traceparent: bytes = b"") -> Trace:
    """A request's trace: the caller's (W3C traceparent), or a new one."""
    found = TRACEPARENT.fullmatch(traceparent)
    if found and int(found[1], 16) and int(found[2], 16):
        return Trace(int(found[1], 16), int(found[2], 16))
    return Trace(secrets.randbits(128) or 1)


def of_message(message: UUID | str) -> Trace:
    """The trace of a message, below its acceptance."""
    number = UUID(str(message)).int
    return Trace(number, _root(number))


def _root(trace_id: int) -> int:
    # Derived, so that whoever routes and delivers knows it without being told.
    return trace_id & LOW or 1


def kept(trace: Trace) -> bool:
    """Whether this trace is in the share that is kept: the same answer in every process."""
    return (trace.trace_id & LOW) < _state.share * (LOW + 1)


def record(
    name: str,
    seconds: float,
    attributes: Mapping[str, str | int | float | bool | None],
    *,
    trace: Trace | None = None,
    root: bool = False,
    kind: Kind = "internal",
    failed: str | None = None,
) -> None:
    """Record a span that ends now and took `seconds`. With `root` it is the span that others of a message's
    trace are part of. `failed` says in words why it is an error; never with contents of messages."""
    trace = trace or Trace(secrets.randbits(128) or 1)
    provider = _state.provider
    if not on or provider is None or not kept(trace):
        return
    from opentelemetry.context import Context
    from opentelemetry.trace import (
        NonRecordingSpan,
        SpanContext,
        SpanKind,
        Status,
        StatusCode,
        TraceFlags,
        set_span_in_context,
    )

    ended = time.time_ns()
    context: Any = Context()
    _state.forced = (trace.trace_id, _root(trace.trace_id) if root else 0)
    if trace.parent and not root:
        above = SpanContext(trace.trace_id, trace.parent, is_remote=True, trace_flags=TraceFlags(1))
        context = set_span_in_context(NonRecordingSpan(above), context)
    try:
        span = provider.get_tracer("caudal").start_span(
            name,
            context=context,
            kind=SpanKind[kind.upper()],
            attributes={key: value for key, value in attributes.items() if value is not None},
            start_time=ended - int(seconds * 1e9),
        )
    finally:
        _state.forced = (0, 0)
    if failed is not None:
        span.set_status(Status(StatusCode.ERROR, failed))
    span.end(ended)
