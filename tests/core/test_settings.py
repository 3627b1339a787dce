from typing import Annotated

import msgspec
import pytest

from caudal.core.errors import SettingsError
from caudal.core.settings import describe, load, setting


class Sample(msgspec.Struct, frozen=True):
    queue_max: Annotated[int, setting("How many", env="INGEST_QUEUE_MAX", ge=1)] = 50_000
    tls: Annotated[bool, setting("Whether")] = False
    url: Annotated[str | None, setting("Where")] = None


def test_variables_are_read_by_type_and_empty_means_unset() -> None:
    read = load(Sample, {"INGEST_QUEUE_MAX": "7", "TLS": "true", "URL": ""})
    assert read == Sample(7, True, None)


def test_a_wrong_value_names_its_variable() -> None:
    with pytest.raises(SettingsError, match="INGEST_QUEUE_MAX"):
        load(Sample, {"INGEST_QUEUE_MAX": "many"})
    with pytest.raises(SettingsError, match="INGEST_QUEUE_MAX"):
        load(Sample, {"INGEST_QUEUE_MAX": "0"})


def test_the_table_says_variable_default_and_sentence() -> None:
    assert describe(Sample)[0] == ("INGEST_QUEUE_MAX", "50000", "How many")
