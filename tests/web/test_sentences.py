"""Refusals in Portuguese: what the registry says is understood, and what nobody translated stays as it is."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import caudal.registry
from caudal.core.errors import CaudalError
from caudal.registry import rules
from caudal.web.console import forms
from caudal.web.console.sentences import portuguese

WRONG: tuple[Callable[[], Any], ...] = (
    lambda: rules.text("", "name", least=1),
    lambda: rules.text("a\x01", "name"),
    lambda: rules.text("\ud800", "name"),
    lambda: rules.topic_name("a/b", "name"),
    lambda: rules.topic_name("$x", "name"),
    lambda: rules.mac("no"),
    lambda: rules.whole(0, 1, 8, "capacity"),
    lambda: rules.one_of("x", rules.KINDS, "kind"),
    lambda: rules.limit(Decimal(-1), "alarm_day"),
    lambda: rules.coordinate(Decimal(91), 90, "latitude"),
    lambda: rules.time_zone("Nowhere/Land"),
    lambda: rules.existing(None, "site"),
    lambda: forms.decimal({"limit_low": "much"}, "limit_low"),
    lambda: forms.whole({"capacity": "x"}, "capacity"),
)


@pytest.mark.parametrize("wrong", WRONG, ids=range(len(WRONG)))
def test_what_forms_refuse_is_said_in_portuguese(wrong: Callable[[], Any]) -> None:
    with pytest.raises(CaudalError) as refused:
        wrong()
    said = portuguese(refused.value.sentence)
    assert said, refused.value.sentence
    assert said[0].isupper()
    assert "{" not in said


def test_what_constraints_refuse_is_said_in_portuguese() -> None:
    text = Path(caudal.registry.__file__).with_name("rules.py").read_text()
    table = text.split("_SENTENCES = {")[1].split("}")[0]
    sentences = re.findall(r': "(.+)",', table)
    assert len(sentences) > 10
    untold = [sentence for sentence in sentences if portuguese(sentence) is None]
    assert untold == []


def test_fields_have_their_labels_and_the_rest_is_left_alone() -> None:
    assert portuguese("limit_low, limit_high: the low limit is above the high one.") == (
        "Limite inferior, limite superior: o limite inferior está acima do superior."
    )
    assert portuguese("time_zone: 'X: y' is no known time zone.") is not None
    assert portuguese("Your role does not allow registry:write. Ask an administrator of your tenant.") == (
        "Falta a permissão registry:write. Fale com um administrador da sua conta."
    )
    for sentence in ("", "something else: entirely", "a" * 5000, "name: {0}"):
        assert portuguese(sentence) is None
