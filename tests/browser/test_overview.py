"""The overview's figures, held against the samples themselves: another road to the same numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from .conftest import Site, Window

ZONE = "America/Sao_Paulo"
# A step of a counter belongs to the later reading; what a device was filtered away by is not counted.
STEPS = """
select d.id as device, coalesce(nullif(d.display_name, ''), d.name) as title, s.ts at time zone $1 as at,
       s.v_num - lag(s.v_num) over (partition by s.series order by s.ts) as step
from caudal.sample s join caudal.series r on r.id = s.series join caudal.device d on d.id = r.device_id
join caudal.tenant t on t.id = r.tenant_id left join caudal.site p on p.id = d.site_id
where t.name = 'acme' and r.name = 'valor' and r.unit = 'kWh'
  and ($2::text is null or p.name = $2) and ($3::bigint is null or d.id = $3)
"""
READINGS = """
select d.id as device, s.ts at time zone $1 as at
from caudal.sample s join caudal.series r on r.id = s.series join caudal.device d on d.id = r.device_id
join caudal.tenant t on t.id = r.tenant_id left join caudal.site p on p.id = d.site_id
where t.name = 'acme' and ($2::text is null or p.name = $2) and ($3::bigint is null or d.id = $3)
"""


async def _figures(site: Site, place: str | None, device: int | None) -> dict[str, Any]:
    async with site.admin.acquire() as connection:
        # Plus what its seed's sine takes back: the seed's counters fall a little, which a meter does not.
        row = await connection.fetchrow(
            f"""with steps as ({STEPS}), now as (select now() at time zone $1 as at)
            select coalesce(sum(step) filter (where steps.at >= date_trunc('month', now.at)), 0) as this,
                   coalesce(sum(step) filter (where steps.at < date_trunc('month', now.at)
                     and steps.at >= date_trunc('month', now.at) - interval '1 month'), 0) as last
            from steps, now where step >= 0""",
            ZONE, place, device,
        )  # fmt: skip
        days = await connection.fetch(
            f"""with steps as ({STEPS}) select to_char(at, 'YYYY-MM-DD') as day, sum(step) as total from steps
            where step >= 0 and at >= date_trunc('day', now() at time zone $1) - interval '6 days'
            group by 1 order by 1""",
            ZONE, place, device,
        )  # fmt: skip
        bars = await connection.fetch(
            f"""with steps as ({STEPS}) select title, sum(step) as total from steps
            where step >= 0 and at >= date_trunc('day', now() at time zone $1) - interval '6 days'
            group by 1 order by 2 desc""",
            ZONE, place, device,
        )  # fmt: skip
        counts = await connection.fetchrow(
            f"""with readings as ({READINGS}), now as (select now() at time zone $1 as at)
            select count(*) filter (where readings.at >= date_trunc('day', now.at)) as today,
                   count(*) filter (where readings.at < date_trunc('day', now.at)
                     and readings.at >= date_trunc('day', now.at) - interval '1 day') as yesterday
            from readings, now""",
            ZONE, place, device,
        )  # fmt: skip
        devices = await connection.fetchrow(
            """select count(*) filter (where d.is_online) as online,
               count(*) filter (where not d.is_online and d.last_heard is not null) as offline,
               count(*) filter (where d.last_heard is null) as never, count(*) as whole
            from caudal.device d join caudal.tenant t on t.id = d.tenant_id
            left join caudal.site p on p.id = d.site_id
            where t.name = 'acme' and d.status <> 'rejected' and ($1::text is null or p.name = $1)
              and ($2::bigint is null or d.id = $2)""",
            place, device,
        )  # fmt: skip
    return {**row, **counts, **devices, "days": days, "bars": bars}


def _number(text: str) -> float:
    return float(text.split()[0].replace(",", ""))


@pytest.mark.parametrize("chosen", ["all", "site", "device", "nothing"])
def test_every_figure_is_the_samples_own(window: Callable[..., Window], site: Site, chosen: str) -> None:
    plant = site.run(site.admin.fetchval("select id from caudal.site where name = 'planta'"))
    meter = site.run(site.admin.fetchval("select id from caudal.device where display_name = 'Medidor 3'"))
    store = site.run(site.admin.fetchval("select id from caudal.site where name = 'loja'"))
    query, place, device = {
        "all": ("", None, None),
        "site": (f"&site={plant}", "planta", None),
        "device": (f"&device={meter}", None, meter),
        "nothing": (f"&site={store}&device={meter}", "loja", meter),
    }[chosen]
    ana, wanted, before = window("ana", locale="en-US"), site.run(_figures(site, place, device)), None
    # A device falls silent now and then: what was so before the page and after it was so in it.
    while wanted != before:
        before = wanted
        page = ana.go(f"/console/?span=7d{query}")
        wanted = site.run(_figures(site, place, device))
    cards = page.locator(".card")
    assert cards.nth(1).locator(".big").inner_text() == f"{wanted['online']} of {wanted['whole']}"
    assert cards.nth(1).locator(".hint").inner_text() == (
        f"{wanted['offline']} offline, {wanted['never']} never connected"
    )
    assert _number(cards.nth(2).locator(".big").inner_text()) == wanted["today"]
    assert _number(cards.nth(2).locator(".hint").inner_text()) == wanted["yesterday"]
    if chosen == "nothing":
        assert cards.nth(0).locator(".big").inner_text() == "–"
        assert page.locator("canvas").count() == 0
        return
    assert _number(cards.nth(0).locator(".big").inner_text()) == pytest.approx(wanted["this"], rel=2e-4)
    assert _number(cards.nth(0).locator(".hint").inner_text()) == pytest.approx(wanted["last"], rel=2e-4)
    chart = json.loads(page.locator("[data-chart]").get_attribute("data-chart"))
    assert len(chart["values"]) == 7
    assert [round(value, 6) for value in chart["values"]] == pytest.approx(
        [day["total"] for day in wanted["days"]], rel=1e-6
    )
    names = page.locator(".bars .name").all_inner_texts()
    totals = [_number(text) for text in page.locator(".bars .num").all_inner_texts()]
    assert names == [bar["title"] for bar in wanted["bars"]]
    assert totals == pytest.approx([bar["total"] for bar in wanted["bars"]], rel=2e-4)
    # The same again, for who reads a table.
    table = page.locator("details table tbody td.num").all_text_contents()
    assert [_number(text) for text in table] == pytest.approx(chart["values"], rel=2e-4)


@pytest.mark.parametrize(
    ("span", "unit", "least"), [("24h", "hour", 24), ("30d", "day", 30), ("12mo", "month", 12)]
)
def test_every_span_adds_up_to_its_readings(
    window: Callable[..., Window], site: Site, span: str, unit: str, least: int
) -> None:
    page = window("ana", locale="en-US").go(f"/console/?span={span}&measure=readings")
    chart = json.loads(page.locator("[data-chart]").get_attribute("data-chart"))
    assert len(chart["values"]) == least
    back = {"24h": "interval '23 hours'", "30d": "interval '29 days'", "12mo": "interval '11 months'"}[span]
    wanted = site.run(
        site.admin.fetchval(
            f"with readings as ({READINGS}) select count(*) from readings"
            f" where at >= date_trunc('{unit}', now() at time zone $1) - {back}",
            ZONE,
            None,
            None,
        )
    )
    assert sum(chart["values"]) == wanted


def test_time_in_states_adds_up_to_the_span(window: Callable[..., Window], site: Site) -> None:
    number = site.run(
        site.admin.fetchval(
            "select s.id from caudal.series s join caudal.device d on d.id = s.device_id"
            " where d.name = 'sensor-2' and s.name = 'door'"
        )
    )
    page = window("ana", locale="en-US").go(f"/console/points/{number}?span=24h")
    page.wait_for_selector(".bars li")
    shares = [float(text.split("·")[1].strip(" %")) for text in page.locator(".bars .num").all_inner_texts()]
    assert sum(shares) == pytest.approx(100, abs=0.3)
    names = page.locator(".bars .name").all_inner_texts()
    assert set(names) <= {"on", "off", "unknown"}
    # Four hours of a day are divisible by seven: what the seed calls on.
    on = shares[names.index("on")]
    assert 8 < on < 25


def test_the_last_readings_are_the_last(window: Callable[..., Window], site: Site) -> None:
    page = window("ana", locale="en-US").go("/console/")
    rows = page.locator("tr[data-series]")
    wanted = site.run(
        site.admin.fetch(
            "select r.id, max(s.ts) as ts from caudal.sample s join caudal.series r on r.id = s.series"
            " join caudal.tenant t on t.id = r.tenant_id where t.name = 'acme'"
            " group by 1 order by 2 desc, 1 limit 25"
        )
    )
    assert [int(row.get_attribute("data-series")) for row in rows.all()] == [row["id"] for row in wanted]
    newest = page.locator("[data-newest]").get_attribute("data-ago")
    # What comes live has milliseconds.
    assert abs(datetime.fromisoformat(newest) - wanted[0]["ts"]) < timedelta(milliseconds=2)
    # Limits of the seed's temperatures are crossed by some: those are the open alarms.
    outside = site.run(
        site.admin.fetch(
            "select device, name, v_num from (select distinct on (r.id) d.name as device, r.name,"
            " r.limit_low, r.limit_high, s.v_num, s.qual, s.ts"
            " from caudal.sample s join caudal.series r on r.id = s.series join caudal.tenant t"
            " on t.id = r.tenant_id join caudal.device d on d.id = r.device_id where t.name = 'acme'"
            " order by r.id, s.ts desc) as newest"
            " where (v_num < limit_low or v_num > limit_high) and qual < 2"
        )
    )
    card = page.locator(".card").nth(4)
    assert card.locator(".big").inner_text() == str(len(outside))
    shown = card.locator("a").all()
    assert len(shown) == min(len(outside), 3)
    assert all(one.get_attribute("href").startswith("/console/points/") for one in shown)
