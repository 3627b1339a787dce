"""What surrounds every request: its id, its address, its metrics, security headers.

One plain ASGI layer outside of Litestar, so that errors of routing pass through it too.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from secrets import token_hex
from time import perf_counter
from typing import Any

import structlog
from litestar import Litestar
from prometheus_client import Counter, Histogram

from caudal.core import tracing
from caudal.core.errors import SettingsError
from caudal.core.metrics import Metrics
from caudal.web.problems import allowed
from caudal.web.turns import end_turn

Asgi = Callable[[Any, Any, Any], Awaitable[None]]
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,64}")
# An API's answers are never framed, sniffed or kept; the console sets its own content security policy.
SECURITY = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
]
POLICY = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
NO_STORE = (b"cache-control", b"no-store")


class TrustedProxies:
    """Whose X-Forwarded-For is believed: addresses or networks by commas; nobody's when empty."""

    def __init__(self, text: str) -> None:
        self._networks: list[IPv4Network | IPv6Network] = []
        for word in filter(None, (part.strip() for part in text.split(","))):
            try:
                self._networks.append(ip_network(word, strict=False))
            except ValueError as error:
                raise SettingsError(f"TRUSTED_PROXIES: {word!r} is no address or network.") from error

    def trusts(self, text: str) -> bool:
        """Whether this address is one of the proxies."""
        try:
            address = ip_address(text)
        except ValueError:
            return False
        return any(address in network for network in self._networks)

    def address(self, scope: Any) -> str:
        """The client's address: the last hop that is not a trusted proxy."""
        client = scope.get("client")
        peer = str(client[0]) if client else ""
        if not self._networks or not self.trusts(peer):
            return peer
        header = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for")
        for hop in reversed(header.decode("latin-1").split(",")):
            hop = hop.strip()
            try:
                ip_address(hop)
            except ValueError:
                break
            peer = hop
            if not self.trusts(hop):
                break
        return peer


class HttpMetrics:
    """`http_requests_total` and `http_request_duration_seconds`, by route template."""

    def __init__(self, metrics: Metrics) -> None:
        self._requests: Counter = metrics.counter(
            "http_requests", "HTTP requests answered", "method", "path", "status"
        )
        self._seconds: Histogram = metrics.histogram(
            "http_request_duration_seconds", "Seconds from a request to the end of its answer",
            "method", "path",
        )  # fmt: skip
        # Looking a child up by its labels takes a lock and three string conversions; templates are few.
        self._children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def observe(self, method: str, path: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        key = (method, path, status)
        pair = self._children.get(key)
        if pair is None:
            pair = (self._requests.labels(method, path, str(status)), self._seconds.labels(method, path))
            self._children[key] = pair
        pair[0].inc()
        pair[1].observe(seconds)


class Frame:
    """Wraps an ASGI application."""

    def __init__(self, metrics: Metrics, proxies: TrustedProxies) -> None:
        self._http = HttpMetrics(metrics)
        self._proxies = proxies

    async def __call__(self, app: Asgi, scope: Any, receive: Any, send: Any) -> None:
        """Run `app` for one connection."""
        if scope["type"] == "lifespan":
            await app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        raw = given if REQUEST_ID.fullmatch(given) else token_hex(12).encode()
        request_id = raw.decode()
        # A copy: what a server shares between requests stays as it is.
        state = scope["state"] = dict(scope.get("state") or {})
        state["request_id"] = request_id
        state["address"] = self._proxies.address(scope)
        # The server runs each request in a context of its own; nothing to unbind.
        structlog.contextvars.bind_contextvars(request_id=request_id, address=state["address"])
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        trace = None
        if tracing.on:
            above = next((value for name, value in scope["headers"] if name == b"traceparent"), b"")
            trace = tracing.begin(above)
            structlog.contextvars.bind_contextvars(trace_id=trace.hex)
        started = perf_counter()
        status = 500

        async def framed(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                end_turn(state)
                status = message["status"]
                headers = list(message.get("headers", ()))
                if scope["method"] == "OPTIONS" and status < 300:
                    # Litestar names the methods of one handler; an address may have several.
                    methods = ", ".join(allowed(scope["litestar_app"], scope["path"])).encode()
                    headers = [pair for pair in headers if pair[0].lower() != b"allow"]
                    headers.append((b"allow", methods))
                named = {name.lower() for name, _ in headers}
                headers.append((b"x-request-id", raw))
                headers.extend(SECURITY)
                if b"content-security-policy" not in named:
                    headers.append(POLICY)
                if b"cache-control" not in named:
                    headers.append(NO_STORE)
                message = {**message, "headers": headers}
            await send(message)

        try:
            await app(scope, receive, framed)
        finally:
            end_turn(state)
            method = scope["method"] if scope["method"] in METHODS else "OTHER"
            path = scope.get("path_template") or "unmatched"
            seconds = perf_counter() - started
            self._http.observe(method, path, status, seconds)
            if trace is not None:
                failed = f"answered with {status}" if status >= 500 else None
                about = {
                    "request_id": request_id,
                    "http.request.method": method,
                    "http.route": path,
                    "http.response.status_code": status,
                }
                name = f"{method} {path}"
                tracing.record(name, seconds, about, trace=trace, kind="server", failed=failed)


class Application(Litestar):
    """Litestar inside the frame; an ASGI application like any other."""

    # Set after construction, before the first request.
    frame: Frame

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one connection."""
        await self.frame(super().__call__, scope, receive, send)
