"""A thin typed client of the API, for the command line and for programs.

    async with Client("http://127.0.0.1:8080", token=token) as api:
        me = await api.get("/api/me", Me)
        async for device in api.pages("/api/devices", Device): ...

Answers become the types asked for (msgspec); a refusal becomes `Refused`, with the sentence for a person.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Any, Generic, Self, TypeVar
from uuid import UUID

import httpx
import msgspec

from caudal.core.errors import CaudalError

T = TypeVar("T")


class Refused(CaudalError):
    """The API answered with a problem: `status`, `code`, `retryable`, and `request_id` to quote."""

    code = "refused"

    def __init__(self, status: int, sentence: str, code: str, request_id: str, retryable: bool) -> None:
        super().__init__(sentence, code=code)
        self.status = status
        self.request_id = request_id
        self.retryable = retryable


class Unreachable(CaudalError):
    """Nobody answers at that address."""

    code, status, retryable = "unreachable", 503, True


class SignedIn(msgspec.Struct, frozen=True):
    """An access token, how many seconds it is good for, and whose it is."""

    access_token: str
    expires_in: int
    user_id: UUID
    tenant: str


class Page(msgspec.Struct, Generic[T], frozen=True):
    """Some of many, and where the rest begins."""

    items: list[T]
    next_cursor: str | None = None


class _Problem(msgspec.Struct):
    detail: str = ""
    error: str = ""
    code: str = "refused"
    request_id: str = ""
    retryable: bool = False


class Client:
    """Calls the API at `url` with an access token or an API key; close it, or use it in `async with`."""

    def __init__(self, url: str, *, token: str | None = None, timeout: float = 30.0) -> None:
        self._http = httpx.AsyncClient(base_url=url, timeout=timeout)
        self.token = token

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def sign_in(self, login: str, password: str, *, tenant: str | None = None) -> SignedIn:
        """Sign in by user name or e-mail, and call as that person from now on. Raises Refused."""
        body = {"email" if "@" in login else "username": login, "password": password}
        if tenant is not None:
            body["tenant"] = tenant
        done = await self.post("/auth/token", body, SignedIn)
        self.token = done.access_token
        return done

    async def request(
        self, method: str, path: str, *, body: Any = None, query: Mapping[str, Any] | None = None
    ) -> httpx.Response:
        """One request; bytes go as they are. Raises Refused for a problem, Unreachable for silence."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        content = body if isinstance(body, bytes) else None
        if body is not None and content is None:
            headers["Content-Type"] = "application/json"
            content = msgspec.json.encode(body)
        given = {key: value for key, value in (query or {}).items() if value is not None}
        try:
            answer = await self._http.request(method, path, content=content, params=given, headers=headers)
        except httpx.TransportError as error:
            raise Unreachable(
                f"{self._http.base_url} does not answer. Is it up, and is that its address?"
            ) from error
        if answer.status_code >= 400:
            raise _refused(answer)
        return answer

    async def get(self, path: str, kind: type[T], **query: Any) -> T:
        """What is at `path`, as `kind`."""
        return msgspec.json.decode((await self.request("GET", path, query=query)).content, type=kind)

    async def post(self, path: str, body: Any, kind: type[T], **query: Any) -> T:
        """The answer to `body`, as `kind`."""
        return await self._told("POST", path, body, kind, query)

    async def put(self, path: str, body: Any, kind: type[T], **query: Any) -> T:
        """The answer to `body` in the place of what was at `path`, as `kind`."""
        return await self._told("PUT", path, body, kind, query)

    async def patch(self, path: str, body: Any, kind: type[T]) -> T:
        """The answer to a change of what is at `path`, as `kind`."""
        return await self._told("PATCH", path, body, kind, {})

    async def _told(self, method: str, path: str, body: Any, kind: type[T], query: Mapping[str, Any]) -> T:
        answer = await self.request(method, path, body=body, query=query)
        return msgspec.json.decode(answer.content, type=kind)

    async def delete(self, path: str) -> None:
        """Delete what is at `path`."""
        await self.request("DELETE", path)

    async def pages(self, path: str, kind: type[T], **query: Any) -> AsyncIterator[T]:
        """Every item of a list, page by page."""
        cursor: str | None = None
        while True:
            page: Page[T] = await self.get(path, Page[kind], **query, cursor=cursor)  # type: ignore[valid-type]
            for item in page.items:
                yield item
            cursor = page.next_cursor
            if cursor is None:
                return


def _refused(answer: httpx.Response) -> Refused:
    try:
        found = msgspec.json.decode(answer.content, type=_Problem)
    except msgspec.DecodeError:
        found = _Problem()
    sentence = found.detail or found.error or f"The answer was {answer.status_code}."
    return Refused(answer.status_code, sentence, found.code, found.request_id, found.retryable)
