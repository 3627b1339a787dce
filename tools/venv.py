"""Make the virtual environment in the folder named, with uv in it. Run by make; needs Python alone.

Debian's `python3` comes without ensurepip, and people without root cannot add it. There pip is fetched from
the package index as the one file it is, held against the digest below, and run from that file.
"""

from __future__ import annotations

import configparser
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from urllib.parse import urljoin

PIP = "pip-26.3-py3-none-any.whl"
DIGEST = "f3b60b20ffaadd4415ed7957212a38ac63fa4c5fa375bd0f4a797777940fad13"
UV = "uv>=0.9"
QUIET = ["install", "--quiet", "--disable-pip-version-check", "--no-input", UV]


def package_index() -> str:
    """The index that this machine's pip would be told of. SystemExit when it is told of none."""
    if given := os.environ.get("PIP_INDEX_URL"):
        return given
    told = configparser.ConfigParser()
    told.read(
        [Path(file).expanduser() for file in ("/etc/pip.conf", "~/.pip/pip.conf", "~/.config/pip/pip.conf")]
    )
    if found := told.get("global", "index-url", fallback=""):
        return found
    sys.exit(
        "This Python has no ensurepip. Install python3-venv, or set PIP_INDEX_URL to your package index."
    )


def fetch(folder: Path) -> Path:
    """pip's wheel, in `folder`. Raises OSError; SystemExit when the index has not the one we know."""
    index = package_index().rstrip("/") + "/pip/"
    with urllib.request.urlopen(index, timeout=60) as answer:
        page = answer.read().decode()
    link = re.search(rf"""["']([^"']*/{re.escape(PIP)})[#"']""", page)
    if link is None:
        sys.exit(f"{index} does not have {PIP}. Install python3-venv, and run make again.")
    with urllib.request.urlopen(urljoin(index, link[1]), timeout=60) as answer:
        content = answer.read()
    if hashlib.sha256(content).hexdigest() != DIGEST:
        sys.exit(f"{PIP} from {index} is not the file that we know.")
    wheel = folder / PIP
    wheel.write_bytes(content)
    return wheel


def make(target: Path) -> None:
    """Make it whole, or leave nothing: a half-made one would pass for made the next time."""
    made = subprocess.run([sys.executable, "-m", "venv", target], capture_output=True, text=True, check=False)
    if made.returncode == 0:
        subprocess.run([target / "bin" / "python", "-m", "pip", *QUIET], check=True)
        return
    print("This Python has no ensurepip; taking pip from the package index.", file=sys.stderr)
    shutil.rmtree(target, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", target], check=True)
    with tempfile.TemporaryDirectory() as folder:
        wheel = fetch(Path(folder))
        subprocess.run(
            [sys.executable, wheel / "pip", "--python", target / "bin" / "python", *QUIET], check=True
        )


if __name__ == "__main__":
    where = Path(sys.argv[1])
    if sys.version_info < (3, 11):
        sys.exit(f"Caudal needs Python 3.11 or later; {sys.executable} is {sys.version.split()[0]}.")
    try:
        make(where)
    except BaseException as error:
        shutil.rmtree(where, ignore_errors=True)
        if isinstance(error, (OSError, subprocess.CalledProcessError)):
            sys.exit(f"The virtual environment could not be made: {error}")
        raise
