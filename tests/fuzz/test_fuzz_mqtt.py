"""A bounded run of the fuzz target; `CAUDAL_FUZZ_SECONDS` makes it longer."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from caudal.mqtt import packets as pk
from caudal.mqtt.codec import encode
from caudal.mqtt.properties import Properties

SECONDS = int(os.environ.get("CAUDAL_FUZZ_SECONDS", "10"))
TARGET = Path(__file__).with_name("fuzz_mqtt.py")
PROPS = Properties(user_properties=(("a", "b"),))
SEEDS: list[pk.Packet] = [
    pk.Connect("c", 5, username="u", password=b"p", will=pk.Will("w", b"x", 1, props=PROPS), props=PROPS),
    pk.Publish("a/b", b"payload", 1, packet_id=7, props=Properties(topic_alias=1, content_type="x")),
    pk.Publish("", b"payload", 2, packet_id=8, props=Properties(topic_alias=1)),
    pk.Subscribe(1, [pk.Subscription("a/+", 1), pk.Subscription("#", 2)], PROPS),
    pk.Unsubscribe(2, ["a/+"], PROPS),
    pk.Puback(7, 0x87, PROPS),
    pk.Pubrel(8),
    pk.Disconnect(4, PROPS),
    pk.Auth(0x18, Properties(authentication_method="x", authentication_data=b"y")),
    pk.Pingreq(),
]


@pytest.mark.timeout(SECONDS + 60)
def test_nothing_breaks_the_codec(tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        if os.environ.get("CAUDAL_TEST_REQUIRE") == "all":
            pytest.fail("CAUDAL_TEST_REQUIRE=all, and atheris is not installed (group fuzz)", pytrace=False)
        pytest.skip("atheris is not installed (dependency group fuzz)")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number, packet in enumerate(SEEDS):
        for version in (4, 5):
            if version == 5 or not isinstance(packet, pk.Auth):
                (corpus / f"{number}-{version}").write_bytes(
                    bytes((version - 4 + 14,)) + encode(packet, version)
                )
    both = b"".join(encode(packet, 5) for packet in SEEDS[1:])
    (corpus / "all").write_bytes(bytes((15,)) + both)
    ran = subprocess.run(
        [
            sys.executable,
            str(TARGET),
            f"-max_total_time={SECONDS}",
            "-timeout=10",
            "-rss_limit_mb=1024",
            str(corpus),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
