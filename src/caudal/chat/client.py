"""The messaging API as a person's program sees it: conversations, messages, files, and what comes in live."""

from __future__ import annotations

import asyncio
import mimetypes
import os
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import msgspec
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from caudal.client import Client, Refused, Unreachable
from caudal.core.errors import CaudalError, InvalidInput
from caudal.messaging.views import Conversation, Message

Progress = Callable[[int, int], None]
PIECE = 256 * 1024
# Seconds between attempts to come back to a socket: the first, and the most.
PAUSE_FIRST, PAUSE_MOST = 0.25, 10.0
REFUSED = 1008


class SignInAgain(CaudalError):
    """The token no longer holds."""

    code, status = "unauthenticated", 401


class File(msgspec.Struct):
    """A stored file."""

    file_id: str
    filename: str
    size_bytes: int
    checksum: str


class Download(File):
    """A stored file, with a link to its bytes."""

    download_url: str


class Accepted(msgspec.Struct):
    """A message that was taken."""

    message_id: str
    status: str
    conversation_id: str


class Me(msgspec.Struct):
    """Who is signed in."""

    user_id: str
    username: str


class _List(msgspec.Struct):
    conversations: list[Conversation]


class _History(msgspec.Struct):
    messages: list[Message]


class _Counted:
    """A file that says how far it has been read."""

    def __init__(self, path: Path, progress: Progress | None) -> None:
        self._file = path.open("rb")
        self._size = os.fstat(self._file.fileno()).st_size
        self._progress = progress

    def fileno(self) -> int:
        """Where its size is asked."""
        return self._file.fileno()

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        piece = self._file.read(size if size < 0 else max(size, PIECE))
        if self._progress is not None:
            self._progress(self._file.tell(), self._size)
        return piece

    def close(self) -> None:
        """Close it."""
        self._file.close()


class ChatClient(Client):
    """A person's client. `token` is set by `sign_in`, or given."""

    def __init__(self, url: str, *, token: str | None = None, timeout: float = 30.0) -> None:
        super().__init__(url, token=token, timeout=timeout)
        self.url = url.rstrip("/")

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    async def register(self, username: str, password: str, email: str) -> None:
        """Make a user. Raises Refused."""
        await self.request(
            "POST", "/auth/register", body={"username": username, "password": password, "email": email}
        )

    async def conversations(self) -> list[Conversation]:
        """The caller's conversations, the latest first."""
        return (await self.get("/v1/conversations", _List)).conversations

    async def history(self, conversation: str, limit: int = 20) -> list[Message]:
        """The latest messages of a conversation, in order."""
        path = f"/v1/conversations/{quote(conversation, safe='')}/messages"
        found = await self.get(path, _History, limit=limit, order="desc")
        return found.messages[::-1]

    async def send(
        self, conversation: str, content: str, *, to: str | None = None, file_id: str | None = None,
        key: str | None = None,
    ) -> Accepted:  # fmt: skip
        """Send a message. A `key` makes a repeated one the same message. Raises Refused."""
        body: dict[str, Any] = {"conversation_id": conversation, "content": content}
        if to is not None:
            body["recipient_id"] = to
        if file_id is not None:
            body["file_id"] = file_id
        answer = await self._call(
            "POST", "/v1/messages", json=body, headers={"Idempotency-Key": key} if key else {}
        )
        return msgspec.json.decode(answer, type=Accepted)

    async def mark_read(self, message_id: str) -> None:
        """Say that a message was read."""
        await self.request("POST", f"/v1/messages/{message_id}/read")

    async def upload(self, conversation: str, path: Path, progress: Progress | None = None) -> File:
        """Send a file's bytes, piece by piece. Raises Refused, InvalidInput when it cannot be read."""
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        try:
            file = _Counted(path, progress)
        except OSError as error:
            raise InvalidInput(f"{path} cannot be read: {error.strerror}.") from error
        try:
            answer = await self._call(
                "POST", "/v1/files", data={"conversation_id": conversation},
                files={"file": (path.name, file, kind)}, timeout=httpx.Timeout(30, read=None, write=None),
            )  # fmt: skip
        finally:
            file.close()
        return msgspec.json.decode(answer, type=File)

    async def download(self, file_id: str, target: Path, progress: Progress | None = None) -> Path:
        """Fetch a file to `target`: a folder, or the file's new path. Nothing is ever overwritten."""
        about = await self.get(f"/v1/files/{quote(file_id, safe='')}/download", Download)
        # What the server calls it is somebody else's word: its last part alone.
        path = target / (Path(about.filename).name or "file") if target.is_dir() else target
        try:
            out = path.open("xb")
        except OSError as error:
            raise InvalidInput(f"{path} cannot be written: {error.strerror}.") from error
        done = 0
        try:
            with out:
                stream = self._http.stream("GET", about.download_url, timeout=httpx.Timeout(30, read=60))
                async with stream as answer:
                    if answer.status_code != 200:
                        raise InvalidInput(f"The file's link answered {answer.status_code}. Try again.")
                    async for piece in answer.aiter_bytes(PIECE):
                        out.write(piece)
                        done += len(piece)
                        if progress is not None:
                            progress(done, about.size_bytes)
        except httpx.TransportError as error:
            path.unlink(missing_ok=True)
            raise Unreachable("The file's link does not answer, or broke off. Try again.") from error
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return path

    async def _call(self, method: str, path: str, **more: Any) -> bytes:
        headers = {**self._headers(), **more.pop("headers", {})}
        try:
            answer = await self._http.request(method, path, headers=headers, **more)
        except httpx.TransportError as error:
            raise Unreachable(f"{self.url} does not answer. Is it up, and is that its address?") from error
        if answer.status_code >= 400:
            raise _refusal(answer)
        return answer.content

    async def live(self, last_id: int | str | None = None) -> AsyncIterator[Mapping[str, Any]]:
        """What comes in, for ever; after `last_id` first what was missed. Comes back by itself when cut off.

        Raises SignInAgain when the token no longer holds.
        """
        pause = PAUSE_FIRST
        while True:
            try:
                async with connect(
                    self._socket_url(last_id), additional_headers=self._headers(), proxy=None,
                    open_timeout=10,
                ) as socket:  # fmt: skip
                    async for raw in socket:
                        frame = msgspec.json.decode(raw)
                        pause = PAUSE_FIRST
                        last_id = frame.get("id", frame.get("last_id", last_id))
                        yield frame
            except ConnectionClosed as error:
                code = error.rcvd.code if error.rcvd else 1006
                reason = error.rcvd.reason if error.rcvd else ""
                if code == REFUSED:
                    raise SignInAgain(reason or "Sign in again.") from error
            except (OSError, InvalidHandshake, TimeoutError):
                pass
            await asyncio.sleep(pause)
            pause = min(pause * 2, PAUSE_MOST)

    def _socket_url(self, last_id: int | str | None) -> str:
        parts = urlsplit(self.url)
        scheme = "wss" if parts.scheme == "https" else "ws"
        query = "" if last_id is None else f"?last_id={quote(str(last_id), safe='')}"
        return f"{scheme}://{parts.netloc}{parts.path}/notifications{query}"


def _refusal(answer: httpx.Response) -> Refused:
    try:
        found = msgspec.json.decode(answer.content)
        sentence, code = str(found["error"]), str(found.get("code", "refused"))
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError):
        sentence, code = f"The answer was {answer.status_code}.", "refused"
    request_id = answer.headers.get("x-request-id", "")
    return Refused(answer.status_code, sentence, code, request_id, answer.status_code >= 500)
