"""Readings that are not plainly good: of bad quality, or beyond their limits; seen, and read aloud."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from caudal.mqtt.ports import Principal
from caudal.telemetry.submit import submit

from .axe import findings
from .conftest import Site, Window

TOPIC = "traksense/acme/loja/sensor-5/telem"


async def _arrives(site: Site, value: float, quality: int) -> None:
    point = f'{{"name":"temperature","t":"float","v":{value},"qual":{quality}}}'
    body = f'{{"schema":"v1","ts":"{datetime.now(UTC).isoformat()}","points":[{point}]}}'
    await submit(site.ingest.pipeline, [(TOPIC, body.encode(), Principal("test"))])


def _point(site: Site) -> Any:
    return site.run(
        site.admin.fetchrow(
            "select s.id, s.device_id from caudal.series s join caudal.device d on d.id = s.device_id"
            " where d.name = 'sensor-5' and s.name = 'temperature'"
        )
    )


def test_a_bad_reading_is_called_bad_live_and_afterwards(window: Callable[..., Window], site: Site) -> None:
    row = _point(site)
    page = window("ana", locale="pt-BR").go(f"/console/points/{row['id']}")
    page.wait_for_selector(".live.on")
    worth = page.locator("[data-quality]").first
    assert not worth.is_visible()
    for quality, word in ((2, "ruim"), (1, "suspeita"), (0, "")):
        site.run(_arrives(site, -17.25 + quality, quality))
        page.wait_for_function(
            "([value, word]) => document.querySelector('[data-value]').textContent === value"
            " && document.querySelector('[data-quality]').textContent === word",
            arg=[f"{-17.25 + quality}".replace(".", ","), word],
        )
        assert worth.is_visible() is (quality > 0)
        if quality:
            for address in (
                f"/console/points/{row['id']}",
                f"/console/devices/{row['device_id']}",
                "/console/",
            ):
                other = window("ana", locale="pt-BR").go(address)
                shown = other.locator(f"[data-series='{row['id']}']")
                assert word in shown.inner_text(), address
                assert findings(other) == []


def test_limits_are_drawn_and_said(window: Callable[..., Window], site: Site) -> None:
    row = _point(site)
    site.run(_arrives(site, -9.5, 0))
    ana = window("ana")
    page = ana.go(f"/console/points/{row['id']}?span=1h")
    ana.settle()
    words = "Limits of Temperatura (°C): -22 to -15."
    assert page.locator(".chart + .hint").inner_text() == words
    red = """() => {
      const wanted = document.createElement("canvas").getContext("2d");
      wanted.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--bad");
      wanted.fillRect(0, 0, 1, 1);
      const [r, g, b] = wanted.getImageData(0, 0, 1, 1).data;
      const canvas = document.querySelector(".chart canvas");
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      const rows = new Map();
      for (let at = 0; at < data.length; at += 4)
        if (data[at] === r && data[at + 1] === g && data[at + 2] === b) {
          const row = Math.floor(at / 4 / canvas.width);
          rows.set(row, (rows.get(row) || 0) + 1);
        }
      return [...rows.values()].filter((count) => count > canvas.width / 3).length;
    }"""
    assert page.evaluate(red) == 2
    page.get_by_text("The same as a table").click()
    page.wait_for_selector(".table tbody tr")
    assert page.locator(".table .hint").inner_text() == words
    assert page.locator(".table tr", has_text="-9.5").get_by_text("outside").count() == 1
    inside = page.locator(".table tbody tr", has_text="-18")
    assert inside.count() == 0 or inside.first.get_by_text("outside").count() == 0
    # A point without limits has none.
    page.goto("/console/points/1?span=7d")
    ana.settle()
    assert page.locator(".chart + .hint").count() == 0
    assert page.evaluate(red) == 0
