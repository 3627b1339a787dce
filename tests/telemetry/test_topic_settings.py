"""A fleet with another scheme of topics needs a setting, and no code."""

from __future__ import annotations

import pytest

from caudal.registry.access import Access, Client
from caudal.telemetry.topics import TEMPLATES, Scheme, TemplateError, templates_from, topic_table


def test_nothing_given_is_the_usual() -> None:
    assert topic_table("").templates() == {kind: [text] for kind, text in TEMPLATES.items()}


def test_a_kind_is_replaced_and_the_others_stay() -> None:
    table = topic_table("telem=acme/{device}/up telem=fleet/{tenant}/{device}/data asset=")
    assert table.match("acme/pump/up") is not None
    route = table.match("fleet/north/pump/data")
    assert route is not None
    assert (route.kind, route.tenant, route.device) == ("telem", "north", "pump")
    assert table.match("traksense/t/s/d/telem") is None
    assert table.match("tenants/t/sites/s/assets/a/telemetry") is None
    assert table.match("traksense/t/s/d/ack") is not None


@pytest.mark.parametrize("text", ["telem", "nonsense=a/{device}", "telem=no/placeholder"])
def test_nonsense_is_refused_at_the_start(text: str) -> None:
    with pytest.raises(TemplateError):
        topic_table(text)


def test_a_later_equals_sign_belongs_to_the_topic() -> None:
    assert templates_from("telem=a=b/{device}")["telem"] == ["a=b/{device}"]


def rules_of(text: str, topic_tenant: str = "default") -> Access:
    given = topic_table(text).templates()
    return Access({kind: given.get(kind, ()) for kind in TEMPLATES}, topic_tenant=topic_tenant)


PUMP = Client(name="t:acme:d:pump", role="device", tenant="acme", device="pump")


def test_devices_may_use_every_topic_in_force() -> None:
    rules = rules_of(
        "telem=acme/{tenant}/{device}/up telem=other/{tenant}/{site}/{device} cmd=a/{tenant}/{device}"
        " cmd=b/{tenant}/{site}/{device} ack="
    )
    assert rules.may_publish(PUMP, "acme/acme/pump/up")
    assert rules.may_publish(PUMP, "other/acme/anywhere/pump")
    assert not rules.may_publish(PUMP, "acme/acme/other/up")
    assert not rules.may_publish(PUMP, "traksense/acme/s/pump/telem")
    assert not rules.may_publish(PUMP, "traksense/acme/s/pump/ack")
    assert rules.may_subscribe(PUMP, "a/acme/pump")
    assert rules.may_subscribe(PUMP, "b/acme/+/pump")
    assert rules.filters("cmd", tenant="acme", site="s", device="pump") == ("a/acme/pump", "b/acme/s/pump")
    assert rules.site_in("cmd", "b/acme/plant/pump") == "plant"
    assert rules.site_in("cmd", "c/acme/plant/pump") is None


def test_topics_without_a_tenant_are_one_tenants_alone() -> None:
    """They are stored as `TOPIC_TENANT`'s: nobody else's device may write there."""
    text = "telem=fleet/{device}/up cmd=fleet/{device}/down asset=assets/{site}/{device}"
    gateway = Client(name="g", role="gateway", mac="aa:bb:cc:dd:ee:01", tenant="acme", site="plant")
    for owner, may in (("acme", True), ("rival", False)):
        rules = rules_of(text, owner)
        assert rules.may_publish(PUMP, "fleet/pump/up") is may
        assert rules.may_subscribe(PUMP, "fleet/pump/down") is may
        assert rules.may_publish(gateway, "assets/plant/a") is may
        assert rules.topic("telem", tenant="acme", site="-", device="pump") == (
            "fleet/pump/up" if may else None
        )
        assert rules.may_publish(gateway, "tds_new/devices/AA:BB:CC:DD:EE:01/telemetry")


def test_tools_know_whose_topics_those_are() -> None:
    scheme = Scheme("telem=fleet/{device}/up", "acme")
    route = scheme.match("fleet/pump/up")
    assert route is not None
    assert (route.tenant, route.device) == ("acme", "pump")
    assert scheme.build("telem", tenant="acme", site="x", device="pump") == "fleet/pump/up"
    with pytest.raises(ValueError, match="TOPIC_TENANT"):
        scheme.build("telem", tenant="rival", site="x", device="pump")
    meter = scheme.match("tds_new/devices/aa:bb:cc:dd:ee:01/telemetry")
    assert meter is not None
    assert meter.tenant is None
