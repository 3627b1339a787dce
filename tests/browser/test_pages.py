"""Every page, as people meet it: accessible, in both themes and languages, on phone and wall, and fast."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .axe import findings
from .conftest import Site, Window
from .seed import HOSTILE, make_hostile

PAGES = {
    "overview": "/console/",
    "devices": "/console/devices",
    "device": "/console/devices/{sensor}",
    "gateways": "/console/gateways",
    "gateway": "/console/gateways/{gateway}",
    "points": "/console/points",
    "point": "/console/points/{point}",
    "sites": "/console/sites",
    "site": "/console/sites/{site}",
    "profiles": "/console/profiles",
    "profile": "/console/profiles/{profile}",
    "certificates": "/console/certificates",
    "quarantine": "/console/quarantine",
    "dead-letters": "/console/dead-letters",
    "dead-letter": "/console/dead-letters/{letter}",
    "conversations": "/console/conversations",
    "thread": "/console/conversations/thread?name=obra",
    "operations": "/console/operations",
    "people": "/console/people",
    "keys": "/console/people/keys",
    "audit": "/console/people/audit",
    "account": "/console/people/account",
    "tenants": "/console/tenants",
    "nothing": "/console/nowhere",
}
# Of the tenant that runs the installation.
INSTALLATION = {"installation": "/console/operations", "all-tenants": "/console/installation/tenants",
                "one-tenant": "/console/installation/tenants/1"}  # fmt: skip
STRANGERS = {"sign-in": "/console/sign-in", "forgotten": "/console/forgotten", "reset": "/reset",
             "invitation": "/invitation"}  # fmt: skip
LAPTOP, PHONE = (1280, 800), (390, 844)
# Every page with each language, theme and size at least once; all of the matrix with CAUDAL_TEST_LOOKS=all.
LOOKS = [("en-US", "light", *LAPTOP), ("pt-BR", "dark", *PHONE)]
if os.environ.get("CAUDAL_TEST_LOOKS") == "all":
    LOOKS = [
        (language, theme, *size)
        for language in ("en-US", "pt-BR")
        for theme in ("light", "dark")
        for size in (LAPTOP, PHONE)
    ]
# Fields wider than the panel they stand in; what scrolls by itself may be.
STICKING_OUT = """
() => [...document.querySelectorAll(".panel :is(input, select, textarea, button)")].filter((one) => {
  const mine = one.getBoundingClientRect(), panel = one.closest(".panel").getBoundingClientRect();
  return mine.width > 0 && mine.right > panel.right && !one.closest(".scroll");
}).map((one) => one.outerHTML.slice(0, 80))
"""
WALL = ("pt-BR", "light", 1920, 1080)


@pytest.fixture(scope="module")
def places(site: Site) -> dict[str, int]:
    """Numbers of the things that pages are about."""

    async def find() -> dict[str, int]:
        row = await site.admin.fetchrow(
            "select (select id from caudal.device where name = 'sensor-2') as sensor,"
            " (select id from caudal.gateway limit 1) as gateway,"
            " (select id from caudal.site where name = 'planta') as site,"
            " (select id from caudal.profile where name = 'chiller') as profile,"
            " (select min(id) from caudal.series where name = 'temperature') as point,"
            " (select id from caudal.dead_letter where pointer <> '' order by id limit 1) as letter"
        )
        return dict(row)

    return site.run(find())


@pytest.fixture(scope="module")
def thread(site: Site, browser: Any) -> None:
    """A conversation to look at."""
    window = Window(browser, site).sign_in("ana")
    page = window.go("/console/conversations")
    page.fill("[name=name]", "obra")
    page.fill("[name=recipient]", "tito")
    page.fill("[name=content]", "Bom dia, Tito.\nO medidor 3 parou?")
    page.click("main button.primary")
    page.wait_for_url("**/thread?name=obra")
    window.close()


@pytest.mark.slow
@pytest.mark.parametrize("look", LOOKS, ids=lambda look: f"{look[0]}-{look[1]}-{look[2]}")
def test_pages_are_accessible_and_fit(
    window: Callable[..., Window], places: dict[str, int], thread: None, look: Any, shots: Path
) -> None:
    """No serious finding of axe, nothing wider than the screen, one heading; a picture of each to look at."""
    language, theme, width, height = look
    options = {"locale": language, "color_scheme": theme, "viewport": {"width": width, "height": height}}
    insider, root, stranger = window("ana", **options), window("root_1", **options), window(**options)
    wrong: dict[str, list[str]] = {}
    for who, pages in ((insider, PAGES), (root, INSTALLATION), (stranger, STRANGERS)):
        for name, address in pages.items():
            page = who.go(address.format(**places))
            who.settle()
            found = findings(page)
            found += [f"sticks out: {field}" for field in page.evaluate(STICKING_OUT)]
            if page.evaluate("document.documentElement.scrollWidth") > width:
                found.append("wider than the screen")
            if page.locator("h1").count() != 1:
                found.append("not one h1")
            if page.locator("html").get_attribute("lang") != {"en-US": "en"}.get(language, language):
                found.append("wrong language")
            page.screenshot(path=str(shots / f"{name}-{width}-{theme}-{language[:2]}.png"), full_page=True)
            if found:
                wrong[name] = found
    assert wrong == {}, json.dumps(wrong, indent=1)


def test_a_wall_screen_shows_the_overview_whole(window: Callable[..., Window], shots: Path) -> None:
    language, theme, width, height = WALL
    wall = window("ana", locale=language, color_scheme=theme, viewport={"width": width, "height": height})
    page = wall.go("/console/")
    wall.settle()
    page.screenshot(path=str(shots / "overview-1920-light.png"))
    assert page.locator(".bars li").count() == 6
    assert page.locator("canvas").bounding_box()["y"] < height


def contention() -> float:
    """How many times longer things take because others use this machine: wall time over CPU time."""
    wall, cpu = time.perf_counter(), time.process_time()
    while time.process_time() - cpu < 0.2:
        pass
    return (time.perf_counter() - wall) / 0.2


@pytest.mark.alone
def test_the_overview_is_light_and_fast(window: Callable[..., Window]) -> None:
    """Cold: first contentful paint within 0.5 s, 300 kB at most, nothing from elsewhere."""
    paints = []
    crowd = contention()
    for _ in range(5):
        cold = window("ana")
        hosts: set[str] = set()
        sizes: list[float] = []
        session = cold.context.new_cdp_session(cold.page)
        session.send("Network.enable")
        session.on(
            "Network.loadingFinished", lambda event, sizes=sizes: sizes.append(event["encodedDataLength"])
        )
        cold.page.on("request", lambda request, hosts=hosts: hosts.add(request.url.split("/")[2]))
        page = cold.go("/console/")
        cold.settle()
        page.wait_for_function("() => performance.getEntriesByName('first-contentful-paint').length")
        paints.append(page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
        assert sum(sizes) < 300_000
        assert hosts == {cold.site.url.split("/")[2]}
    crowd = max(1.0, (crowd + contention()) / 2)
    print(f"first contentful paint {sorted(paints)} ms, {sum(sizes):.0f} bytes; contention {crowd:.1f}")
    # The best of five: a first one warms the server, and what others do here is none of the page's doing.
    assert min(paints) < 500 * crowd


def test_what_devices_send_is_text(window: Callable[..., Window], site: Site) -> None:
    """Names, units and values that are markup stand on the page as they are, and run nothing."""
    site.run(make_hostile(site.admin))

    async def ids() -> Any:
        return await site.admin.fetchrow(
            "select d.id, min(s.id) as point from caudal.device d join caudal.series s on s.device_id = d.id"
            " where d.name = $1 group by d.id",
            HOSTILE,
        )

    try:
        row = site.run(ids())
        ana = window("ana")
        for address in ("/console/?measure=readings", f"/console/?measure=unit:{HOSTILE}", "/console/devices",
                        f"/console/devices/{row['id']}", "/console/points", f"/console/points/{row['point']}",
                        "/console/dead-letters", "/console/quarantine",
                        f"/console/devices?search={HOSTILE}"):  # fmt: skip
            page = ana.go(address)
            ana.settle()
            assert page.evaluate("window.hacked") is None, address
            assert page.locator("img").count() == 0, address
            assert "49" not in page.locator("h1").inner_text()
        assert HOSTILE in ana.go(f"/console/devices/{row['id']}").locator("h1").inner_text()
    finally:
        site.run(site.admin.execute(
            "delete from caudal.sample where series in (select s.id from caudal.series s join caudal.device d"
            " on d.id = s.device_id where d.display_name like '%onerror%');"
            "delete from caudal.series where device_id in (select id from caudal.device where display_name"
            " like '%onerror%'); delete from caudal.device where display_name like '%onerror%';"
            "delete from caudal.site where display_name like '%onerror%'"
        ))  # fmt: skip


def test_an_empty_tenant_is_told_what_to_expect(window: Callable[..., Window], shots: Path) -> None:
    nova = window("nova")
    for name in (
        "",
        "devices",
        "gateways",
        "points",
        "quarantine",
        "dead-letters",
        "conversations",
        "operations",
    ):
        page = nova.go(f"/console/{name}")
        assert page.locator(".empty").count() >= 1, name
        assert findings(page) == [], name
    nova.go("/console/").screenshot(path=str(shots / "empty.png"))


def test_roles_see_what_they_may(window: Callable[..., Window]) -> None:
    vera = window("vera", locale="pt-BR")
    page = vera.go("/console/devices/1")
    assert page.locator("form[hx-post*='/console/devices']").count() == 0
    menu = page.locator("#menu ul").inner_text()
    assert "Dispositivos" in menu
    assert "Pessoas" not in menu
    page = vera.go("/console/people")
    assert "Seu perfil de acesso não permite isso" in page.locator("h1").inner_text()
    memo = window("memo")
    memo.go("/console/").wait_for_url("**/console/conversations")
    tito = window("tito")
    page = tito.go("/console/dead-letters")
    assert page.get_by_text("Replay all").count() == 0
    # The installation's own figures are shown to the tenant that runs it.
    assert window("ana").go("/console/operations").get_by_text("Partitions of samples").count() == 0
    assert window("root_1").go("/console/operations").get_by_text("Partitions of samples").count() == 1
