"""A thread that somebody looks at has what is new in it at once: by an event, not by asking now and then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from caudal.messaging import notify

from .conftest import Site, Window


async def _tell(site: Site, name: str) -> None:
    """As a router does when something of a person's conversation has changed."""
    tenant, person = await site.admin.fetchrow(
        "select t.id, p.id::text from caudal.tenant t, caudal.person p"
        " where t.name = 'acme' and p.username = $1",
        name,
    )
    frame = {"type": "status_update", "status": "SENT"}
    async with site.admin.acquire() as connection, connection.transaction():
        await notify.publish(connection, [notify.Note(tenant, person, payload=frame)])
    notifier = site.made.services["notifier"]
    notifier.announce([(tenant, person)])


def _begin(page: Any, name: str) -> None:
    page.goto("/console/conversations")
    page.fill("[name=name]", name)
    page.fill("[name=recipient]", "tito")
    page.fill("[name=content]", "first")
    page.click("main button.primary")
    page.wait_for_url(f"**/thread?name={name}")


def test_what_is_new_is_there_at_once(window: Callable[..., Window], site: Site) -> None:
    writing, reading = window("ana").page, window("ana").page
    _begin(writing, "newsroom")
    with reading.expect_response("**/console/conversations/news") as stream:
        reading.goto("/console/conversations/thread?name=newsroom")
    assert stream.value.headers["content-type"].startswith("text/event-stream")
    # The first event comes when the line is open: what was missed meanwhile is fetched.
    reading.wait_for_function("() => !document.querySelector('.htmx-request')")
    # Nobody asks for it within the test's patience but for the event: else it is every 30 s.
    writing.fill("textarea[name=content]", "second")
    writing.click("main button.primary")
    writing.wait_for_function("() => document.querySelectorAll('#talk .said').length === 2")
    site.run(_tell(site, "ana"))
    reading.wait_for_function("() => document.querySelectorAll('#talk .said').length === 2", timeout=15_000)


def test_a_page_that_nobody_looks_at_keeps_no_line(window: Callable[..., Window], site: Site) -> None:
    page = window("ana").page
    _begin(page, "backstage")
    hub = site.made.services["hub"]
    person = site.run(site.admin.fetchval("select id::text from caudal.person where username = 'ana'"))

    def lines() -> int:
        return sum(len(mine) for (_, who), mine in hub._people.items() if who == person)

    def settled(wanted: int) -> None:
        for _ in range(600):
            if lines() == wanted:
                return
            page.wait_for_timeout(50)  # the server's end closes when it next writes, or hears of it
        raise AssertionError(lines())

    with page.expect_response("**/console/conversations/news"):
        page.goto("/console/conversations/thread?name=backstage")
    settled(1)
    page.goto("/console/conversations")
    settled(0)
