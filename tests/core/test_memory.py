"""What hashing takes is given back."""

from __future__ import annotations

import subprocess
import sys

import pytest

HASH = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from argon2 import PasswordHasher
from caudal.core.memory import give_back_blocks

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

if sys.argv[1] == "back" and not give_back_blocks(16 << 20):
    print("no glibc")
    sys.exit()
hasher = PasswordHasher(time_cost=1, memory_cost=19 * 1024, parallelism=1)
before = resident()
with ThreadPoolExecutor(1) as thread:
    for _ in range(3):
        thread.submit(hasher.hash, "x").result()
    print(resident() - before)
"""


def kept(how: str) -> float:
    done = subprocess.run([sys.executable, "-c", HASH, how], capture_output=True, text=True, check=True)
    if "no glibc" in done.stdout:
        pytest.skip("this machine's malloc is not glibc's")
    return float(done.stdout)


def test_large_blocks_are_given_back() -> None:
    assert kept("back") < 5
    # Else this test, and the setting with it, would be about nothing.
    assert kept("plain") > 15
