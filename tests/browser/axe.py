"""axe-core on a page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

AXE = (Path(__file__).parent / "vendor" / "axe-4.14.1.min.js").read_text()


def findings(page: Any) -> list[str]:
    """Serious and critical findings of axe."""
    page.evaluate(AXE)
    found = page.evaluate(
        "axe.run(document, {resultTypes: ['violations']}).then(r => r.violations.filter("
        "v => ['serious', 'critical'].includes(v.impact)).map(v => v.id + ': ' + "
        "v.nodes.slice(0, 3).map(n => n.html.slice(0, 160) + ' '"
        " + (n.any[0] || n.all[0] || n.none[0] || {}).message).join(' | ')))"
    )
    return list(found)
