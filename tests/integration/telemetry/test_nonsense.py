"""Nonsense as input to each tool: one sentence that says what to do, exit status 2, never a traceback."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from caudal.cli import main

NOBODY = "mqtt://127.0.0.1:1"
FILES = {
    "columns.csv": b"a,b\n1,2\n",
    "empty.csv": b"",
    "binary.csv": bytes(range(256)) * 20,
    "when.csv": b"timestamp,v\nyesterday,1\n",
    "wide.csv": b"timestamp," + b"x" * 200_000 + b"\n2020-01-01,1\n",
}


def caudal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str, **environ: str
) -> tuple[int, str]:
    """Exit status and stderr of `caudal words`, in this process."""
    for name in ("DATABASE_URL", "MQTT_URL", "TOPIC_TEMPLATES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["caudal", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0), capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("ledger", "--since", "nonsense"), "ISO 8601"),
        (("ledger", "--since", "99999999999d"), "calendars"),
        (("dead-letters", "show", "999999999999999999999"), "not in the range"),
        (("dead-letters", "list", "--before", "99999999999999999999"), "not in the range"),
        (("dead-letters", "replay", "99999999999999999999"), "not in the range"),
        (("dead-letters", "replay"), "--all"),
        (("trace", "--payload", "-"), "--topic"),
        (("simulate", "--url", "nonsense"), "no address such as"),
        (("simulate", "--url", "mqtt://127.0.0.1:99999"), "no address such as"),
        (("simulate", "--url", "mqtt://[::1:1883"), "no address such as"),
        (("simulate", "--url", NOBODY, "--tenant", "a/b"), "Name another tenant"),
        (("simulate", "--url", NOBODY), "Is it up"),
        (("replay", "columns.csv", "--url", NOBODY), "--time-column"),
        (("replay", "empty.csv", "--url", NOBODY), "--time-column"),
        (("replay", "binary.csv", "--url", NOBODY), "no UTF-8 text"),
        (("replay", "when.csv", "--url", NOBODY), "Line 2"),
        (("replay", "wide.csv", "--url", NOBODY), "no CSV"),
        (("replay", "columns.csv", "--url", NOBODY, "--zone", "Mars/Base"), "time zone"),
        (("up", "--data", "/proc/nothing"), "--data"),
        (("up", "--data", "x", "--host", "nonsense.invalid"), "address of this machine"),
        (("migrate",), "DATABASE_URL"),
        (("ingest",), "DATABASE_URL"),
    ],
)
def test_words(
    words: tuple[str, ...], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    status, err = caudal(monkeypatch, capsys, *words)
    assert (status, "Traceback" in err) == (2, False)
    assert told in err


@pytest.mark.parametrize("tool", [("ledger",), ("migrate",), ("dead-letters", "list"), ("ingest",), ("up",)])
@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("nonsense", "postgresql://user:password@host"), ("postgresql://127.0.0.1:99999/x", "postgresql://"),
        ("postgresql://me:secret@127.0.0.1:1/x", "does not answer"), ("mysql://127.0.0.1/x", "postgresql://"),
    ],
)  # fmt: skip
def test_a_database_that_cannot_be(
    tool: tuple[str, ...], url: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    status, err = caudal(monkeypatch, capsys, *tool, DATABASE_URL=url, METRICS_PORT="0")
    assert (status, "Traceback" in err) == (2, False)
    assert told in err
    assert "secret" not in err


@pytest.mark.parametrize("tool", [("ledger",), ("dead-letters", "list"), ("trace", "--topic", "a")])
def test_a_database_that_is_not_ours(
    tool: tuple[str, ...], empty_database_url: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    status, err = caudal(monkeypatch, capsys, *tool, DATABASE_URL=empty_database_url)
    assert status == 2
    assert "caudal migrate" in err


@pytest.mark.parametrize(
    ("url", "told"), [("nonsense", "mqtt://user"), ("mqtt://127.0.0.1:1", "No broker answers")]
)
def test_a_broker_that_cannot_be(
    url: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    status, err = caudal(monkeypatch, capsys, "up", MQTT_URL=url)
    assert status == 2
    assert told in err


def test_settings_that_make_no_sense(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (
        ("INGEST_BATCH_SIZE", "abc"),
        ("METRICS_PORT", "99999"),
        ("TOPIC_TEMPLATES", "telem=x"),
    ):
        environ = {"DATABASE_URL": "postgresql://127.0.0.1:1/x", "METRICS_PORT": "0", name: value}
        status, err = caudal(monkeypatch, capsys, "ingest", **environ)
        monkeypatch.delenv(name)
        assert status == 2
        assert name in err
