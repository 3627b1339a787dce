"""A bounded run of the decoding fuzzer, seeded with every vector; longer runs are by hand."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
RUNS = os.environ.get("CAUDAL_FUZZ_RUNS", "200000")


@pytest.mark.slow
def test_decoding_under_a_coverage_guided_fuzzer(tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        give_up = pytest.fail if os.environ.get("CAUDAL_TEST_REQUIRE") == "all" else pytest.skip
        give_up("this machine lacks atheris (pip install atheris)")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for file in (HERE.parent / "telemetry/vectors").glob("*.jsonl"):
        for number, line in enumerate(file.read_text().splitlines()):
            payload = json.loads(line)["payload"].encode()
            if len(payload) < 1000:
                (corpus / f"{file.stem}-{number}").write_bytes(b"\0" + payload)
    command = [sys.executable, HERE / "fuzz_decode.py", f"-runs={RUNS}", "-max_len=1000", corpus]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
