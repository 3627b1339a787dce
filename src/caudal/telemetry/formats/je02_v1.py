"""`je02_v1`: `{"DATA": {TS, INPUT1, INPUT2, VAR0, …}}` and `{"INFO": {…}}`. Source: the telemetry contract.

TS is Unix seconds. A key that is not there gives no point, and neither does a status that the keys which are
there do not settle: without INPUT1, only INPUT2 = 1 does.
"""

from decimal import Decimal

from caudal.telemetry.fields import Context, Missing, PartError, Reading, as_num
from caudal.telemetry.model import Decoded, Match

NAME = "je02_v1"
_AS_SENT = (("WRSSI", "rssi", "dBm"), ("UPTIME", "uptime", "s"), ("CNTSERR", "cntserr", None))
_TENTHS = (("VAR0", "var0", "°C"), ("VAR1", "var1", "%"))


def recognises(doc: object) -> Match:
    if not isinstance(doc, dict):
        return Match.NO
    data = doc.get("DATA")
    if (isinstance(data, dict) and "TS" in data) or isinstance(doc.get("INFO"), dict):
        return Match.KEYS
    return Match.NO


def decode(doc: object, context: Context) -> Decoded:
    assert isinstance(doc, dict)
    reading = Reading(NAME, context)
    data = doc.get("DATA")
    if isinstance(data, dict):
        _data(reading, data)
    elif data is not None:
        reading.fault("schema", "DATA is no object", "/DATA", data)
    info = doc.get("INFO")
    if isinstance(info, dict):
        for key, value in info.items():
            reading.describe(None, key, value, "/INFO")
    return reading.done()


def _data(reading: Reading, data: dict[str, object]) -> None:
    ts, qual = reading.unix_at(data.get("TS", Missing), "/DATA/TS")
    running = reading.bit(data.get("INPUT1", Missing), "/DATA/INPUT1")
    failed = reading.bit(data.get("INPUT2", Missing), "/DATA/INPUT2")
    # An INPUT2 that is there and unreadable may be a fault; RUN or STOP would be a guess.
    unreadable = failed is None and "INPUT2" in data
    if failed:
        reading.text("status", "FAULT", ts, qual)
    elif running is not None and not unreadable:
        reading.text("status", "RUN" if running else "STOP", ts, qual)
    if failed is not None:
        reading.flag("fault", failed, ts, qual)
    for key, point, unit in _AS_SENT:
        reading.num(point, data.get(key, Missing), unit, ts, qual, f"/DATA/{key}")
    for key, point, unit in _TENTHS:
        value = data.get(key, Missing)
        if value is Missing:
            continue
        try:
            # In decimal: a tenth of a float would have digits that the device never sent.
            tenth = float(Decimal(repr(as_num(value))).scaleb(-1))
        except PartError as bad:
            reading.lost(bad, f"DATA.{key}", f"/DATA/{key}", value)
        else:
            reading.samples.append((None, point, ts, tenth, None, None, unit, qual))
    rele = reading.bit(data.get("RELE", Missing), "/DATA/RELE")
    if rele is not None:
        reading.flag("rele", rele, ts, qual)
