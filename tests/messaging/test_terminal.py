"""`caudal chat` at a terminal: what is typed goes out, what comes in is shown, and shown harmlessly."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import Any

from prompt_toolkit import PromptSession
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput
from rich.console import Console

from caudal.chat import session as sessions
from caudal.chat.client import ChatClient
from caudal.chat.session import Session
from caudal.chat.terminal import Terminal, shown
from caudal.registry.permissions import Role


async def test_an_evening_of_chat(platform: Any, tmp_path: Path) -> None:
    await platform.route()
    await platform.api.person("default", Role.MEMBER, username="ana", password="pass_ana")
    b, hb = await platform.api.person("default", Role.MEMBER, username="bia", password="pass_bia")
    out = io.StringIO()
    kept = tmp_path / "chat.json"
    note = tmp_path / "note.txt"
    note.write_text("a note")

    async def says(text: str) -> None:
        async def ask() -> bool:
            return text in out.getvalue()

        await platform.until(ask)

    async with ChatClient(platform.api.url) as client:
        done = await client.sign_in("ana", "pass_ana")
        session = Session(
            url=platform.api.url, token=done.access_token, user_id=str(done.user_id), username="ana"
        )
        with create_pipe_input() as typed:
            prompt: PromptSession[str] = PromptSession(input=typed, output=DummyOutput())
            terminal = Terminal(
                client, session, lambda: sessions.save(kept, session), prompt=prompt,
                console=Console(file=out, width=200),
            )  # fmt: skip
            running = asyncio.create_task(terminal.run("plans"))
            await says("A new conversation")
            typed.send_text("/to bia\r")
            typed.send_text("hello there\r")
            await platform.until(
                lambda: platform.admin.fetchval(
                    "select count(*) = 1 from caudal.notification where user_id = $1", str(b)
                )
            )
            await platform.send(hb, "plans", "hi\x1b[31m Ana")
            await says("hi�[31m Ana")
            await platform.send(hb, "other", "psst", recipient_id=str(done.user_id))
            await says("● other: psst")
            typed.send_text(f"/file {note}\r")
            await platform.until(lambda: platform.admin.fetchval("select count(*) = 1 from caudal.file"))
            typed.send_text("/nonsense\r")
            await says("There is no /nonsense")
            # Of what failed, history says why.
            await platform.admin.execute(
                "update caudal.message set status = 'FAILED', reason = 'no such number'"
                " where content = 'hello there'"
            )
            typed.send_text("/more\r")
            await says("✗ no such number")
            typed.send_text("/quit\r")
            async with asyncio.timeout(30):
                await running
    # Seen, so read; and known when she comes back.
    read = await platform.admin.fetchval("select status from caudal.message where content like 'hi%'")
    assert read == "READ"
    again = sessions.load(kept)
    assert again is not None
    assert (again.username, again.last_id) == ("ana", session.last_id)
    assert kept.stat().st_mode & 0o077 == 0


def test_what_others_write_does_not_steer_the_terminal() -> None:
    assert shown("a\x1b]0;title\x07b\nc\u202e") == "a�]0;title�b\nc�"
