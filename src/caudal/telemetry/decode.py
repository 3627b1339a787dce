"""A payload and its route to samples, faults, an ack or an event. Never raises; never guesses.

Pure: no I/O, no clock, no database. Unknown tenants and devices are the pipeline's business.
"""

import json
from datetime import tzinfo
from typing import Any, Final

import msgspec

from caudal.telemetry import answers
from caudal.telemetry.fields import Context, kind_of, show
from caudal.telemetry.formats import Format, discover
from caudal.telemetry.model import Decoded, Limits, Match, RefusedError, Reject
from caudal.telemetry.topics import OUTBOUND, Route

FORMATS: Final = discover()
_FAST: Final = {f.name: f.fast for f in FORMATS.values() if f.fast is not None}
_LIMITS: Final = Limits()
_parse: Final = msgspec.json.Decoder().decode


def decode(
    route: Route,
    payload: bytes,
    *,
    bound_format: str | None = None,
    zone: tzinfo | None = None,
    now: int,
    max_skew_us: int,
    limits: Limits = _LIMITS,
) -> Decoded | Reject:
    """What `payload`, received at `now` on a topic of `route`, says.

    `bound_format` is the format a device has in the registry: it is read as that alone, and what is not that
    is `unknown_format`. `zone` is the site's time zone. A clock more than `max_skew_us` ahead of `now` is
    suspect. `now` and `max_skew_us` are microseconds.
    """
    context = Context(route, zone, now, now + max_skew_us, limits)
    try:
        if len(payload) > limits.payload_bytes:
            return Reject(
                "too_large", f"the payload has {len(payload)} bytes; {limits.payload_bytes} are allowed"
            )
        kind = route.kind
        if kind == "telem" or kind == "asset":
            if bound_format is None:
                for fast in _FAST.values():
                    if (decoded := fast(payload, context)) is not None:
                        return decoded
            elif bound_format in _FAST and (decoded := _FAST[bound_format](payload, context)) is not None:
                return decoded
        elif kind in OUTBOUND:
            return Reject("topic", "this topic is the platform's own to publish commands on")
        doc = parse(payload)
        if kind == "ack":
            return answers.ack(doc, context)
        if kind == "event":
            return answers.event(doc, context)
        return _choose(doc, kind, bound_format).decode(doc, context)
    except RefusedError as refused:
        return refused.reject
    except RecursionError:
        return Reject("too_large", "the JSON is nested too deeply")


def parse(payload: bytes) -> Any:
    """JSON of any kind; raises RefusedError (`encoding`, `json`).

    What msgspec refuses, Python's own parser looks at again: it takes NaN, Infinity, numbers beyond a double
    and half UTF-16 pairs, so that these cost a message one point and not all of them.
    """
    try:
        text = payload.decode()
    except UnicodeDecodeError as error:
        raise RefusedError(
            "encoding", f"byte {error.start} is no UTF-8: {error.reason}", f"byte {error.start}"
        ) from None
    try:
        return _parse(payload)
    except ValueError:
        pass
    try:
        return json.loads(text, parse_int=_whole)
    except json.JSONDecodeError as error:
        at = len(text[: error.pos].encode(errors="surrogatepass"))
        what = "the payload is empty" if not text.strip() else f"no JSON from byte {at} on: {error.msg}"
        raise RefusedError("json", what, f"byte {at}") from None


def _whole(digits: str) -> int | float:
    """Python refuses to make an int of thousands of digits; no double holds one either."""
    return int(digits) if len(digits) < 400 else float(digits)


def _choose(doc: object, kind: str, bound_format: str | None) -> Format:
    """The one format this is; raises RefusedError (`unknown_format`) when none, or more than one."""
    if bound_format is not None:
        bound = FORMATS.get(bound_format)
        if bound is None:
            raise RefusedError(
                "unknown_format", f"the device is bound to {show(bound_format)}, which is no format here"
            )
        candidates = [bound]
    else:
        candidates = list(FORMATS.values())
    matches = [(f.recognises(doc), f) for f in candidates if kind in f.kinds]
    best = max((m for m, _ in matches), default=Match.NO)
    surest = [f for m, f in matches if m is best]
    if best is Match.NO:
        raise RefusedError("unknown_format", f"{_describe(doc)} is not {_wanted(kind, bound_format)}")
    if len(surest) > 1:
        names = " and ".join(f.name for f in surest)
        raise RefusedError("unknown_format", f"this could be {names}; bind the device to one of them")
    return surest[0]


def _describe(doc: object) -> str:
    if isinstance(doc, dict):
        keys = ", ".join(show(k) for k in list(doc)[:8]) or "none"
        return f"an object with the keys {keys}{', ...' if len(doc) > 8 else ''}"
    return kind_of(doc)


def _wanted(kind: str, bound_format: str | None) -> str:
    if bound_format is not None:
        return f"{bound_format}, the format this device is bound to"
    names = sorted(f.name for f in FORMATS.values() if kind in f.kinds)
    return f"any format that this topic is for ({', '.join(names)})"
