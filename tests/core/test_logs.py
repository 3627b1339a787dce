import io

import pytest
import structlog

from caudal.core import logs


@pytest.mark.parametrize("json", [True, False])
def test_a_traceback_holds_no_local_variables(json: bool) -> None:
    before = structlog.get_config()
    out = io.StringIO()
    try:
        logs.configure(json=json, stream=out)
        token = "a-very-" + "secret-token"
        try:
            raise ValueError("broken" + token[:0])
        except ValueError as error:
            logs.get("test").error("crashed", exc_info=error)
    finally:
        structlog.configure(**before)
    assert "ValueError" in out.getvalue()
    assert "a-very-secret-token" not in out.getvalue()


def test_a_logger_outlives_the_standard_error_it_first_wrote_to(monkeypatch: pytest.MonkeyPatch) -> None:
    before = structlog.get_config()
    first, second = io.StringIO(), io.StringIO()
    try:
        monkeypatch.setattr("sys.stderr", first)
        logs.configure(json=True)
        logger = logs.get("test")
        logger.error("one")
        monkeypatch.setattr("sys.stderr", second)
        first.close()
        logger.error("two")
    finally:
        structlog.configure(**before)
    assert "two" in second.getvalue()
