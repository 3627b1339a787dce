from pathlib import Path

from caudal.app.settings import GROUPS, document
from caudal.core.settings import describe

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_of_settings_is_what_the_code_reads() -> None:
    page = (ROOT / "docs" / "settings.md").read_text()
    assert page == document(), "run: caudal settings > docs/settings.md"


def test_every_setting_says_what_it_means_and_none_is_declared_twice() -> None:
    rows = [row for kind in GROUPS.values() for row in describe(kind)]
    assert [row.variable for row in rows if not row.sentence] == []
    names = [row.variable for row in rows]
    assert sorted(set(names)) == sorted(names)


def test_the_settings_people_have_are_honoured() -> None:
    names = {row.variable: row.default for kind in GROUPS.values() for row in describe(kind)}
    contract = {
        "INGEST_QUEUE_MAX": "50000", "INGEST_BATCH_SIZE": "800", "INGEST_BATCH_MS": "250",
        "DB_POOL_MIN": "2", "DB_POOL_MAX": "8", "METRICS_PORT": "9100",
    }  # fmt: skip
    assert contract.items() <= names.items()
    assert {"MQTT_URL", "MQTT_TOPICS", "MQTT_QOS", "DATABASE_URL"} <= names.keys()
