"""`caudal chat`: talk, at a terminal or from scripts."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from caudal.chat import session as sessions
from caudal.chat.client import ChatClient, SignInAgain
from caudal.chat.session import Session
from caudal.chat.terminal import Terminal, shown
from caudal.cli._tools import json_option, print_json, print_table, run
from caudal.core.errors import CaudalError, Unauthenticated

T = TypeVar("T")
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
PATH = click.Path(path_type=Path)
URL = "http://127.0.0.1:8080"


class Chat:
    """What every subcommand shares: where the API is, who calls, where that is kept."""

    def __init__(self, url: str | None, user: str | None, password: str | None, path: Path) -> None:
        self.path = path
        self.user = user
        self.password = password
        kept = sessions.load(path)
        if kept is None or (url is not None and kept.url != url) or (user and kept.username != user):
            kept = Session(url=url or (kept.url if kept else None) or _announced() or URL)
        self.session = kept

    def keep(self) -> None:
        """Save the session."""
        sessions.save(self.path, self.session)

    async def sign_in(self, client: ChatClient, user: str, password: str) -> None:
        """Sign in, and keep the token."""
        done = await client.sign_in(user, password)
        self.session.token = done.access_token
        if self.session.user_id != str(done.user_id):
            self.session.last_id = None
        self.session.user_id, self.session.username = str(done.user_id), user
        self.keep()

    def run(self, work: Callable[[ChatClient], Awaitable[T]]) -> T:
        """Do `work` as the person who is signed in; signs in first where a password is given."""

        async def signed_in() -> T:
            async with ChatClient(self.session.url, token=self.session.token or None) as client:
                if self.user and self.password and not self.session.token:
                    await self.sign_in(client, self.user, self.password)
                try:
                    return await work(client)
                except CaudalError as error:
                    if error.status != 401:
                        raise
                    if not (self.user and self.password):
                        raise Unauthenticated("Sign in first: caudal chat login") from error
                    await self.sign_in(client, self.user, self.password)
                    return await work(client)

        return run(signed_in())


def _announced() -> str | None:
    """Where a `caudal up` in ./data answers."""
    try:
        found = msgspec.json.decode(Path("data/endpoints.json").read_bytes(), type=dict[str, str])
    except (OSError, msgspec.MsgspecError):
        return None
    return found.get("http_url")


def _bar(what: str) -> tuple[Progress, Callable[[int, int], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    bar = Progress(
        *columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()
    )  # fmt: skip
    task = bar.add_task(shown(what), total=None)
    return bar, lambda done, of: bar.update(task, completed=done, total=of)


@click.group(invoke_without_command=True)
@click.option("--url", envvar="CAUDAL_URL", help=f"The API.  [default: the last one, ./data's, {URL}]")
@click.option("--user", envvar="CAUDAL_USER", help="User name or e-mail.")
@click.option("--password", envvar="CAUDAL_PASSWORD", help="Asked for when it is left out.")
@click.option(
    "--session", "path", envvar="CAUDAL_CHAT_SESSION", type=click.Path(dir_okay=False, path_type=Path),
    default=Path(click.get_app_dir("caudal")) / "chat.json", show_default=True,
    help="Where it is kept who is signed in.",
)  # fmt: skip
@click.option("--open", "conversation", help="The conversation to open first.")
@click.pass_context
def command(
    ctx: click.Context, url: str | None, user: str | None, password: str | None, path: Path,
    conversation: str | None,
) -> None:  # fmt: skip
    """Talk: without a subcommand at the terminal, live; the subcommands are for scripts."""
    chat = ctx.obj = Chat(url, user, password, path)
    if ctx.invoked_subcommand is not None:
        return
    if not chat.session.token:
        _ask(chat)
    Console().print(f"{chat.session.username} at {chat.session.url}. /help says what there is.", style="dim")

    async def talk(client: ChatClient) -> None:
        await Terminal(client, chat.session, chat.keep).run(conversation)

    try:
        chat.run(talk)
    except (Unauthenticated, SignInAgain):
        _ask(chat)
        chat.run(talk)


def _ask(chat: Chat) -> None:
    """Sign in at the terminal; a new person may register."""
    user = chat.user or click.prompt("User name or e-mail", default=chat.session.username or None)
    password = chat.password or click.prompt("Password", hide_input=True)

    async def enter() -> None:
        async with ChatClient(chat.session.url) as client:
            try:
                await chat.sign_in(client, user, password)
            except CaudalError as error:
                if error.status != 401 or "@" in user or not sys.stdin.isatty():
                    raise
                click.echo(error.sentence)
                if not click.confirm(f"Register {user} as a new person?"):
                    raise
                await client.register(user, password, click.prompt("E-mail"))
                await chat.sign_in(client, user, password)

    run(enter())
    chat.user, chat.password = user, password


@command.command()
@click.option("--email", prompt=True)
@click.pass_obj
def register(chat: Chat, email: str) -> None:
    """Make a new person (--user, --password), and sign in."""
    user = chat.user or click.prompt("User name")
    password = chat.password or click.prompt("Password", hide_input=True, confirmation_prompt=True)

    async def work() -> None:
        async with ChatClient(chat.session.url) as client:
            await client.register(user, password, email)
            await chat.sign_in(client, user, password)

    run(work())
    click.echo(chat.session.user_id)


@command.command()
@click.pass_obj
def login(chat: Chat) -> None:
    """Sign in, and stay so for the commands that follow."""
    _ask(chat)
    click.echo(chat.session.user_id)


@command.command("list")
@json_option
@click.pass_obj
def list_(chat: Chat, as_json: bool) -> None:
    """Your conversations."""
    found = chat.run(lambda client: client.conversations())
    if as_json:
        print_json(found)
        return
    rows = [(one.conversation_id, one.name, one.message_count) for one in found]
    print_table("Conversations", ("conversation", "name", "messages"), rows)


@command.command()
@click.argument("conversation")
@click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True)
@json_option
@click.pass_obj
def history(chat: Chat, conversation: str, limit: int, as_json: bool) -> None:
    """The latest messages of a conversation."""
    found = chat.run(lambda client: client.history(conversation, limit))
    if as_json:
        print_json(found)
        return
    rows = [
        (
            one.message_id,
            one.sender_id,
            f"{one.status}: {one.reason}" if one.reason else one.status,
            one.content,
        )
        for one in found
    ]
    print_table(conversation, ("message", "sender", "status", "content"), rows)


@command.command()
@click.argument("conversation")
@click.argument("content")
@click.option("--to", help="A user, a group_… or an address: whatsapp:+55…, instagram:@….")
@click.option(
    "--file", "path", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Goes along."
)
@click.option("--key", help="Idempotency-Key: sent twice, it is one message.")
@json_option
@click.pass_obj
def send(
    chat: Chat, conversation: str, content: str, to: str | None, path: Path | None, key: str | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Send a message; prints its id."""

    async def work(client: ChatClient) -> Any:
        file_id = None
        if path is not None:
            bar, tell = _bar(path.name)
            with bar:
                file_id = (await client.upload(conversation, path, tell)).file_id
        return await client.send(conversation, content, to=to, file_id=file_id, key=key)

    done = chat.run(work)
    print_json(done) if as_json else click.echo(done.message_id)


