"""`caudal chat` at a terminal: one conversation open, what comes in shown while one types."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from prompt_toolkit import PromptSession
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.patch_stdout import patch_stdout
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table
from rich.text import Text

from caudal.chat.client import ChatClient
from caudal.chat.session import Session
from caudal.core.errors import CaudalError
from caudal.messaging.views import Message

HELP = (
    ("/list", "your conversations"),
    ("/open NAME", "open a conversation, or begin one"),
    ("/to WHO", "to a user, a group_… or an address (whatsapp:+55…, instagram:@…); /to alone: to everybody"),
    ("/file PATH", "send a file"),
    ("/get FILE_ID [PATH]", "fetch a file"),
    ("/more [N]", "the last N messages again"),
    ("/quit", "leave (Ctrl-D too)"),
)  # fmt: skip
MARKS = {"SENT": "✓", "DELIVERED": "✓✓", "READ": "✓✓ read", "FAILED": "✗"}


def shown(text: object) -> str:
    """Text of others as a terminal may see it: no escape sequences, lines kept."""
    return "".join(sign if sign.isprintable() or sign == "\n" else "�" for sign in str(text))


def clock(milliseconds: int) -> str:
    """The local time of day, with the date when it is another day."""
    at = datetime.fromtimestamp(milliseconds / 1000).astimezone()
    today = datetime.now().astimezone().date()
    return at.strftime("%H:%M") if at.date() == today else at.strftime("%d %b %H:%M")


class Terminal:
    """An evening of chat. `keep` saves the session whenever something in it changes."""

    def __init__(
        self, client: ChatClient, session: Session, keep: Callable[[], None], *,
        prompt: PromptSession[str] | None = None, console: Console | None = None,
    ) -> None:  # fmt: skip
        self._client = client
        self._session = session
        self._keep = keep
        self._prompt = prompt or PromptSession()
        self._console = console or Console()
        self._open: str | None = None
        self._to: str | None = None
        self._last_mark: dict[str, str] = {}
        self._commands: dict[str, Callable[[str], Awaitable[None]]] = {
            "list": self._list, "open": self._open_one, "to": self._address, "file": self._file,
            "get": self._get, "more": self._more, "help": self._help,
        }  # fmt: skip

    async def run(self, conversation: str | None = None) -> None:
        """Talk until the person leaves. Raises SignInAgain when the token no longer holds."""
        await self._list("")
        if conversation is not None:
            await self._open_one(conversation)
        else:
            self._say("/open NAME opens a conversation, /help says what else there is.", "dim")
        with patch_stdout(raw=True):
            live = asyncio.create_task(self._live(), name="chat live")
            typing = asyncio.create_task(self._type(), name="chat prompt")
            try:
                done, _ = await asyncio.wait({live, typing}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (live, typing):
                    task.cancel()
                await asyncio.wait({live, typing})
            for task in done:
                task.result()

    # -- what the person types

    def _line(self) -> FormattedText:
        where = self._open or "no conversation"
        return FormattedText(
            [("bold", where), ("", f" → {self._to}" if self._to else ""), ("ansicyan", " › ")]
        )

    async def _type(self) -> None:
        while True:
            try:
                text = (await self._prompt.prompt_async(self._line)).strip()
            except (EOFError, KeyboardInterrupt):
                return
            if text in ("/quit", "/exit"):
                return
            if not text:
                continue
            try:
                await self._do(text)
            except CaudalError as error:
                self._say(error.sentence, "red")

    async def _do(self, text: str) -> None:
        if not text.startswith("/") or text.startswith("//"):
            await self._send(text.removeprefix("/") if text.startswith("//") else text)
            return
        word, _, rest = text[1:].partition(" ")
        command = self._commands.get(word)
        if command is None:
            self._say(f"There is no /{word}. /help says what there is.", "yellow")
            return
        await command(rest.strip())

    async def _send(self, text: str, file_id: str | None = None) -> None:
        if self._open is None:
            self._say("Open a conversation first: /open NAME", "yellow")
            return
        await self._client.send(self._open, text, to=self._to, file_id=file_id)

    async def _list(self, _: str) -> None:
        found = await self._client.conversations()
        table = Table(title="Conversations", title_justify="left")
        for column in ("conversation", "messages", "last"):
            table.add_column(column, overflow="fold")
        for one in found:
            name = (
                one.conversation_id
                if one.name == one.conversation_id
                else f"{one.conversation_id} ({one.name})"
            )
            last = clock(one.last_message_at) if one.last_message_at else ""
            table.add_row(Text(shown(name)), str(one.message_count), last)
        self._console.print(table if found else Text("No conversations yet.", style="dim"))

    async def _open_one(self, name: str) -> None:
        if not name:
            self._say("Which one? /open NAME", "yellow")
            return
        if name != self._open:
            self._open, self._to = name, None
        await self._more("")

    async def _address(self, who: str) -> None:
        self._to = who or None

    async def _more(self, count: str) -> None:
        if self._open is None:
            return
        try:
            messages = await self._client.history(self._open, min(int(count), 100) if count.isdigit() else 20)
        except CaudalError as error:
            if getattr(error, "status", 0) != 403:
                raise
            self._say("A new conversation: it begins with your first message. /to WHO says to whom.", "dim")
            return
        for message in messages:
            self._show(message)
            if message.sender_id != self._session.user_id and message.status != "READ":
                await self._read(message.message_id)

    async def _file(self, name: str) -> None:
        if self._open is None or not name:
            self._say("Open a conversation, then /file PATH", "yellow")
            return
        path = Path(name).expanduser()
        conversation = self._open
        file = await self._moving(path.name, lambda tell: self._client.upload(conversation, path, tell))
        await self._send(file.filename, file.file_id)

    async def _get(self, words: str) -> None:
        file_id, _, where = words.partition(" ")
        target = Path(where.strip() or ".").expanduser()
        path = await self._moving(file_id, lambda tell: self._client.download(file_id, target, tell))
        self._say(f"Kept as {path}", "green")

    async def _moving(self, what: str, move: Callable[[Callable[[int, int], None]], Awaitable[Any]]) -> Any:
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, console=self._console, transient=True) as bar:
            task = bar.add_task(shown(what), total=None)
            return await move(lambda done, of: bar.update(task, completed=done, total=of))

    async def _help(self, _: str) -> None:
        for word, meaning in HELP:
            self._say(f"{word:<22}{meaning}", "dim")

    # -- what comes in

    async def _live(self) -> None:
        async for frame in self._client.live(self._session.last_id):
            kind = frame.get("type")
            number = frame.get("id", frame.get("last_id"))
            if isinstance(number, int):
                self._session.last_id = number
                self._keep()
            if kind == "new_message":
                await self._hear(frame)
            elif kind == "status_update":
                self._mark(frame)
            elif kind == "gap":
                self._say("You were away for long: look into your conversations for the rest.", "yellow")

    async def _hear(self, frame: Mapping[str, Any]) -> None:
        if frame["conversation_id"] != self._open:
            where, text = shown(frame["conversation_id"]), shown(frame["content"])[:60]
            self._say(f"● {where}: {text}   (/open {where})", "magenta")
            return
        self._show(Message(
            message_id=frame["message_id"], conversation_id=frame["conversation_id"],
            sender_id=frame["sender_id"], content=frame["content"], status="SENT",
            timestamp=frame["timestamp"], file_id=frame.get("file_id"),
        ))  # fmt: skip
        await self._read(frame["message_id"])

    async def _read(self, message_id: str) -> None:
        try:
            await self._client.mark_read(message_id)
        except CaudalError:
            # It was not delivered to us, or is read already; nothing that the person could do.
            pass

    def _mark(self, frame: Mapping[str, Any]) -> None:
        if frame["conversation_id"] != self._open:
            return
        mark = MARKS.get(frame["status"], frame["status"])
        why = f": {shown(frame['reason'])}" if frame.get("reason") else ""
        self._say(f"      {mark} {clock(frame['timestamp'])}{why}", "red" if mark == "✗" else "dim")

    def _show(self, message: Message) -> None:
        own = message.sender_id == self._session.user_id
        line = Text()
        line.append(f"{clock(message.timestamp)} ", style="dim")
        who = self._session.username or "you" if own else shown(message.sender_id)
        line.append(f"{who}: ", style="bold cyan" if own else "bold green")
        line.append(shown(message.content))
        if message.file_id:
            size = (message.file_metadata or {}).get("size_bytes")
            line.append(f"  [file {message.file_id}{f', {size:,} bytes' if size else ''}]", style="blue")
        if own:
            line.append(f"  {MARKS.get(message.status, '')}", style="dim")
            if message.reason:
                line.append(f" {shown(message.reason)}", style="red")
        self._console.print(line)

    def _say(self, text: str, style: str) -> None:
        self._console.print(Text(text, style=style))
