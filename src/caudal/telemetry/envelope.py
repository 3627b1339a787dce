"""`emqx`: what EMQX posts over HTTP, `{client_id, topic, payload, ts}`. Source: the telemetry contract.

The payload inside is then decoded as if it had come on that topic. `ts` is when the broker had the message,
in milliseconds; it never stands in for the time of a measurement.
"""

from typing import Final

import msgspec

from caudal.telemetry.decode import parse
from caudal.telemetry.model import Limits, RefusedError, Reject
from caudal.telemetry.timestamps import TimestampError, from_unix

_TOPIC_BYTES_MAX: Final = 65_535


class Envelope(msgspec.Struct, frozen=True):
    topic: str
    payload: bytes
    """As the device sent it: an object or array byte for byte, a string without its JSON quoting."""
    client_id: str | None
    broker_ts: int | None
    """Microseconds; None when the broker gave none that is a time."""


class _Posted(msgspec.Struct):
    topic: str
    payload: msgspec.Raw
    client_id: object = None
    ts: object = None


_decode: Final = msgspec.json.Decoder(_Posted).decode
_text: Final = msgspec.json.Decoder(str).decode


def unwrap_emqx(body: bytes, limits: Limits) -> Envelope | Reject:
    """The message inside an HTTP body; never raises.

    What is wrong with the payload itself is for `decode` to find: a string need not hold JSON here.
    """
    # A payload in a string may have every byte escaped, at six bytes each.
    if len(body) > 6 * limits.payload_bytes + _TOPIC_BYTES_MAX:
        return Reject("too_large", f"the body has {len(body)} bytes, more than any envelope may")
    try:
        body.decode()
        posted = _decode(body)
        raw = bytes(posted.payload)
        if raw[:1] == b'"':
            payload = _text(raw).encode()
        elif raw[:1] in (b"{", b"["):
            payload = raw
        else:
            return Reject("schema", "payload must be an object, an array or a JSON string", "/payload")
    except (ValueError, RecursionError):
        return _refusal(body)
    if not posted.topic or "\0" in posted.topic or len(posted.topic.encode()) > _TOPIC_BYTES_MAX:
        return Reject("topic", "topic is empty, too long, or holds a NUL character", "/topic")
    client = posted.client_id if isinstance(posted.client_id, str) else None
    return Envelope(posted.topic, payload, client, _broker_time(posted.ts))


def _broker_time(value: object) -> int | None:
    """It only informs, so a broker that sends nonsense costs no message."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return from_unix(value, 1000)
    except TimestampError:
        return None


def _refusal(body: bytes) -> Reject:
    """Why the typed decoder would not have it."""
    try:
        doc = parse(body)
    except RefusedError as refused:
        return refused.reject
    except RecursionError:
        return Reject("too_large", "the JSON is nested too deeply")
    if not isinstance(doc, dict):
        return Reject("unknown_format", "an envelope is an object with client_id, topic, payload and ts")
    for key in ("topic", "payload"):
        if key not in doc:
            return Reject("schema", f"{key} is missing", f"/{key}")
    if not isinstance(doc["topic"], str):
        return Reject("schema", "topic must be text", "/topic")
    return Reject("json", "the envelope holds a number or text that cannot be read")
