"""Every error as problem details (RFC 9457), with the `error` sentence that messaging clients read."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import asyncpg
import msgspec
from litestar import Request, Response
from litestar.exceptions import (
    HTTPException,
    MethodNotAllowedException,
    NotFoundException,
    ValidationException,
)

from caudal.core import logs
from caudal.core.errors import CaudalError, RateLimited

log = logs.get("web")
MEDIA_TYPE = "application/problem+json"
# Litestar's own errors, by status.
CODES = {400: "invalid", 401: "unauthenticated", 403: "forbidden", 404: "not_found",
         405: "method_not_allowed", 406: "not_acceptable", 409: "conflict", 413: "too_large",
         415: "unsupported_media_type", 429: "rate_limited", 503: "unavailable"}  # fmt: skip
# What protocols of others add.
TITLES = {460: "Checksum Mismatch"}
SENTENCES = {
    404: "There is nothing at this address.",
    405: "This address does not take that method; see the Allow header.",
    413: "The request body is too large.",
}


class FieldError(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is wrong with one field: where (a path or parameter name) and why."""

    pointer: str
    detail: str


class Problem(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Problem details of RFC 9457. `error` repeats `detail` for clients that know nothing else."""

    type: str
    title: str
    status: int
    detail: str
    error: str
    code: str
    request_id: str = ""
    retryable: bool = False
    errors: list[FieldError] = []


def problem(
    request: Request[Any, Any, Any],
    status: int,
    code: str,
    sentence: str,
    *,
    headers: dict[str, str] | None = None,
    retryable: bool = False,
    errors: list[FieldError] | None = None,
) -> Response[Problem]:
    """The response that tells a client what went wrong."""
    body = Problem(
        type=f"urn:caudal:problem:{code}",
        title=TITLES.get(status) or HTTPStatus(status).phrase,
        status=status,
        detail=sentence,
        error=sentence,
        code=code,
        request_id=request.scope.get("state", {}).get("request_id", ""),
        retryable=retryable,
        errors=errors or [],
    )
    return Response(body, status_code=status, media_type=MEDIA_TYPE, headers=headers or {})


def on_caudal_error(request: Request[Any, Any, Any], error: CaudalError) -> Response[Problem]:
    """Our own errors carry their policy."""
    headers = {}
    if isinstance(error, RateLimited):
        headers["Retry-After"] = str(max(1, round(error.retry_after)))
        if error.closing:
            headers["Connection"] = "close"
    elif error.retryable:
        headers["Retry-After"] = "1"
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if error.status >= 500:
        log.error("request failed", code=error.code, error=error.sentence, exc_info=error)
    return problem(
        request, error.status, error.code, error.sentence, headers=headers, retryable=error.retryable
    )


def on_http_exception(request: Request[Any, Any, Any], error: HTTPException) -> Response[Problem]:
    """Litestar's errors: routing, validation, body limits."""
    status = error.status_code
    if isinstance(error, ValidationException):
        fields = [_field(item) for item in error.extra or []]
        first = f" {fields[0].pointer}: {fields[0].detail}." if fields else ""
        return problem(request, 400, "invalid", f"The request is not valid.{first}", errors=fields)
    if status >= 500:
        return on_exception(request, error)
    sentence = SENTENCES.get(status) or f"{error.detail.rstrip('.')}."
    headers = dict(error.headers or {})
    if isinstance(error, MethodNotAllowedException):
        headers["Allow"] = ", ".join(allowed(request.app, request.scope["path"]))
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return problem(request, status, CODES.get(status, "invalid"), sentence, headers=headers)


def _field(item: Any) -> FieldError:
    if not isinstance(item, dict):
        return FieldError("", str(item))
    # Litestar's own name of a place is an enum, whose text is its name in Python.
    source = item.get("source", "")
    places = (str(getattr(source, "value", source)), str(item.get("key", "")))
    where = ".".join(place for place in places if place)
    return FieldError(where, str(item.get("message", "")))


def allowed(app: Any, path: str) -> list[str]:
    """The methods that `path` takes."""
    found = []
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        try:
            app.asgi_router.handle_routing(path=path, method=method)
        except (MethodNotAllowedException, NotFoundException):
            continue
        found.append(method)
    return found


def on_database_error(request: Request[Any, Any, Any], error: Exception) -> Response[Problem]:
    """A net under the domains: what PostgreSQL says about input it cannot take, and about itself.

    Services turn what they expect into errors of their own, with better sentences.
    """
    match error:
        case asyncpg.UniqueViolationError():
            return problem(request, 409, "conflict", "There is already one of that name or number.")
        case asyncpg.ForeignKeyViolationError():
            return problem(
                request, 409, "conflict", "It refers to something that is not there, or is in use."
            )
        case asyncpg.CharacterNotInRepertoireError() | asyncpg.UntranslatableCharacterError():
            return problem(request, 400, "invalid", "A text holds a character (NUL) that cannot be stored.")
        case asyncpg.CheckViolationError() if error.constraint_name == "storage_quota":
            sentence = "Your tenant has used the storage of its quota. Delete files, or ask for more."
            return problem(request, 413, "storage_full", sentence)
        case asyncpg.DataError() | asyncpg.IntegrityConstraintViolationError():
            log.warning("the database refused a value", error=type(error).__name__)
            return problem(request, 400, "invalid", "A value is outside of what can be stored.")
        case asyncpg.InsufficientPrivilegeError():
            log.error("row security refused", error=str(error))
            return problem(request, 403, "forbidden", "You may not do that.")
        case (
            asyncpg.PostgresConnectionError()
            | asyncpg.CannotConnectNowError()
            | asyncpg.TooManyConnectionsError()
            | asyncpg.AdminShutdownError()
            | asyncpg.CrashShutdownError()
            | asyncpg.QueryCanceledError()
            | asyncpg.TransactionRollbackError()
            | asyncpg.InterfaceError()
            | TimeoutError()
            | OSError()
        ):
            log.error("the database does not answer", error=repr(error))
            headers = {"Retry-After": "1"}
            sentence = "The database does not answer. Try again in a few seconds."
            return problem(request, 503, "unavailable", sentence, headers=headers, retryable=True)
    return on_exception(request, error)


def on_depth(request: Request[Any, Any, Any], error: RecursionError) -> Response[Problem]:
    """A body of brackets in brackets: the decoder gives up, and nobody means such a thing."""
    log.warning("a body is nested too deeply", path=request.scope.get("path_template", ""))
    return problem(request, 400, "invalid", "The request is nested too deeply.")


def on_exception(request: Request[Any, Any, Any], error: Exception) -> Response[Problem]:
    """A defect of ours: the log has the traceback, the caller the request's id."""
    log.error("request crashed", path=request.scope.get("path_template", ""), exc_info=error)
    sentence = "Something went wrong on our side. Tell us the request id."
    return problem(request, 500, "internal", sentence)


HANDLERS: dict[int | type[Exception], Any] = {
    CaudalError: on_caudal_error,
    HTTPException: on_http_exception,
    asyncpg.PostgresError: on_database_error,
    asyncpg.InterfaceError: on_database_error,
    asyncpg.InternalClientError: on_database_error,
    OSError: on_database_error,
    TimeoutError: on_database_error,
    RecursionError: on_depth,
    Exception: on_exception,
}
