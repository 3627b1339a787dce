"""Conversations that people outside began, and dials that were replaced: found, acted on, or refused."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from caudal.messaging import inbound

from .axe import findings
from .conftest import Site, Window

PHONE = "+5511988880001"
NAME = f"whatsapp:{PHONE}"


async def _written(site: Site, *texts: str) -> None:
    """Somebody writes to the tenant's number, and no router has found anybody to tell."""
    number = await site.admin.fetchval("select id from caudal.tenant where name = 'acme'")
    given = [
        inbound.Inbound(number, "whatsapp", PHONE, f"in {text}", text, datetime.now(UTC)) for text in texts
    ]
    async with site.admin.acquire() as connection, connection.transaction():
        _, after = await inbound.receive(connection, site.made.services["event_log"], given)
        await connection.execute("update caudal.message set waiting = true where content = any($1)", texts)
    after()


def test_who_wrote_first_is_taken_up_by_one(window: Callable[..., Window], site: Site) -> None:
    site.run(_written(site, "Bom dia?", "<b>alguém</b>?"))
    ana, tito = window("ana", locale="pt-BR"), window("tito")
    # Who may not join is not shown who waits.
    assert tito.go("/console/conversations").locator("#unclaimed").count() == 0
    page, late = ana.go("/console/conversations"), window("ana")
    late.go("/console/conversations")
    waiting = page.locator("#unclaimed li")
    assert NAME in waiting.inner_text()
    assert "mensagens: 2" in waiting.inner_text()
    assert findings(page) == []
    page.get_by_role("button", name=f"Atender {NAME}").focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/thread?name=**")
    assert page.locator("#talk .said").all_inner_texts() == ["Bom dia?", "<b>alguém</b>?"]
    assert ana.go("/console/conversations").locator("#unclaimed").count() == 0
    # Somebody else was first.
    change = "update caudal.participant set who = 'somebody' where who <> $1 and conversation_id ="
    change += " (select id from caudal.conversation where name = $1)"
    site.run(site.admin.execute(change, NAME))
    late.page.get_by_role("button", name=f"Join {NAME}").click()
    late.page.wait_for_selector("#notice .bad")
    assert "Somebody has joined" in late.page.locator("#notice").inner_text()


async def _meter(site: Site) -> int:
    return int(
        await site.admin.fetchval(
            "select s.id from caudal.series s join caudal.device d on d.id = s.device_id where d.code = 'D06'"
        )
    )


def test_a_replaced_dial_is_noted_and_taken_back(window: Callable[..., Window], site: Site) -> None:
    point = site.run(_meter(site))
    reading = "select v_num from caudal.sample where series = $1 and ts < $2 order by ts desc limit 1"
    at = datetime.now(UTC).replace(microsecond=0) - timedelta(days=3)
    shown = site.run(site.admin.fetchval(reading, point, at))
    page = window("ana", locale="pt-BR").go(f"/console/points/{point}")
    dials = page.locator("#dials")
    # In the account's own zone: three hours behind.
    dials.locator("[name=at]").fill((at - timedelta(hours=3)).strftime("%Y-%m-%dT%H:%M:%S"))
    dials.locator("[name=final_reading]").fill("1,5")
    dials.get_by_role("button", name="Registrar troca").click()
    page.wait_for_selector("#notice .bad")
    assert "no fim não pode ter indicado menos" in page.locator("#notice").inner_text()
    dials.locator("[name=final_reading]").fill(f"{shown + 0.5:.4f}".replace(".", ","))
    dials.locator("[name=start_reading]").fill("12,25")
    dials.locator("[name=note]").fill("<i>visor queimado</i>")
    dials.get_by_role("button", name="Registrar troca").click()
    page.wait_for_selector("#dials tbody tr")
    row = page.locator("#dials tbody tr").inner_text()
    assert "<i>visor queimado</i>" in row
    assert "12,25" in row
    kept: Any = site.run(site.admin.fetchrow("select * from caudal.replacement where series_id = $1", point))
    assert (kept["at"], kept["start_reading"]) == (at, 12.25)
    assert findings(page) == []
    # Who may only read sees it, and no form.
    reader = window("vera").go(f"/console/points/{point}")
    assert reader.locator("#dials tbody tr").count() == 1
    assert reader.locator("#dials :is(form, button)").count() == 0
    page.on("dialog", lambda dialog: dialog.accept())
    page.locator("#dials").get_by_role("button", name="Desfazer").click()
    page.wait_for_selector("#dials .empty")
    assert site.run(site.admin.fetchval("select count(*) from caudal.replacement")) == 0


def test_what_is_no_instant_is_refused(window: Callable[..., Window], site: Site) -> None:
    point = site.run(_meter(site))
    page = window("ana").go(f"/console/points/{point}")
    # Whatever the browser's own field lets through.
    page.evaluate("document.querySelector('#dials [name=at]').type = 'text'")
    for text, words in (("soon", "the day and the time"), ("0001-01-01T00:00", "between 1971 and now"),
                        ("9999-12-31T23:59", "between 1971 and now"),
                        ("2018-11-04T00:30", "clocks skipped that hour")):  # fmt: skip
        page.fill("#dials [name=at]", text)
        page.get_by_role("button", name="Note a replacement").click()
        page.wait_for_function(
            "words => document.querySelector('#notice').innerText.includes(words)", arg=words
        )
