"""Without a mouse: filter, correct a dead letter, send a command. Only Tab, arrows, Enter and typing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from caudal.mqtt.ports import Principal
from caudal.telemetry.submit import submit

from .conftest import Site, Window

PAYLOAD = '{"schema":"v1","ts":"2026-11-01T09:00:00Z","points":[{"name":"tank","t":"float","v":"full"}]}'


def reach(page: Any, selector: str) -> None:
    """Tab until the focus is there, and see that it shows."""
    for _ in range(80):
        page.keyboard.press("Tab")
        if page.evaluate("s => document.activeElement.matches(s)", selector):
            break
    assert page.evaluate("s => document.activeElement.matches(s)", selector), selector
    shown = page.evaluate(
        "() => { const s = getComputedStyle(document.activeElement);"
        " return s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) > 0; }"
    )
    assert shown, f"no focus to be seen on {selector}"


def test_filtering(window: Callable[..., Window]) -> None:
    page = window("ana").go("/console/")
    reach(page, "[name=span]")
    # A select that is typed into changes at once.
    page.keyboard.type("3")
    page.wait_for_url("**span=30d**")
    # The page is another one, and the focus where it was.
    page.wait_for_function("() => document.activeElement.name === 'span'")
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.name") == "site"
    page.keyboard.type("L")
    page.wait_for_url("**site=**")
    page = window("ana").go("/console/devices")
    reach(page, "[name=search]")
    page.keyboard.type("fria 2")
    page.wait_for_function("() => document.querySelectorAll('#list tbody tr').length === 1")
    assert page.evaluate("() => document.activeElement.name") == "search"
    reach(page, "#list a")
    page.keyboard.press("Enter")
    page.wait_for_url("**/console/devices/*")


def test_correcting_a_dead_letter(window: Callable[..., Window], site: Site) -> None:
    async def refuse() -> int:
        topic = "traksense/acme/loja/sensor-1/telem"
        await submit(site.ingest.pipeline, [(topic, PAYLOAD.encode(), Principal("test"))])
        return int(await site.admin.fetchval("select max(id) from caudal.dead_letter"))

    number = site.run(refuse())
    page = window("ana").go("/console/dead-letters")
    reach(page, f"a[href='/console/dead-letters/{number}']")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/{number}")
    reach(page, "textarea[name=payload]")
    page.keyboard.press("Control+A")
    page.keyboard.type(PAYLOAD.replace('"full"', "2.5"))
    reach(page, "button[hx-post$='/try']")
    page.keyboard.press("Enter")
    page.wait_for_selector("#tried td")
    reach(page, "button[hx-post$='/replay']")
    page.keyboard.press("Enter")
    page.wait_for_selector("#replayed .good")
    # Whoever cannot see it is told.
    assert page.locator("#replayed [role=status]").count() == 1


def test_sending_a_command(window: Callable[..., Window], site: Site) -> None:
    async def profile() -> int:
        number = await site.admin.fetchval(
            "insert into caudal.profile(tenant_id, name, commands) select id, 'valve', $1 from caudal.tenant"
            " where name = 'acme' returning id",
            [{"name": "turn", "params": [{"name": "degrees", "type": "integer", "required": True}]}],
        )
        return int(
            await site.admin.fetchval(
                "update caudal.device set profile_id = $1 where name = 'sensor-1' returning id", number
            )
        )

    number = site.run(profile())
    page = window("ana").go(f"/console/devices/{number}")
    page.on("dialog", lambda dialog: dialog.accept())
    reach(page, "[name='param.degrees']")
    page.keyboard.type("90")
    page.keyboard.press("Enter")
    page.wait_for_selector("#command-rows .badge")
    sent = "select params from caudal.command where device_id = $1 order by id desc limit 1"
    assert site.run(site.admin.fetchval(sent, number)) == {"degrees": 90}


def test_a_chart_is_also_a_table(window: Callable[..., Window], site: Site) -> None:
    """For a screen reader: the chart has a name, and its numbers stand in a table behind one press."""
    page = window("ana", locale="pt-BR").go("/console/points/1")
    chart = page.get_by_role("img", name="Histórico: Energia")
    assert chart.count() == 1
    reach(page, "summary")
    page.keyboard.press("Enter")
    page.wait_for_selector("details table tbody tr")
    rows = page.locator("details table tbody tr").count()
    assert rows >= 20
    assert page.locator("details thead th").first.inner_text() == "Quando"
