"""Coverage-guided fuzzing of everything that takes a device's bytes apart (atheris).

`python tests/fuzz/fuzz_decode.py -max_total_time=600 CORPUS_DIR` for a long run. A crash is any exception at
all, or a result that breaks what the pipeline rests on.
"""

import sys

import atheris

with atheris.instrument_imports(include=["caudal.telemetry"]):
    from caudal.telemetry.decode import FORMATS, decode
    from caudal.telemetry.envelope import Envelope, unwrap_emqx
    from caudal.telemetry.model import Decoded, Limits, Reject
    from caudal.telemetry.topics import Route, TopicTable

TABLE = TopicTable()
LIMITS = Limits()
NOW = 1_780_272_000_000_000
ROUTES = [
    Route("telem", "t", "s", "d"),
    Route("ack", "t", "s", "d"),
    Route("event", "t", "s", "d"),
    Route("meter", mac="aa:bb:cc:00:00:01"),
]
BOUND = [None, *sorted(FORMATS)]


def one(data: bytes) -> None:
    """First byte: which route, which binding; the rest is the payload."""
    first, payload = (data[0], data[1:]) if data else (0, b"")
    inside = unwrap_emqx(payload, LIMITS)
    if isinstance(inside, Envelope):
        TABLE.match(inside.topic)
    result = decode(
        ROUTES[first % len(ROUTES)],
        payload,
        bound_format=BOUND[(first // len(ROUTES)) % len(BOUND)],
        now=NOW,
        max_skew_us=60_000_000,
    )
    if isinstance(result, Reject):
        if "\0" in result.sentence:
            raise AssertionError(f"a NUL in {result!r}")
        return
    if not isinstance(result, Decoded) or result.items < 1:
        raise AssertionError(f"unaccounted: {result!r}")
    for device, point, _, num, flag, text, unit, _ in result.samples:
        if [num is None, flag is None, text is None].count(False) != 1:
            raise AssertionError(f"not one value: {result!r}")
        if num is not None and not -1.8e308 < num < 1.8e308:
            raise AssertionError(f"not finite: {num!r}")
        for written in (device, point, text, unit):
            if written is not None and b"\0" in written.encode():
                raise AssertionError(f"cannot be stored: {written!r}")


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
