"""A fleet with another scheme of topics needs a setting, and no code."""

from __future__ import annotations

import pytest

from caudal.app.doors import access_rules
from caudal.telemetry.topics import TEMPLATES, TemplateError, templates_from, topic_table


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


def test_devices_may_publish_on_the_topics_in_force() -> None:
    rules = access_rules(topic_table("telem=acme/{tenant}/{device}/up"))
    assert rules.topics["telem"] == "acme/{tenant}/{device}/up"
