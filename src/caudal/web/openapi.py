"""OpenAPI 3.1 at /schema, completed from what the routes declare so that it is true.

Litestar describes bodies, parameters and successes. Added here: which credential a route takes, and the
problem details that can come from any route (`default` would hide a wrong status from a fuzzer, so each
status is named).
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import msgspec
from litestar import Litestar, MediaType, Request, Router
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import OpenAPIRenderPlugin
from litestar.routes import HTTPRoute

from caudal.web import facts
from caudal.web.guards import Machinery, Public, public, rule_of
from caudal.web.problems import MEDIA_TYPE, Problem

SECURITY: list[dict[str, list[str]]] = [{"bearer": []}, {"apiKey": []}, {"session": []}]
SCHEMES: dict[str, Any] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An access token or an API key"},
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "session": {"type": "apiKey", "in": "cookie", "name": "caudal_session",
                "description": "A browser's session; unsafe methods need X-CSRF-Token too"},
}  # fmt: skip
WORDS = {
    400: "The request cannot be understood or accepted",
    401: "The caller did not prove who they are",
    403: "The caller may not",
    404: "There is no such thing, or none that the caller may know of",
    409: "It contradicts what is there",
    413: "The body is too large",
    429: "Too much in too short a time; see Retry-After",
    503: "A part we depend on does not answer; see Retry-After",
}


def _statuses(handler: HTTPRouteHandler, operation: dict[str, Any], path: str) -> set[int]:
    rule = rule_of(handler)
    # What every route can answer; the rest follows from its shape.
    found: set[int] = set() if isinstance(rule, Machinery) else {429, 503}
    if not isinstance(rule, Public):
        found |= {401, 403}
    if "requestBody" in operation:
        found |= {400, 413}
    if operation.get("parameters"):
        found |= {400, 404}
    if "{" in path:
        found.add(404)
    if operation.get("x-method") in {"post", "put", "patch", "delete"}:
        found.add(409)
    return found | set(handler.opt.get("problems", ()))


def _also_seconds(parameter: dict[str, Any]) -> None:
    """Where a time is taken from a query, Unix seconds are taken too."""
    shape = parameter.get("schema", {})
    times = [shape, *shape.get("oneOf", ()), *shape.get("anyOf", ())]
    if parameter.get("in") == "query" and any(one.get("format") == "date-time" for one in times):
        described = {key: shape[key] for key in ("description",) if key in shape}
        moment = {"type": "string", "format": "date-time"}
        kinds: list[dict[str, Any]] = [moment, {"type": "number"}]
        if any(one.get("type") == "null" for one in times):
            kinds.append({"type": "null"})
        parameter["schema"] = {**described, "anyOf": kinds}


def complete(app: Litestar, schema: dict[str, Any]) -> dict[str, Any]:
    """`schema` with credentials and problems added to each operation."""
    components = schema.setdefault("components", {})
    components["securitySchemes"] = SCHEMES
    (_,), definitions = msgspec.json.schema_components([Problem], ref_template="#/components/schemas/{name}")
    components.setdefault("schemas", {}).update(definitions)
    closed: set[str] = set()
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for route in app.routes:
        if not isinstance(route, HTTPRoute):
            continue
        item = schema.get("paths", {}).get(route.path_format or "/")
        for method, (handler, _model) in route.route_handler_map.items():
            operation = (item or {}).get(method.lower())
            if operation is None:
                continue
            closed |= facts.closed_by(handler)
            responses = operation.setdefault("responses", {})
            # Litestar's own shape of a validation error, which nobody gets to see.
            mine = set(handler.responses or {})
            if 400 not in mine:
                responses.pop("400", None)
            if "204" in responses:
                responses["204"].pop("content", None)
            for kind in handler.opt.get("media_types", ()):
                for success in (answer for status, answer in responses.items() if status[0] == "2"):
                    success["content"].setdefault(kind, {"schema": {"type": "string"}})
            for parameter in operation.get("parameters", ()):
                _also_seconds(parameter)
                facts.whole(parameter)
            for status in _statuses(handler, {**operation, "x-method": method.lower()}, route.path_format):
                responses.setdefault(str(status), {"description": WORDS.get(status, ""), "content": content})
            if not isinstance(rule_of(handler), Public):
                operation.setdefault("security", SECURITY)
    facts.state(components["schemas"], closed)
    return schema


class SchemaPlugin(OpenAPIRenderPlugin):
    """Serves the completed schema as JSON."""

    def __init__(self) -> None:
        super().__init__(path=["/", "/openapi.json"], media_type=MediaType.JSON)
        self._rendered: bytes | None = None

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """The schema's bytes; made once."""
        if self._rendered is None:
            self._rendered = msgspec.json.encode(complete(request.app, openapi_schema))
        return self._rendered


def config() -> OpenAPIConfig:
    """How Litestar describes the API."""
    return OpenAPIConfig(
        title="Caudal",
        version=version("caudal"),
        description="Telemetry in, messages out. Errors are problem details (RFC 9457).",
        openapi_router=Router("/schema", route_handlers=[], include_in_schema=False,
                              guards=[public("what the API is, is no secret")]),
        render_plugins=[SchemaPlugin()],
        use_handler_docstrings=True,
    )  # fmt: skip
