"""What every page needs: who looks, in which language and zone, where they may go; and the rendering."""

from __future__ import annotations

import re
from collections.abc import Mapping
from secrets import token_urlsafe
from typing import Any
from urllib.parse import quote, urlencode
from zoneinfo import ZoneInfo

import jinja2
import msgspec
from litestar import MediaType, Request, Response

from caudal.registry.permissions import Action
from caudal.registry.principal import Principal
from caudal.web.console import static
from caudal.web.console.forms import json_of
from caudal.web.console.locale import LANGUAGES, Locale, chosen
from caudal.web.inject import Caller, Database

LANGUAGE_COOKIE = "caudal_language"
THEME_COOKIE = "caudal_theme"
THEMES = ("auto", "light", "dark")

# Everything a page loads is ours; nothing inline runs. uPlot and htmx set styles through the DOM alone.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {"content-security-policy": POLICY, "vary": "cookie, accept-language"}


class Entry(msgspec.Struct, frozen=True):
    """One entry of the menu, for who may `action`."""

    section: str
    address: str
    action: Action
    needs: str | None = None
    # For the tenant that runs the installation alone.
    installation: bool = False


MENU: tuple[Entry, ...] = (
    Entry("overview", "/console/", Action.TELEMETRY_READ),
    Entry("devices", "/console/devices", Action.REGISTRY_READ),
    Entry("gateways", "/console/gateways", Action.REGISTRY_READ),
    Entry("points", "/console/points", Action.REGISTRY_READ),
    Entry("sites", "/console/sites", Action.REGISTRY_READ),
    Entry("profiles", "/console/profiles", Action.REGISTRY_READ),
    Entry("certificates", "/console/certificates", Action.CERTIFICATES_READ, "pki_settings"),
    Entry("quarantine", "/console/quarantine", Action.REGISTRY_READ, "release"),
    Entry("dead_letters", "/console/dead-letters", Action.DEAD_LETTERS_READ),
    Entry("conversations", "/console/conversations", Action.MESSAGES_READ, "acceptor"),
    Entry("operations", "/console/operations", Action.OPERATIONS_READ, "people_settings"),
    Entry("all_tenants", "/console/installation/tenants", Action.OPERATIONS_READ, "post", installation=True),
    Entry("people", "/console/people", Action.PEOPLE_READ, "people_settings"),
)


def _environment() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("caudal.web.console"),
        # Every name and value that a device, a person or a provider sent is hostile until escaped.
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.globals["asset"] = static.address
    made.filters["path"] = lambda text: quote(str(text), safe="")
    return made


TEMPLATES = _environment()


class View:
    """Renders pages for one request."""

    def __init__(
        self,
        request: Request[Any, Any, Any],
        *,
        zone: str = "UTC",
        principal: Principal | None = None,
        tenant_title: str = "",
    ) -> None:
        self.request = request
        self.principal = principal
        self.tenant_title = tenant_title
        language = chosen(request.cookies.get(LANGUAGE_COOKIE), request.headers.get("accept-language", ""))
        self.locale = Locale(language, _zone(zone))
        theme = request.cookies.get(THEME_COOKIE, "auto")
        self.theme = theme if theme in THEMES else "auto"

    @property
    def htmx(self) -> bool:
        """Whether a part of a page is asked for, by htmx."""
        return self.request.headers.get("hx-request") == "true"

    def may(self, action: str) -> bool:
        """Whether the person may do `action` (its value, as `registry:write`)."""
        return self.principal is not None and Action(action) in self.principal.allowed

    def offers(self, service: str) -> bool:
        """Whether this process was given that service; what needs it is not shown otherwise."""
        return service in self.request.app.state.services

    @property
    def runs_installation(self) -> bool:
        """Whether the person works in the tenant that runs the installation."""
        return (
            self.principal is not None and self.principal.tenant == self.request.app.state.installation_tenant
        )

    def address(self, **changes: object) -> str:
        """The present address with these parameters changed; None takes one away."""
        given = {key: value for key, value in self.request.query_params.items() if key != "done"}
        given.update(changes)
        kept = {key: str(value) for key, value in given.items() if value not in (None, "")}
        return self.request.url.path + ("?" + urlencode(kept) if kept else "")

    def _context(self) -> dict[str, Any]:
        locale = self.locale
        done = self.request.query_params.get("done", "")
        return {
            "view": self, "locale": locale, "t": locale.t, "may": self.may, "principal": self.principal,
            "csrf": (self.principal.csrf or "") if self.principal else "",
            "ago_words": locale.ago_words(),
            "fresh_key": fresh_key, "json_of": json_of,
            "menu": self.menu(),
            "languages": LANGUAGES, "themes": THEMES, "theme": self.theme,
            "here": self.address(), "done": done if done.isidentifier() else "",
        }  # fmt: skip

    def page(
        self, template: str, *, section: str = "", status: int = 200,
        headers: Mapping[str, str] | None = None, **context: Any,
    ) -> Response[str]:  # fmt: skip
        """A whole page, or a part of one."""
        html = TEMPLATES.get_template(template).render(**self._context(), section=section, **context)
        return Response(
            html, status_code=status, media_type=MediaType.HTML, headers={**HEADERS, **(headers or {})}
        )

    def menu(self) -> list[Entry]:
        """What this person may see of what this process offers."""
        return [
            entry
            for entry in MENU
            if self.may(entry.action)
            and (entry.needs is None or self.offers(entry.needs))
            and (self.runs_installation or not entry.installation)
        ]

    def home(self) -> Response[str]:
        """The first page that this person may see."""
        for entry in self.menu():
            if entry.section != "overview":
                return self.go(entry.address)
        return self.page("nothing_yet.html", section="overview")

    def go(self, address: str, done: str | None = None, *, part: str = "") -> Response[str]:
        """Send the browser elsewhere after a form; `done` names what was done (key `done.…`).

        `part` of the page is scrolled to. Give `done` with it: to an address that differs from the present
        one in its part alone, a browser would go without asking us anew.
        """
        if done:
            address += ("&" if "?" in address else "?") + f"done={done}"
        if part:
            address += f"#{part}"
        if self.htmx:
            return Response("", headers={**HEADERS, "hx-redirect": address})
        return Response("", status_code=303, headers={**HEADERS, "location": address})


def fresh_key() -> str:
    """What makes pressing a button twice one deed."""
    return token_urlsafe(12)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return ZoneInfo("UTC")


async def present(request: Request[Any, Any, Any], principal: Caller, door: Database) -> View:
    """The view of somebody who is signed in."""
    async with door.read() as connection:
        row = await connection.fetchrow("select display_name, time_zone from caudal.tenant")
    zone = row["time_zone"] if row else "UTC"
    title = (row["display_name"] if row else None) or principal.tenant
    return View(request, zone=zone, principal=principal, tenant_title=title)


OWN = re.compile(r"/console(?:[/?]|$)")


def local(address: str | None) -> str:
    """`address` if it is one of the console's own pages, else the overview: no open redirects."""
    if address and address.isprintable() and "\\" not in address and OWN.match(address):
        return address
    return "/console/"


__all__ = ["View", "local", "present"]
