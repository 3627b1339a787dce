"""Topics: templates are settings, levels are data."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caudal.telemetry.model import NAME_MAX
from caudal.telemetry.topics import TEMPLATES, Route, TemplateError, TopicTable

TABLE = TopicTable()
name = st.text(st.characters(exclude_characters="/+#\0", exclude_categories=["Cs"]), min_size=1, max_size=40)


@given(tenant=name, site=name, device=name, kind=st.sampled_from(["telem", "ack", "event", "cmd", "asset"]))
def test_what_is_built_matches_and_gives_the_levels_back(
    kind: str, tenant: str, site: str, device: str
) -> None:
    topic = TABLE.build(kind, tenant=tenant, site=site, device=device)  # type: ignore[arg-type]
    assert TABLE.match(topic) == Route(kind, tenant, site, device)  # type: ignore[arg-type]


@given(st.text(max_size=80))
def test_any_text_is_a_route_or_none(topic: str) -> None:
    route = TABLE.match(topic)
    if route is None:
        assert TABLE.explain(topic)
    else:
        levels = [route.tenant, route.site, route.device, route.mac]
        assert all(level is None or (level and not set(level) & set("/+#\0")) for level in levels)


def test_macs_have_no_case() -> None:
    upper, lower = (TABLE.match(f"tds_new/devices/{mac}/telemetry") for mac in ("AA:bb:0C", "aa:BB:0c"))
    assert upper == lower == Route("meter", mac="aa:bb:0c")


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "/",
        "traksense",
        "traksense/a/b/c",
        "traksense//b/c/telem",
        "traksense/a/b/c/telem/",
        "/traksense/a/b/c/telem",
        "traksense/a/b/c/TELEM",
        "traksense/+/b/c/telem",
        "traksense/a/b/#/telem",
        "traksense/a/b/c\0/telem",
        "$SYS/a/b/c/telem",
        f"traksense/{'x' * (NAME_MAX + 1)}/b/c/telem",
        "some/other/place",
    ],
)
def test_no_route(topic: str) -> None:
    assert TABLE.match(topic) is None


@pytest.mark.parametrize(
    "level", ["x'; drop table sample; --", " ", "a\nb", "%2F", "..", "日本", "{device}", "\\"]
)
def test_levels_are_data(level: str) -> None:
    route = TABLE.match(f"traksense/{level}/s/d/telem")
    assert route is not None
    assert route.tenant == level


@pytest.mark.parametrize("bad", ["", "a/b", "+", "#", "a\0", "x+"])
def test_a_name_never_widens_a_topic(bad: str) -> None:
    with pytest.raises(ValueError, match="cannot stand"):
        TABLE.build("cmd", tenant="t", site="s", device=bad)
    with pytest.raises(ValueError, match="cannot stand"):
        TABLE.build("cmd", tenant="t", site="s")


def test_a_topic_has_an_end() -> None:
    with pytest.raises(ValueError, match="longer"):
        TABLE.build("cmd", tenant="é" * 40_000, site="s", device="d")


def test_filters_bring_what_devices_publish_and_no_more() -> None:
    assert TABLE.filters() == [
        "traksense/+/+/+/telem",
        "traksense/+/+/+/ack",
        "traksense/+/+/+/event",
        "tds_new/devices/+/telemetry",
        "tenants/+/sites/+/assets/+/telemetry",
    ]


def test_another_fleet_needs_settings_alone() -> None:
    table = TopicTable(
        {"telem": ["plant/{site}/dev-{device}.json", "{tenant}/x/y/{device}"], "cmd": "to/{device}"}
    )
    assert table.match("plant/a/dev-7.json") == Route("telem", site="a", device="7")
    assert table.match("acme/x/y/7") == Route("telem", tenant="acme", device="7")
    assert table.match("$acme/x/y/7") is None
    assert table.match("plant/a/dev-.json") is None
    assert table.build("cmd", device="7") == "to/7"
    assert table.filters() == ["plant/+/+", "+/x/y/+"]


@pytest.mark.parametrize(
    ("templates", "why"),
    [
        ({"telem": "a/{nobody}"}, "placeholder"),
        ({"telem": "a/{device}/{device}"}, "once"),
        ({"telem": "a/{device}{site}"}, "one placeholder"),
        ({"telem": "a/{tenant}"}, "device"),
        ({"meter": "a/{device}"}, "mac"),
        ({"telem": "a//{device}"}, "empty"),
        ({"telem": "a/+/{device}"}, "wildcard"),
        ({"telem": "a/}x{device}"}, "brace"),
        ({"other": "a/{device}"}, "no such kind"),
        ({"telem": "a/{device}", "ack": "a/{device}"}, "fit one topic"),
        ({"telem": "a/{device}", "ack": "{device}/b"}, "fit one topic"),
        ({"telem": "a/x{device}", "ack": "a/{device}y"}, "fit one topic"),
        ({"telem": "a/{device}", "ack": "a/x{device}"}, "fit one topic"),
    ],
)
def test_templates_that_cannot_be_used(templates: dict[str, str], why: str) -> None:
    with pytest.raises(TemplateError, match=why):
        TopicTable(templates)


def test_templates_apart() -> None:
    TopicTable({"telem": "a/x{device}", "ack": "a/y{device}", "event": "a/{device}/b"})


def test_the_cache_has_a_bound() -> None:
    table = TopicTable(TEMPLATES)
    for i in range(40_000):
        table.match(f"traksense/t/s/{i}/telem")
    table.match("traksense/t/s/" + "x" * 60_000 + "/telem")
    assert table.cache_entries <= 32_768


@pytest.mark.parametrize(
    ("pattern", "tenant"),
    [
        ("traksense/acme/+/+/telem", "acme"), ("traksense/acme/s/d/ack", "acme"),
        ("traksense/+/s/d/ack", None),
        ("traksense/acme/#", None), ("#", None), ("tds_new/devices/+/telemetry", None), ("fleet/+", "owner"),
        ("nonsense", None), ("tenants/acme/sites/+/assets/+/telemetry", "acme"),
    ],
)  # fmt: skip
def test_the_one_tenant_of_a_filter(pattern: str, tenant: str | None) -> None:
    table = TopicTable({**TEMPLATES, "telem": [TEMPLATES["telem"], "fleet/{device}"]})
    assert table.tenant_of(pattern, "owner") == tenant
