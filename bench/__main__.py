"""`make bench`: measure everything in one run, print a table, write it to bench/results."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

SUITES = ("telemetry", "accept", "connectors", "files", "registry", "api", "fairness")
RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """What this was measured on."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    memory = int(Path("/proc/meminfo").read_text().split()[1]) // 1_048_576
    return {
        "processor": model,
        "cores": len(_cores()),
        "memory_gib": memory,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "commit": _commit(),
        "at": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "load_before": Path("/proc/loadavg").read_text().split()[0],
    }


def _cores() -> set[int]:
    import os

    return os.sched_getaffinity(0)


def _commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def markdown(report: dict[str, Any]) -> str:
    """The report as a page, with the machine it was taken on."""
    lines = [
        "# Measured",
        "",
        *(f"- {key.replace('_', ' ')}: {value}" for key, value in report["machine"].items()),
    ]
    for name, rows in report["suites"].items():
        lines += ["", f"## {name}", "", "| what | measured |", "|---|---|"]
        for row in rows:
            figures = "<br>".join(
                f"{key.replace('_', ' ')}: {value}" for key, value in row.items() if key != "what"
            )
            lines.append(f"| {row['what']} | {figures} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench ARGS=…")
    parser.add_argument("suites", nargs="*", default=[], help=f"of {', '.join(SUITES)}; all when left out")
    parser.add_argument("--quick", action="store_true", help="a tenth of the load, for a first look")
    chosen = parser.parse_args()
    report: dict[str, Any] = {"machine": machine(), "quick": chosen.quick, "suites": {}}
    console = Console(width=140)
    for name in chosen.suites or SUITES:
        rows = asyncio.run(importlib.import_module(f"bench.{name}").run(chosen.quick))
        report["suites"][name] = rows
        table = Table(title=name, title_justify="left")
        table.add_column("what")
        table.add_column("measured", overflow="fold")
        for row in rows:
            figures = ", ".join(f"{key} {value}" for key, value in row.items() if key != "what")
            table.add_row(row["what"], figures)
        console.print(table)
    if not chosen.quick:
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{time.strftime('%Y-%m-%d-%H%M')}.json"
        path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
        path.with_suffix(".md").write_text(markdown(report))
        console.print(f"written to {path}, and beside it as a page")


if __name__ == "__main__":
    main()
