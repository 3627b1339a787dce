"""The pictures of the documents, taken anew: `.venv/bin/python tools/pictures.py` (with Chromium installed).

Starts `caudal up --demo` on a directory of its own, does what makes each page worth looking at, and writes
docs/images. Each picture is a JPEG below 150 kB: what a page of text may cost who reads it on a phone.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

HERE = Path(__file__).parent.parent
TARGET = HERE / "docs" / "images"
MOST = 150_000
PHONE = "+5511999998888"
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
SETTLED = (HERE / "tools" / "settled.js").read_text()
BAD = '{"schema":"v1","ts":"%s","points":[{"name":"level","t":"float","v":{"x":1}}]}'
SEND = """
([address, body, type]) => fetch(address, {
  method: "POST", body,
  headers: {...JSON.parse(document.body.getAttribute("hx-headers")), "content-type": type},
}).then((answer) => answer.text().then((text) => [answer.status, text]))
"""


def start(data: Path) -> tuple[subprocess.Popen[str], dict[str, str], tuple[str, str]]:
    """The platform, its endpoints, and its owner's e-mail address and password. Raises SystemExit."""
    environ = {key: value for key, value in os.environ.items() if key not in ("DATABASE_URL", "MQTT_URL")}
    process = subprocess.Popen(
        [sys.executable, "-m", "caudal", "up", "--demo", "--data", str(data)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        env={**environ, "COLUMNS": "200"},
    )  # fmt: skip
    assert process.stdout is not None
    heard = ""
    for line in process.stdout:
        heard += line
        if found := re.search(r"Sign in as (\S+) with (\S+) ", line):
            owner = (found[1], found[2])
        if "Ctrl-C stops everything" in line:
            return process, json.loads((data / "endpoints.json").read_text()), owner
    raise SystemExit(heard)


def take(page: Page, name: str) -> None:
    """The screen as it is, once its charts are drawn; as good as fits."""
    page.wait_for_function(SETTLED)
    for quality in range(90, 20, -5):
        taken = page.screenshot(type="jpeg", quality=quality)
        if len(taken) < MOST:
            (TARGET / f"{name}.jpg").write_bytes(taken)
            print(f"{name}: {len(taken) // 1000} kB, quality {quality}")
            return
    raise SystemExit(f"{name} does not fit.")


def window(
    browser: Browser, url: str, owner: tuple[str, str], width: int, height: int, **options: Any
) -> Page:
    """A page of somebody who has signed in."""
    context = browser.new_context(base_url=url, viewport={"width": width, "height": height}, **options)
    page = context.new_page()
    page.goto("/console/sign-in")
    page.fill("[name=login]", owner[0])
    page.fill("[name=password]", owner[1])
    page.click("button.primary")
    page.wait_for_url(lambda address: "sign-in" not in address)
    return page


def dead_letter(page: Page) -> None:
    """One is sent, and looked at."""
    body = BAD % time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    status, text = page.evaluate(SEND, ["/api/ingest/devices/tank-7?site=plant-1", body, "application/json"])
    if status != 202:
        raise SystemExit(text)
    page.goto("/console/dead-letters")
    page.locator("main a[href^='/console/dead-letters/']").first.click()
    page.wait_for_selector("pre")
    take(page, "dead-letter")


def conversation(page: Page) -> None:
    """Something is said, read and answered; the phone is beside it."""
    page.goto("/console/conversations")
    page.fill("[name=name]", "chiller-3")
    page.fill("[name=recipient]", f"whatsapp:{PHONE}")
    page.fill(
        "[name=content]", "Good morning, Ana. Chiller 3 has been above -15 °C since 06:40. Can you look?"
    )
    page.click("main button.primary")
    page.wait_for_url("**/thread?name=chiller-3")
    phone = page.locator(".phone", has_text=PHONE)
    phone.locator(".said").wait_for()
    phone.locator("input[name=text]").fill("On my way. The door was open.")
    phone.get_by_role("button", name="Answer").click()
    page.wait_for_function("() => document.querySelectorAll('#talk .said').length === 2")
    phone.get_by_role("button", name="Read all").click()
    page.locator("#talk .badge", has_text="whatsapp: read").wait_for()
    page.evaluate("document.activeElement.blur()")
    take(page, "conversation")


def main() -> None:
    """All of them."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        raise SystemExit("Install Chromium.")
    TARGET.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        process, endpoints, owner = start(Path(folder) / "data")
        try:
            browser = driver.chromium.launch(executable_path=program, args=FLAGS)
            url = endpoints["http_url"]
            desk = window(browser, url, owner, 1280, 800, locale="en-US", color_scheme="light")
            dead_letter(desk)
            conversation(desk)
            wall = window(browser, url, owner, 1920, 1080, locale="en-US", color_scheme="light")
            # The day's history is there, and live values come.
            wall.goto("/console/?span=24h")
            wall.wait_for_selector("tr.fresh")
            take(wall, "overview")
            phone = window(browser, url, owner, 390, 844, locale="pt-BR", color_scheme="dark")
            phone.goto("/console/devices")
            phone.locator("#list tbody a").first.click()
            phone.wait_for_selector("h1")
            take(phone, "device-on-a-phone")
            desk.goto("/console/operations")
            desk.wait_for_selector("#board")
            take(desk, "operations")
            browser.close()
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)


if __name__ == "__main__":
    main()
