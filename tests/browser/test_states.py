"""What pages do when something is missing: data, an answer, the right, the session, the server."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from .axe import findings
from .conftest import PASSWORD, Site, Window
from .gate import Gate


@pytest.fixture
def gate(site: Site) -> Iterator[Gate]:
    made = Gate(int(site.url.rsplit(":", 1)[1]))
    site.run(made.mend())
    yield made
    site.run(made.cut())


def _fresh(window: Callable[..., Window], name: str, **options: Any) -> Any:
    """A page of a session of its own, which a test may end."""
    opened = window(**options)
    page = opened.go("/console/sign-in")
    page.fill("[name=login]", name)
    page.fill("[name=password]", PASSWORD)
    page.click("button.primary")
    page.wait_for_url(lambda address: "sign-in" not in address)
    return page


POST = """
([address, fields]) => fetch(address, {
  method: "POST",
  headers: {...JSON.parse(document.body.getAttribute("hx-headers")), "HX-Request": "true"},
  body: new URLSearchParams(fields),
}).then((answer) => answer.text().then((text) => [answer.status, text]))
"""


def _post(page: Any, address: str, fields: dict[str, str]) -> Any:
    """What the server says to a form that the page does not offer, or not twice: (status, body)."""
    return page.evaluate(POST, [address, fields])


async def _end_session(site: Site, name: str) -> None:
    """The newest session of a person; older ones are other tests'."""
    await site.admin.execute(
        "delete from caudal.browser_session where digest = (select s.digest from caudal.browser_session s"
        " join caudal.person p on p.id = s.person_id where p.username = $1"
        " order by s.created_at desc limit 1)",
        name,
    )


