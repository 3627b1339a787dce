"""What devices say on their `ack` and `event` topics. Source: the telemetry contract.

`schema` must be there and be text; which text the contract leaves open, so any is taken.
"""

from typing import Any

from caudal.telemetry.fields import Context, Missing, PartError, Reading, as_json, as_text, kind_of
from caudal.telemetry.model import TEXT_MAX, Ack, Decoded, Event, RefusedError


def _object(doc: object, what: str) -> dict[str, Any]:
    if not isinstance(doc, dict):
        raise RefusedError("schema", f"an {what} is an object, and this is {kind_of(doc)}")
    return doc


def ack(doc: object, context: Context) -> Decoded:
    """`{schema, cmd_id, ok, ts_exec?, err?}`; stands or falls as one."""
    body = _object(doc, "ack")
    reading = Reading("ack", context)
    reading.name_at(body.get("schema", Missing), "/schema")
    cmd_id = reading.name_at(body.get("cmd_id", Missing), "/cmd_id")
    ok = body.get("ok", Missing)
    if not isinstance(ok, bool):
        raise RefusedError("schema", f"ok is {kind_of(ok)}, and must be true or false", "/ok")
    ts_exec = None
    if body.get("ts_exec") is not None:
        ts_exec, _ = reading.iso_at(body["ts_exec"], "/ts_exec")
    return Decoded("ack", [], ack=Ack(cmd_id, ok, ts_exec, _err(body.get("err")), _body(body, "", context)))


def event(doc: object, context: Context) -> Decoded:
    """`{schema, event_id?, event_type, ts, data?}`; stands or falls as one."""
    body = _object(doc, "event")
    reading = Reading("event", context)
    reading.name_at(body.get("schema", Missing), "/schema")
    event_id = body.get("event_id")
    if event_id is not None:
        event_id = reading.name_at(event_id, "/event_id")
    event_type = reading.name_at(body.get("event_type", Missing), "/event_type")
    ts, qual = reading.iso_at(body.get("ts", Missing), "/ts")
    data = body.get("data")
    stored = None if data is None else _body(data, "/data", context)
    return Decoded("event", [], event=Event(event_id, event_type, ts, stored, qual))


def _err(value: object) -> str | None:
    """A device's complaint is kept whatever its type: text as it is, anything else as JSON."""
    if value is None:
        return None
    try:
        text = value if isinstance(value, str) else as_json(value, TEXT_MAX).decode()
        return as_text(text, TEXT_MAX)
    except PartError as bad:
        raise RefusedError(bad.reason, f"err {bad.sentence}", "/err") from None


def _body(value: object, pointer: str, context: Context) -> bytes:
    """Bounded by the message itself, which the limits have bounded already; it only shrinks."""
    try:
        return as_json(value, context.limits.payload_bytes)
    except PartError as bad:
        raise RefusedError(bad.reason, f"{pointer[1:] or 'the message'} {bad.sentence}", pointer) from None