@command.command()
@click.argument("conversation")
@click.argument("path", type=FILE)
@json_option
@click.pass_obj
def upload(chat: Chat, conversation: str, path: Path, as_json: bool) -> None:
    """Put a file into a conversation; prints its id."""
    bar, tell = _bar(path.name)
    with bar:
        done = chat.run(lambda client: client.upload(conversation, path, tell))
    print_json(done) if as_json else click.echo(done.file_id)


@command.command()
@click.argument("file_id")
@click.option(
    "--to", "target", type=click.Path(path_type=Path), default=Path(), help="A folder, or a new path."
)
@click.pass_obj
def download(chat: Chat, file_id: str, target: Path) -> None:
    """Fetch a file; prints where it is. Nothing is overwritten."""
    bar, tell = _bar(file_id)
    with bar:
        path = chat.run(lambda client: client.download(file_id, target, tell))
    click.echo(str(path))


@command.command()
@click.option("--conversation", help="Of this one alone.")
@click.option("--count", type=click.IntRange(1), help="End after so many.")
@click.option("--last-id", help="Begin after this notification's number, or this message's id.")
@click.option("--seconds", type=click.FloatRange(0), help="End after so long, with status 1.")
@json_option
@click.pass_obj
def tail(
    chat: Chat, conversation: str | None, count: int | None, last_id: str | None, seconds: float | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Print what comes in, as it comes; with --json a frame a line, the first being `connected`."""

    async def work(client: ChatClient) -> bool:
        seen = 0
        try:
            async with asyncio.timeout(seconds):
                async for frame in client.live(last_id):
                    if frame["type"] == "connected":
                        if as_json:
                            _line(frame)
                        continue
                    if conversation is not None and frame.get("conversation_id") != conversation:
                        continue
                    if as_json:
                        _line(frame)
                    else:
                        what = frame.get("content") or frame.get("status") or ""
                        click.echo(f"{shown(frame.get('conversation_id', ''))}\t{shown(what)}")
                    seen += 1
                    if count is not None and seen >= count:
                        return True
        except TimeoutError:
            pass
        return count is None

    if not chat.run(work):
        sys.exit(1)


def _line(frame: Any) -> None:
    click.echo(msgspec.json.encode(frame).decode())
    sys.stdout.flush()
