"""Webhook bodies of any shape: events that fit on the log, or ValueError; never anything else."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as tried
from hypothesis import strategies as st

from caudal.messaging import connectors
from caudal.messaging.webhooks import WebhookRecord
from tests.messaging.connectors.test_behaviour import settings

leaf = st.one_of(st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.text(max_size=8))
anything = st.recursive(leaf, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(
    st.text(max_size=6), inner, max_size=2), max_leaves=6)  # fmt: skip


def maybe(**parts: Any) -> Any:
    """A dictionary of these members, each of which may be missing or something else."""
    return st.fixed_dictionaries({}, optional={k: v | anything for k, v in parts.items()})


word = st.text(min_size=1, max_size=10)
number = st.integers(0, 2**50) | st.integers(0, 2**40).map(str)
part = maybe(body=word, id=word, mime_type=word, caption=word, filename=word, emoji=word, latitude=number)
statuses = maybe(id=word, status=st.sampled_from(["sent", "delivered", "read", "failed"]), timestamp=number,
                 recipient_id=word, biz_opaque_callback_data=word, errors=st.lists(maybe(
                     code=number, title=word, error_data=maybe(details=word)), max_size=2))  # fmt: skip
kinds = st.sampled_from(["text", "image", "location", "reaction", "interactive", "order"])
messages = st.tuples(kinds, part, maybe(id=word, timestamp=number, **{"from": word})).map(
    lambda parts: {"type": parts[0], parts[0]: parts[1], **parts[2]}
)
value = maybe(metadata=maybe(phone_number_id=word), statuses=st.lists(statuses, max_size=2),
              messages=st.lists(messages, max_size=2), contacts=st.lists(
                  maybe(wa_id=word, profile=maybe(name=word)), max_size=2))  # fmt: skip
whatsapp = st.fixed_dictionaries({
    "object": st.just("whatsapp_business_account"),
    "entry": st.lists(maybe(changes=st.lists(maybe(value=value), max_size=2)), max_size=2) | anything,
})  # fmt: skip
content = maybe(mid=word, text=word, is_echo=st.booleans(), metadata=word, attachments=st.lists(
    maybe(type=word, payload=maybe(url=word)), max_size=2))  # fmt: skip
person = maybe(id=word)
event = maybe(sender=person, recipient=person, timestamp=number, message=content, read=maybe(mid=word))
instagram = st.fixed_dictionaries({
    "object": st.just("instagram"),
    "entry": st.lists(maybe(id=word, messaging=st.lists(event, max_size=2)), max_size=2) | anything,
})  # fmt: skip


# Made once: a client of its own for each body would take most of the time. They connect to nobody.
READERS = {name: connectors.make(name, settings("http://127.0.0.1:9")) for name in ("whatsapp", "instagram")}


def read(name: str, body: bytes) -> None:
    try:
        events = READERS[name].read_webhook(body)
    except ValueError:
        return
    for found in events:
        record = WebhookRecord(tenant="acme", tenant_id=1, channel=name, event=found)
        again = msgspec.json.decode(msgspec.json.encode(record), type=WebhookRecord)
        assert again == record


@tried(max_examples=400, deadline=None)
@given(whatsapp)
def test_whatsapps(body: Any) -> None:
    read("whatsapp", msgspec.json.encode(body))


@tried(max_examples=400, deadline=None)
@given(instagram)
def test_instagrams(body: Any) -> None:
    read("instagram", msgspec.json.encode(body))


@pytest.mark.parametrize("name", ["whatsapp", "instagram"])
@tried(deadline=None)
@given(body=st.binary(max_size=200) | anything.map(msgspec.json.encode))
def test_anything_at_all(name: str, body: bytes) -> None:
    read(name, body)
