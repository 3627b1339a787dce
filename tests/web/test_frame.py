"""Every answer has an id, a shape, its headers and its place in the metrics."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from litestar import Litestar, WebSocket, get, websocket
from litestar.exceptions import LitestarDeprecationWarning
from litestar.handlers import HTTPRouteHandler, WebsocketRouteHandler

from caudal.core.errors import SettingsError
from caudal.registry.permissions import Action, Role
from caudal.web.frame import TrustedProxies
from caudal.web.guards import requires, rule_of


async def test_a_wrong_address_is_a_problem_with_an_id(running_api: Any) -> None:
    answer = await running_api.client.get("/nowhere", headers={"X-Request-Id": "abc-1"})
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"] == "abc-1"
    body = answer.json()
    assert body["request_id"] == "abc-1"
    assert body["error"] == body["detail"]
    assert body["status"] == 404


@pytest.mark.parametrize("bad", ["", "a b", "x" * 65, 'a"b'])
async def test_an_id_that_would_spoil_a_log_is_replaced(running_api: Any, bad: str) -> None:
    answer = await running_api.client.get("/health/live", headers={"X-Request-Id": bad})
    assert answer.headers["x-request-id"] != bad
    assert len(answer.headers["x-request-id"]) == 24


async def test_a_wrong_method_says_which_are_right(running_api: Any) -> None:
    answer = await running_api.client.put("/auth/token")
    assert answer.status_code == 405
    assert "POST" in answer.headers["allow"]
    assert answer.json()["code"] == "method_not_allowed"


async def test_a_body_that_is_too_large_is_refused(running_api: Any) -> None:
    answer = await running_api.client.post("/auth/token", content=b"x" * 2_000_000)
    assert answer.status_code == 413
    assert answer.json()["code"] == "too_large"


async def test_what_is_wrong_with_a_body_is_said_field_by_field(running_api: Any) -> None:
    answer = await running_api.client.post("/auth/register", json={"username": "a", "password": "secret"})
    assert answer.status_code == 400
    assert answer.json()["errors"]
    for broken in (b"{", b"[]", b"\xff", b"null", b""):
        answer = await running_api.client.post(
            "/auth/token", content=broken, headers={"content-type": "application/json"}
        )
        assert (answer.status_code, answer.json()["status"]) == (400, 400), broken


async def test_what_is_wrong_with_a_parameter_names_it_as_it_was_given(running_api: Any) -> None:
    headers = await running_api.headers("acme")
    answer = await running_api.client.get("/api/audit?limit=9999", headers=headers)
    assert answer.status_code == 400
    assert [error["pointer"] for error in answer.json()["errors"]] == ["query.limit"]
    assert "ParamType" not in answer.text


async def test_without_a_credential_the_answer_is_401(running_api: Any) -> None:
    for headers in (
        {},
        {"Authorization": "Bearer nonsense"},
        {"Authorization": "Bearer a b"},
        {"Authorization": "Digest x"},
        {"Authorization": "Basic !!"},
        {"Authorization": ""},
        {"X-API-Key": "caudal_none_x"},
        {"Cookie": "caudal_session=unknown"},
    ):
        answer = await running_api.client.get("/api/me", headers=headers)
        assert answer.status_code == 401, headers
        assert answer.headers["www-authenticate"] == "Bearer"


async def test_metrics_count_by_template(running_api: Any) -> None:
    await running_api.client.get("/nowhere/at/all")
    await running_api.client.get("/api/me", headers=await running_api.headers("a", Role.VIEWER))
    text = (await running_api.client.get("/actuator/prometheus")).text
    assert 'http_requests_total{method="GET",path="/api/me",status="200"} 1.0' in text
    assert 'http_requests_total{method="GET",path="unmatched",status="404"} 1.0' in text
    assert 'http_request_duration_seconds_bucket{le="0.001",method="GET",path="/api/me"}' in text


async def test_health_asks_the_database(running_api: Any) -> None:
    for path in ("/health", "/actuator/health", "/health/ready"):
        answer = await running_api.client.get(path)
        assert answer.status_code == 200
        assert answer.json()["status"] == "UP"
        assert answer.json()["components"]["database"]["latency_ms"] > 0
    running_api.parts.health.add("log", _dead)
    answer = await running_api.client.get("/health")
    assert answer.status_code == 503
    assert answer.json()["components"]["log"] == {
        "status": "DOWN", "latency_ms": answer.json()["components"]["log"]["latency_ms"],
        "error": "ConnectionRefusedError",
    }  # fmt: skip
    assert (await running_api.client.get("/health/live")).status_code == 200


async def _dead() -> None:
    raise ConnectionRefusedError("secret-host:9092")


def bare(app: Litestar) -> list[str]:
    """Routes that do not say what they require of their caller."""
    return [
        f"{handler} at {sorted(handler.paths)}"
        for route in app.routes
        for handler in getattr(route, "route_handlers", [getattr(route, "route_handler", None)])
        if isinstance(handler, (HTTPRouteHandler, WebsocketRouteHandler))
        and getattr(handler, "http_methods", None) != {"OPTIONS"}
        and rule_of(handler) is None
    ]


async def test_every_route_declares_what_it_requires(running_api: Any) -> None:
    assert bare(running_api.app) == []


def test_a_route_that_declares_nothing_is_found() -> None:
    @get("/open")
    async def forgotten() -> None: ...

    @websocket("/ears")
    async def ears(socket: WebSocket[Any, Any, Any]) -> None: ...

    @get("/shut", guards=[requires(Action.TENANT_READ)])
    async def shut() -> None: ...

    found = bare(Litestar([forgotten, ears, shut], openapi_config=None))
    assert len(found) == 2
    assert not any("shut" in route for route in found)


async def test_no_route_uses_what_litestar_is_about_to_drop(unstarted_api: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", LitestarDeprecationWarning)
        await unstarted_api.start()


@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded", "address"),
    [
        ("", "127.0.0.1", ["198.51.100.7"], "127.0.0.1"),
        ("10.0.0.0/8", "127.0.0.1", ["198.51.100.7"], "127.0.0.1"),
        ("127.0.0.1", "127.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        # What the caller wrote himself stands to the left of what the proxy saw.
        ("127.0.0.1", "127.0.0.1", ["192.0.2.1, 198.51.100.7"], "198.51.100.7"),
        ("127.0.0.1", "127.0.0.1", ["192.0.2.1", "198.51.100.7"], "198.51.100.7"),
        ("127.0.0.1,198.51.100.0/24", "127.0.0.1", ["192.0.2.1, 198.51.100.7"], "192.0.2.1"),
        ("127.0.0.1", "127.0.0.1", ["nonsense"], "127.0.0.1"),
        ("127.0.0.1", "127.0.0.1", ["198.51.100.7, nonsense"], "127.0.0.1"),
        ("127.0.0.1", "127.0.0.1", [], "127.0.0.1"),
        ("::1,fd00::/8", "::1", ["2001:db8::1, fd00::5"], "2001:db8::1"),
        ("127.0.0.1", "", ["198.51.100.7"], ""),
    ],
)
def test_whose_word_on_an_address_is_believed(
    trusted: str, peer: str, forwarded: list[str], address: str
) -> None:
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    scope = {"client": (peer, 1) if peer else None, "headers": headers}
    assert TrustedProxies(trusted).address(scope) == address


def test_a_proxy_that_is_no_address_stops_the_start() -> None:
    with pytest.raises(SettingsError, match="TRUSTED_PROXIES"):
        TrustedProxies("10.0.0.0/8, proxy.example")
