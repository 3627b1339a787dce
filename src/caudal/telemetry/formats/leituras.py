"""`leituras`: `{gateway_mac, timestamp, leituras:[{dispositivo_codigo, valor, unidade}]}`.

Source: the telemetry contract. Each reading is of a device of its own, `{mac}/{dispositivo_codigo}`, and its
point is `valor`. The topic's MAC says who is speaking; a payload that says otherwise is a dead letter.
"""

from caudal.telemetry.fields import Context, Missing, PartError, Reading, as_name, as_unit, kind_of, show
from caudal.telemetry.model import NAME_MAX, Decoded, Match, RefusedError

NAME = "leituras"
KINDS = frozenset({"telem", "asset", "meter"})
POINT = "valor"


def recognises(doc: object) -> Match:
    return Match.KEYS if isinstance(doc, dict) and "leituras" in doc else Match.NO


def decode(doc: object, context: Context) -> Decoded:
    assert isinstance(doc, dict)
    reading = Reading(NAME, context)
    leituras = reading.list_at(doc["leituras"], "/leituras")
    mac = _mac(reading, doc)
    ts, qual = reading.iso_at(doc.get("timestamp", Missing), "/timestamp")
    for index, leitura in enumerate(leituras):
        _leitura(reading, leitura, index, mac, ts, qual)
    return reading.done()


def _mac(reading: Reading, doc: dict[str, object]) -> str:
    """The gateway's MAC in lower case: the topic's where it has one, and the payload's must agree."""
    route = reading.context.route
    if route.mac is not None and doc.get("gateway_mac") is None:
        return route.mac
    mac = reading.name_at(doc.get("gateway_mac", Missing), "/gateway_mac").lower()
    if route.mac is not None and mac != route.mac:
        raise RefusedError(
            "schema", f"gateway_mac is {show(mac)}, and the topic's is {show(route.mac)}", "/gateway_mac"
        )
    return mac


def _leitura(reading: Reading, leitura: object, index: int, mac: str, ts: int, qual: int) -> None:
    where, pointer = f"leituras[{index}]", f"/leituras/{index}"
    if not isinstance(leitura, dict):
        reading.fault("schema", f"{where} is {kind_of(leitura)}, and must be an object", pointer, leitura)
        return
    key = "dispositivo_codigo"
    try:
        device = f"{mac}/{as_name(leitura.get(key, Missing))}"
        if len(device) > NAME_MAX:
            raise PartError(
                "too_large", f"makes a device name of {len(device)} characters; {NAME_MAX} are allowed"
            )
        key = "unidade"
        unit = as_unit(leitura.get(key))
        key = "valor"
        reading.typed(device, POINT, ts, "num", leitura.get(key, Missing), unit, qual)
    except PartError as bad:
        reading.lost(bad, f"{where}.{key}", f"{pointer}/{key}", leitura)
