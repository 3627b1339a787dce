"""Traces: off they are nothing, on they arrive with the ids that logs have."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from caudal.core import tracing
from caudal.core.metrics import Metrics
from caudal.core.tracing import TracingSettings
from caudal.messaging.ids import new_id
from caudal.web.frame import Frame, TrustedProxies
from tests.otlp import Collector, collector


@pytest.fixture
def traced() -> Iterator[Collector]:
    with collector() as found:
        end = tracing.configure(TracingSettings(found.url), "caudal-test")
        try:
            yield found
        finally:
            end()


async def request(*headers: tuple[bytes, bytes], status: int = 200) -> dict[str, Any]:
    """One request through the frame; what its handler's log lines would carry."""
    bound: dict[str, Any] = {}

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        scope["path_template"] = "/api/things/{id}"
        bound.update(structlog.contextvars.get_contextvars())
        await send({"type": "http.response.start", "status": status, "headers": []})

    async def send(_: Any) -> None: ...

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/api/things/7",
        "headers": list(headers),
        "client": None,
    }
    structlog.contextvars.clear_contextvars()
    await Frame(Metrics(), TrustedProxies(""))(app, scope, None, send)
    structlog.contextvars.clear_contextvars()
    return bound


def test_off_nothing_is_imported_and_nothing_recorded() -> None:
    code = (
        "import sys, caudal.app.api, caudal.app.ingest, caudal.core.tracing as t;"
        "t.configure(t.TracingSettings(), 'x')(); t.record('a', 1.0, {});"
        "assert not t.on; assert not any(name.startswith('opentelemetry') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


async def test_a_request_without_tracing_has_no_trace() -> None:
    assert "trace_id" not in await request()


async def test_a_request_s_span_and_its_log_lines_know_of_each_other(traced: Collector) -> None:
    bound = await request((b"x-request-id", b"abc"))
    other = f"{uuid4().hex}"
    await request((b"traceparent", f"00-{other}-00000000000000ab-01".encode()), status=503)
    await request((b"traceparent", b"00-" + b"0" * 32 + b"-zz-01"))
    tracing._state.provider.force_flush()  # type: ignore[union-attr]
    first, second, third = traced.wait("GET /api/things/{id}")
    assert first.trace_id == bound["trace_id"]
    assert first.attributes["request_id"] == bound["request_id"] == "abc"
    assert first.service == "caudal-test"
    assert not first.parent
    assert not first.failed
    assert (second.trace_id, second.parent, second.failed) == (other, "00000000000000ab", True)
    assert second.attributes["http.response.status_code"] == 503
    assert third.trace_id not in ("0" * 32, first.trace_id)


def test_a_message_s_spans_are_one_trace_whoever_records_them(traced: Collector) -> None:
    number = new_id()
    tracing.record("route", 0.2, {}, trace=tracing.of_message(str(number)))
    tracing.record("accept", 0.1, {"tenant": None}, trace=tracing.of_message(number), root=True)
    tracing.record("deliver", 0.3, {}, trace=tracing.of_message(number), failed="retry: 503")
    tracing._state.provider.force_flush()  # type: ignore[union-attr]
    spans = {span.name: span for span in traced.wait("accept", "route", "deliver")}
    assert {span.trace_id for span in spans.values()} == {number.hex}
    assert spans["accept"].parent == ""
    assert spans["route"].parent == spans["deliver"].parent == spans["accept"].span_id
    assert len({span.span_id for span in spans.values()}) == 3
    assert spans["deliver"].failed
    assert spans["route"].seconds == pytest.approx(0.2, abs=0.001)


@given(st.integers(0, 2**128 - 1))
def test_a_share_of_messages_is_that_share(number: int) -> None:
    tracing._state.share = 0.5
    try:
        value = UUID(int=number)
        assert tracing.kept(tracing.of_message(value)) == ((number & tracing.LOW) < 2**61)
    finally:
        tracing._state.share = 1.0


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(tracing.SettingsError, match=r"caudal\[otel\]"):
        tracing.configure(TracingSettings("http://127.0.0.1:1/v1/traces"), "x")
    assert not tracing.on


def test_a_collector_that_is_away_is_nobody_s_trouble() -> None:
    end = tracing.configure(TracingSettings("http://127.0.0.1:1/v1/traces"), "x")
    for _ in range(5000):
        tracing.record("a", 0.0, {})
    end()
    assert not tracing.on