def test_a_session_that_ends_leads_back_to_the_same_page(window: Callable[..., Window], site: Site) -> None:
    page = _fresh(window, "vera", locale="pt-BR")
    page.goto("/console/devices?search=sensor")
    site.run(_end_session(site, "vera"))
    # A part of a page is asked for.
    page.fill("[name=search]", "sensor-2")
    page.wait_for_url("**/console/sign-in?next=**")
    page.fill("[name=login]", "vera")
    page.fill("[name=password]", PASSWORD)
    page.click("button.primary")
    page.wait_for_url(re.compile(r"/console/devices\?search=sensor"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_list_that_is_being_looked_for_is_as_readable_as_before(
    window: Callable[..., Window], scheme: str
) -> None:
    page = window("vera", color_scheme=scheme).go("/console/devices")
    held: list[Any] = []
    page.route("**/console/devices?search=*", lambda route: held.append(route))
    page.fill("[name=search]", "sensor-2")
    page.wait_for_selector("#list[aria-busy=true]")
    assert findings(page) == []
    held[0].continue_()
    page.wait_for_selector("#list:not([aria-busy])")


def test_live_values_say_that_the_session_ended(
    window: Callable[..., Window], site: Site, gate: Gate
) -> None:
    page = _fresh(window, "vera", locale="pt-BR")
    page.goto(f"{gate.url}/console/")
    page.wait_for_selector(".live.on")
    site.run(_end_session(site, "vera"))
    site.run(gate.cut())
    page.wait_for_selector(".live.off")
    site.run(gate.mend())
    page.wait_for_selector(".live.ended", timeout=20_000)
    assert "Sua sessão terminou" in page.locator(".live").inner_text()
    page.locator(".live a").click()
    page.wait_for_url("**/console/sign-in?next=%2Fconsole%2F")


def test_a_server_that_is_gone_is_said_and_comes_back(
    window: Callable[..., Window], site: Site, gate: Gate
) -> None:
    ana = window("ana", locale="pt-BR")
    page = ana.page
    page.goto(f"{gate.url}/console/")
    page.wait_for_selector(".live.on")
    site.run(gate.cut())
    page.wait_for_selector(".live.off")
    assert "reconectando" in page.locator(".live").inner_text()
    site.run(gate.mend())
    page.wait_for_selector(".live.on", timeout=20_000)
    # A part that refreshes itself says so too, and takes it back.
    page.goto(f"{gate.url}/console/conversations/thread?name=obra")
    page.goto(f"{gate.url}/console/operations")
    site.run(gate.cut())
    page.wait_for_selector("#notice .gone", timeout=20_000)
    assert "Sem resposta do servidor" in page.locator("#notice").inner_text()
    site.run(gate.mend())
    page.wait_for_selector("#notice .gone", state="detached", timeout=20_000)
    # Chromium reports what it could not reach; that is the point here.
    ana.errors.clear()


def test_charts_say_that_they_load_that_they_failed_and_try_again(window: Callable[..., Window]) -> None:
    ana = window("ana", locale="pt-BR")
    page = ana.page
    answers = iter([503, 503])
    held: list[Any] = []

    def answer(route: Any) -> None:
        if not held:
            held.append(route)
            return
        status = next(answers, None)
        if status is None:
            route.continue_()
        else:
            route.fulfill(status=status, body="{}")

    page.route("**/history.json*", answer)
    page.goto("/console/points/1")
    assert page.locator(".chart .hint").inner_text() == "Carregando…"
    page.wait_for_function("() => document.querySelector('.chart').dataset.drawn === 'asked'")
    held[0].fulfill(status=503, body="{}")
    page.wait_for_selector(".chart button")
    assert "Não foi possível carregar os dados" in page.locator(".chart").inner_text()
    page.get_by_role("button", name="Tentar novamente").click()
    page.wait_for_selector(".chart button")
    page.get_by_role("button", name="Tentar novamente").click()
    page.get_by_role("button", name="Tentar novamente").click()
    page.wait_for_selector(".chart canvas")


def test_pressing_twice_is_one_deed(window: Callable[..., Window], site: Site) -> None:
    async def profile() -> int:
        number = await site.admin.fetchval(
            "insert into caudal.profile(tenant_id, name, commands) select id, 'siren', $1 from caudal.tenant"
            " where name = 'acme' returning id",
            [{"name": "sound", "params": []}],
        )
        device = await site.admin.fetchval(
            "update caudal.device set profile_id = $1 where name = 'sensor-6' returning id", number
        )
        return int(device)

    number = site.run(profile())
    page = window("ana").go(f"/console/devices/{number}")
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Send", exact=True).dblclick()
    page.wait_for_selector("#command-rows .badge")
    # Another one, from the page that the first one led to, is another command.
    page.get_by_role("button", name="Send", exact=True).click()
    page.wait_for_function("() => document.querySelectorAll('#command-rows li').length === 2")
    # Whatever the buttons do: the form itself, sent twice, is one command.
    form = page.locator("form[hx-post$=commands]")
    fields = {name: form.locator(f"[name={name}]").input_value() for name in ("name", "key")}
    for _ in range(2):
        assert _post(page, f"/console/devices/{number}/commands", fields)[0] == 200
    count = site.run(site.admin.fetchval("select count(*) from caudal.command where device_id = $1", number))
    assert count == 3
    # Where no key guards: a gateway that is registered by an impatient hand.
    page.goto("/console/gateways")
    page.get_by_text("New gateway").click()
    page.fill("[name=code]", "TWICE")
    page.fill("[name=mac]", "02:00:00:00:01:01")
    page.route("**/console/gateways", lambda route: route.continue_())
    page.get_by_role("button", name="Register it").dblclick()
    page.wait_for_url("**/console/gateways/*")
    assert page.locator("#notice .bad").count() == 0


def test_back_brings_the_filters_back(window: Callable[..., Window]) -> None:
    page = window("ana").go("/console/")
    page.select_option("[name=span]", "30d")
    page.wait_for_url("**span=30d**")
    page.select_option("[name=span]", "month")
    page.wait_for_url("**span=month**")
    page.get_by_role("link", name="Devices", exact=True).click()
    page.wait_for_url("**/console/devices")
    page.go_back()
    page.wait_for_url("**span=month**")
    assert page.locator("[name=span]").input_value() == "month"
    page.go_back()
    page.wait_for_url("**span=30d**")
    assert page.locator("[name=span]").input_value() == "30d"
    assert page.locator("[name=site]").is_enabled()
    page.select_option("[name=span]", "24h")
    page.wait_for_url("**span=24h**")


def test_what_a_role_may_not_do_is_not_offered_and_refused(window: Callable[..., Window]) -> None:
    vera = window("vera", locale="pt-BR")
    page = vera.go("/console/devices/1")
    assert page.get_by_role("button", name="Nova senha").count() == 0
    answer = _post(page, "/console/devices/1", {"code": "x"})
    assert answer[0] == 403
    assert "Seu perfil de acesso não permite isso" in answer[1]
    for address in ("/console/operations", "/console/people", "/console/dead-letters"):
        assert "não permite" in vera.go(address).locator("h1").inner_text(), address
    memo = window("memo", locale="pt-BR")
    memo.go("/console/devices")
    assert "não permite" in memo.page.locator("h1").inner_text()
