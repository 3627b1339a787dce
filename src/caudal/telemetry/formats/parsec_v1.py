"""`parsec_v1`: `{di1 and/or di2, rssi?, fw?, ts}`. Source: the telemetry contract.

`di1` 1 is status RUN and 0 STOP, `di2` is fault; an input that is not there gives no point.
"""

from caudal.telemetry.fields import Context, Missing, Reading
from caudal.telemetry.model import Decoded, Match

NAME = "parsec_v1"


def recognises(doc: object) -> Match:
    if isinstance(doc, dict) and "ts" in doc and ("di1" in doc or "di2" in doc):
        return Match.KEYS
    return Match.NO


def decode(doc: object, context: Context) -> Decoded:
    assert isinstance(doc, dict)
    reading = Reading(NAME, context)
    ts, qual = reading.iso_at(doc.get("ts", Missing), "/ts")
    running = reading.bit(doc.get("di1", Missing), "/di1")
    if running is not None:
        reading.text("status", "RUN" if running else "STOP", ts, qual)
    failed = reading.bit(doc.get("di2", Missing), "/di2")
    if failed is not None:
        reading.flag("fault", failed, ts, qual)
    reading.num("rssi", doc.get("rssi", Missing), "dBm", ts, qual, "/rssi")
    if doc.get("fw") is not None:
        reading.describe(None, "fw", doc["fw"], "/fw")
    return reading.done()
