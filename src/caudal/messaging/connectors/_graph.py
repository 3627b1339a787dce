"""What WhatsApp and Instagram have in common: the Graph API over HTTPS, and what its errors mean."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import msgspec

from caudal.messaging.provider import (
    Account,
    ConnectorSettings,
    Download,
    ProviderError,
    Verdict,
    pieces,
    retry_after,
)

# Of Meta's own networks and of gateways in front of them: nobody there has looked at the request.
NOT_LOOKED_AT = frozenset({429, 503})


class Graph:
    """A client of the Graph API. One a process; connections are shared by all accounts."""

    def __init__(self, settings: ConnectorSettings, meanings: Mapping[int, Verdict]) -> None:
        self._base = f"{settings.api_base.rstrip('/')}/{settings.api_version}"
        self._meanings = meanings
        limits = httpx.Limits(
            max_connections=settings.concurrency + 4,
            max_keepalive_connections=settings.concurrency + 4,
            # Shorter than any server's: a connection that closes under a request leaves us not knowing.
            keepalive_expiry=4,
        )
        timeout = httpx.Timeout(
            settings.answer_timeout, connect=settings.connect_timeout, pool=settings.answer_timeout
        )
        self._client = httpx.AsyncClient(limits=limits, timeout=timeout, trust_env=False)

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    async def post(self, account: Account, path: str, body: Any) -> Any:
        """Send JSON, once; returns the decoded answer. Raises ProviderError, UNKNOWN if it may be taken."""
        headers = {"content-type": "application/json", **_bearer(account)}
        content = msgspec.json.encode(body)
        return await self._ask("POST", path, headers=headers, content=content)

    async def upload(
        self,
        account: Account,
        path: str,
        fields: Mapping[str, str],
        file: tuple[str, str, AsyncIterator[bytes]],
    ) -> Any:
        """Send a file as multipart, streamed. An upload that fails may be repeated: nobody sees it."""
        boundary = secrets.token_hex(16)
        filename, content_type, data = file

        async def body() -> AsyncIterator[bytes]:
            for name, value in fields.items():
                yield (
                    f'--{boundary}\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
                ).encode()
            safe = filename.replace('"', "'").replace("\r", " ").replace("\n", " ")
            yield (
                f'--{boundary}\r\ncontent-disposition: form-data; name="file"; filename="{safe}"\r\n'
                f"content-type: {content_type}\r\n\r\n"
            ).encode()
            async for piece in data:
                yield piece
            yield f"\r\n--{boundary}--\r\n".encode()

        headers = {"content-type": f"multipart/form-data; boundary={boundary}", **_bearer(account)}
        return await self._repeatable("POST", path, headers=headers, content=body())

    async def get(self, account: Account, path: str, **query: str) -> Any:
        """Fetch JSON. Raises ProviderError."""
        return await self._repeatable("GET", path, headers=_bearer(account), params=query)

    async def download(self, account: Account | None, link: str, content_type: str | None) -> Download:
        """Open what lies at `link`; the token goes along only where the provider wants it."""
        request = self._client.build_request("GET", link, headers=_bearer(account) if account else {})
        try:
            answer = await self._client.send(request, stream=True, follow_redirects=True)
        except httpx.HTTPError as error:
            raise ProviderError(
                Verdict.RETRY, type(error).__name__, "The medium could not be fetched."
            ) from error
        if answer.status_code != 200:
            await answer.aclose()
            verdict = Verdict.RETRY if answer.status_code >= 500 else Verdict.REFUSED
            raise ProviderError(verdict, str(answer.status_code), "The provider did not hand out the medium.")

        async def data() -> AsyncIterator[bytes]:
            try:
                async for piece in answer.aiter_bytes():
                    yield piece
            except httpx.HTTPError as error:
                raise ProviderError(
                    Verdict.RETRY, type(error).__name__, "The medium broke off on its way."
                ) from error
            finally:
                await answer.aclose()

        kind = content_type or answer.headers.get("content-type") or "application/octet-stream"
        return Download(content_type=kind, data=data())

    async def _repeatable(self, method: str, path: str, **request: Any) -> Any:
        try:
            return await self._ask(method, path, **request)
        except ProviderError as error:
            if error.verdict is Verdict.UNKNOWN:
                raise ProviderError(Verdict.RETRY, error.provider_code, error.sentence) from error
            raise

    async def _ask(self, method: str, path: str, **request: Any) -> Any:
        with _Sorted():
            answer = await self._client.request(method, f"{self._base}/{path}", **request)
        if answer.status_code == 200:
            try:
                return msgspec.json.decode(answer.content)
            except msgspec.DecodeError as error:
                raise ProviderError(
                    Verdict.UNKNOWN, "200", "The provider's answer could not be read."
                ) from error
        raise self._error(answer)

    def _error(self, answer: httpx.Response) -> ProviderError:
        wait = retry_after(answer.headers.get("retry-after"))
        try:
            error = pieces(msgspec.json.decode(answer.content), "error")
        except msgspec.DecodeError:
            error = None
        if not isinstance(error, dict) or not isinstance(error.get("code"), int):
            # Not the API itself but something in between. Only where that surely did not pass the request on
            # may it be sent again.
            status = answer.status_code
            known = status in NOT_LOOKED_AT or status < 500
            verdict = Verdict.RETRY if known else Verdict.UNKNOWN
            return ProviderError(
                verdict, f"http {status}", f"The provider answered {status}.", retry_after=wait
            )
        code = error["code"]
        subcode = error.get("error_subcode")
        details = pieces(error, "error_data", "details") or error.get("message") or "No details."
        verdict = self._verdict(code, error.get("is_transient") is True, answer.status_code)
        shown = f"{code}/{subcode}" if isinstance(subcode, int) else str(code)
        return ProviderError(verdict, shown, _sentence(verdict, shown, str(details)), retry_after=wait)

    def _verdict(self, code: int, transient: bool, status: int) -> Verdict:
        if code in self._meanings:
            return self._meanings[code]
        if 200 <= code <= 299:
            return Verdict.OPERATOR
        if transient or status >= 500:
            return Verdict.RETRY
        return Verdict.REFUSED


def _bearer(account: Account) -> dict[str, str]:
    return {"authorization": f"Bearer {account.secrets.token}"}


def _sentence(verdict: Verdict, code: str, details: str) -> str:
    meaning = {
        Verdict.WRITE_FIRST: "The person must write first.",
        Verdict.OPERATOR: "The account needs somebody's attention.",
        Verdict.SLOW_DOWN: "The number sends too much.",
        Verdict.PAIR: "Too many messages to this person.",
    }.get(verdict, "The provider refused it.")
    return f"{meaning} ({code}: {details[:300]})"


class _Sorted:
    """Sorts what can happen to a request into: surely not taken, and not known."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None or not isinstance(error, httpx.HTTPError):
            return
        name = type(error).__name__
        if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)):
            raise ProviderError(Verdict.RETRY, name, "The provider cannot be reached.") from error
        raise ProviderError(Verdict.UNKNOWN, name, "The provider was asked and did not answer.") from error
