"""The envelope that EMQX posts: what is inside is as if it had come over MQTT."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caudal.telemetry.envelope import Envelope, unwrap_emqx
from caudal.telemetry.model import Limits, Reject

LIMITS = Limits()
POSTED = {"client_id": "c", "topic": "a/b", "payload": {"x": 1}, "ts": 1_759_851_000_123}


def unwrap(body: object) -> Envelope | Reject:
    return unwrap_emqx(body if isinstance(body, bytes) else json.dumps(body).encode(), LIMITS)


@pytest.mark.parametrize(
    ("payload", "inside"),
    [
        ({"x": 1}, b'{"x": 1}'),
        ([1, 2], b"[1, 2]"),
        ('{"x":"é"}', '{"x":"é"}'.encode()),
        ("no json", b"no json"),
        ("", b""),
    ],
)
def test_payload(payload: object, inside: bytes) -> None:
    assert unwrap({**POSTED, "payload": payload}) == Envelope("a/b", inside, "c", 1_759_851_000_123_000)


def test_digits_survive() -> None:
    result = unwrap(b'{"topic":"a","payload":{"v":1234567890.12345678901234567890}}')
    assert result == Envelope("a", b'{"v":1234567890.12345678901234567890}', None, None)


@pytest.mark.parametrize("ts", [None, "yesterday", True, 1e30, -1e30, [1]])
def test_a_broker_s_odd_clock_costs_no_message(ts: object) -> None:
    result = unwrap({**POSTED, "ts": ts, "client_id": 5})
    assert result == Envelope("a/b", b'{"x": 1}', None, None)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "json"),
        (b"{", "json"),
        (b"\xff", "encoding"),
        (b'{"topic":"\xff","payload":{}}', "encoding"),
        ([], "unknown_format"),
        (5, "unknown_format"),
        ({"topic": "a"}, "schema"),
        ({"payload": {}}, "schema"),
        ({**POSTED, "topic": 5}, "schema"),
        ({**POSTED, "payload": 5}, "schema"),
        ({**POSTED, "payload": None}, "schema"),
        ({**POSTED, "topic": ""}, "topic"),
        ({**POSTED, "topic": "a\0"}, "topic"),
        ({**POSTED, "topic": "x" * 65_536}, "topic"),
        (b'{"topic":"a","payload":"\\ud800"}', "json"),
        (b'{"topic":"a","payload":' + b"[" * 50_000, "too_large"),
        (b" " * (6 * LIMITS.payload_bytes + 65_536), "too_large"),
    ],
)
def test_refused(body: object, reason: str) -> None:
    result = unwrap(body)
    assert isinstance(result, Reject)
    assert result.reason == reason


@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
def test_anything_at_all(body: bytes) -> None:
    assert isinstance(unwrap_emqx(body, LIMITS), Envelope | Reject)
