"""MQTT topics to routes and back. Templates are settings; what stands in a level is data.

A template is a topic whose levels may each hold one placeholder, `traksense/{tenant}/{site}/{device}/telem`,
with text around it if a fleet has it so (`dev-{device}`).
"""

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias, cast, get_args

import msgspec

from caudal.core.errors import SettingsError
from caudal.telemetry.model import NAME_MAX

Kind: TypeAlias = Literal["telem", "ack", "event", "cmd", "meter", "meter_cmd", "asset"]

TEMPLATES: Mapping[str, str] = {
    "telem": "traksense/{tenant}/{site}/{device}/telem",
    "ack": "traksense/{tenant}/{site}/{device}/ack",
    "event": "traksense/{tenant}/{site}/{device}/event",
    "cmd": "traksense/{tenant}/{site}/{device}/cmd",
    "meter": "tds_new/devices/{mac}/telemetry",
    "meter_cmd": "tds_new/devices/{mac}/commands",
    "asset": "tenants/{tenant}/sites/{site}/assets/{device}/telemetry",
}
OUTBOUND: frozenset[str] = frozenset({"cmd", "meter_cmd"})
"""Kinds the platform publishes on; what a device publishes there is no telemetry."""

_FIELDS = ("tenant", "site", "device", "mac")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_CACHED_TOPIC_MAX = 512
"""Longer topics are matched afresh each time: a cache must be bounded in bytes, not in entries alone."""
_CACHE_ENTRIES = 32_768
_TOPIC_BYTES_MAX = 65_535


class Route(msgspec.Struct, frozen=True):
    """Where a message came from, as its topic says. Names are as sent; a MAC is in lower case."""

    kind: Kind
    tenant: str | None = None
    site: str | None = None
    device: str | None = None
    mac: str | None = None


class TemplateError(SettingsError):
    """A topic template in the settings cannot be used; the message says why."""

    def __init__(self, why: str) -> None:
        super().__init__(f"TOPIC_TEMPLATES: {why}. See docs/mqtt.md.")


class _Level(msgspec.Struct, frozen=True):
    before: str
    field: str | None
    after: str

    @property
    def filter(self) -> str:
        return self.before if self.field is None else "+"

    @property
    def pattern(self) -> str:
        if self.field is None:
            return re.escape(self.before)
        return f"{re.escape(self.before)}(?P<{self.field}>[^/+#\\x00]+){re.escape(self.after)}"

    def meets(self, other: "_Level") -> bool:
        """Whether some text fits both."""
        if self.field is None and other.field is None:
            return self.before == other.before
        if self.field is None or other.field is None:
            fixed, open_ = (self, other) if self.field is None else (other, self)
            return re.fullmatch(open_.pattern, fixed.before) is not None
        starts = self.before.startswith(other.before) or other.before.startswith(self.before)
        return starts and (self.after.endswith(other.after) or other.after.endswith(self.after))


class _Template(msgspec.Struct, frozen=True):
    kind: Kind
    text: str
    levels: tuple[_Level, ...]
    regex: re.Pattern[str]

    def meets(self, other: "_Template") -> bool:
        return len(self.levels) == len(other.levels) and all(
            a.meets(b) for a, b in zip(self.levels, other.levels, strict=True)
        )


def _compile(kind: str, text: str) -> _Template:
    where = f"topic template {kind}={text!r}"
    if kind not in get_args(Kind):
        raise TemplateError(f"{where}: no such kind; use one of {', '.join(get_args(Kind))}")
    seen: set[str] = set()
    levels = []
    for part in text.split("/"):
        names = _PLACEHOLDER.findall(part)
        bare = _PLACEHOLDER.sub("", part)
        if not part or any(c in bare for c in "{}+#\x00"):
            raise TemplateError(f"{where}: level {part!r} is empty, or has a wildcard or a stray brace")
        if len(names) > 1 or any(n not in _FIELDS or n in seen for n in names):
            raise TemplateError(
                f"{where}: level {part!r} takes one placeholder, one of {', '.join(_FIELDS)}, each used once"
            )
        seen.update(names)
        before, _, rest = part.partition("{") if names else (part, "", "")
        levels.append(_Level(before, names[0] if names else None, rest.partition("}")[2]))
    need = "mac" if kind.startswith("meter") else "device"
    if need not in seen:
        raise TemplateError(f"{where}: {{{need}}} is missing, so nobody could tell who sent a message")
    pattern = "/".join(level.pattern for level in levels)
    return _Template(cast("Kind", kind), text, tuple(levels), re.compile(pattern, re.DOTALL))


class TopicTable:
    """All templates of a deployment. Two that one topic could fit are an error at start, not later."""

    def __init__(self, templates: Mapping[str, str | Sequence[str]] = TEMPLATES) -> None:
        self._templates: list[_Template] = []
        for kind, texts in templates.items():
            for text in (texts,) if isinstance(texts, str) else texts:
                new = _compile(kind, text)
                for old in self._templates:
                    if old.meets(new):
                        raise TemplateError(
                            f"topic templates {old.kind}={old.text!r} and {kind}={text!r} fit one topic"
                        )
                self._templates.append(new)
        self._cached = functools.lru_cache(_CACHE_ENTRIES)(self._match)

    def match(self, topic: str) -> Route | None:
        """The route of a topic; None where no template fits it (a dead letter, `topic`)."""
        if len(topic) > _CACHED_TOPIC_MAX:
            return self._match(topic)
        return self._cached(topic)

    def _match(self, topic: str) -> Route | None:
        # A filter that starts with a wildcard does not reach $SYS and its like (MQTT 5, 4.7.2).
        if topic.startswith("$"):
            return None
        for template in self._templates:
            found = template.regex.fullmatch(topic)
            if found is None:
                continue
            levels = found.groupdict()
            if any(len(name) > NAME_MAX for name in levels.values()):
                return None
            if "mac" in levels:
                levels["mac"] = levels["mac"].lower()
            return Route(template.kind, **levels)
        return None

    @property
    def cache_entries(self) -> int:
        return self._cached.cache_info().currsize

    def tenant_of(self, pattern: str, topic_tenant: str) -> str | None:
        """The one tenant whose topics a filter takes in, None when they may be several's.

        `topic_tenant` has the topics whose template names none.
        """
        levels = pattern.split("/")
        if "#" in levels:
            return None
        open_ = "\x01"
        route = self._match("/".join(open_ if level == "+" else level for level in levels))
        if route is None or route.mac is not None:
            return None
        tenant = route.tenant or topic_tenant
        return None if open_ in tenant else tenant

    def explain(self, topic: str) -> str:
        """A sentence for the dead letter of a topic that `match` gave None for."""
        for template in self._templates:
            if template.regex.fullmatch(topic):
                return f"a level of this topic is longer than {NAME_MAX} characters"
        inbound = ", ".join(t.text for t in self._templates if t.kind not in OUTBOUND)
        return f"no topic template fits; devices publish on {inbound}"

    def build(self, kind: Kind, **levels: str) -> str:
        """The topic for a message of ours, such as a command.

        Raises ValueError when a level is missing, empty, or holds `/`, a wildcard or a NUL: a name like
        that cannot stand in a topic, and must never widen one.
        """
        for template in self._templates:
            if template.kind != kind:
                continue
            parts = []
            for level in template.levels:
                name = "" if level.field is None else levels.get(level.field, "")
                if level.field is not None and (not name or any(c in name for c in "/+#\x00")):
                    raise ValueError(f"{level.field} {name!r} cannot stand in topic {template.text!r}")
                parts.append(level.before + name + level.after)
            topic = "/".join(parts)
            if len(topic.encode()) > _TOPIC_BYTES_MAX:
                raise ValueError(f"the topic for {template.text!r} would be longer than MQTT allows")
            return topic
        raise ValueError(f"no topic template of kind {kind!r}")

    def templates(self) -> dict[str, list[str]]:
        """The templates of each kind, as text."""
        found: dict[str, list[str]] = {}
        for template in self._templates:
            found.setdefault(template.kind, []).append(template.text)
        return found

    def filters(self) -> list[str]:
        """MQTT topic filters that bring a subscriber everything devices publish, each once, in order."""
        inbound = [t for t in self._templates if t.kind not in OUTBOUND]
        return list(dict.fromkeys("/".join(level.filter for level in t.levels) for t in inbound))


def templates_from(text: str) -> dict[str, str | list[str]]:
    """The usual templates, with those in `text` in place of theirs: `kind=template`, separated by spaces.

    A kind that is named more than once has all of those; `kind=` alone has none. Raises TemplateError.
    """
    given: dict[str, list[str]] = {}
    for word in text.split():
        kind, equals, template = word.partition("=")
        if not equals or kind not in get_args(Kind):
            raise TemplateError(f"topic template {word!r}: write kind=template, kind one of {get_args(Kind)}")
        found = given.setdefault(kind, [])
        if template:
            found.append(template)
    return {**TEMPLATES, **given}


@functools.lru_cache(16)
def topic_table(text: str = "") -> TopicTable:
    """The table for a setting's text; the same text gives the same table."""
    return TopicTable(templates_from(text))


class Scheme:
    """The topics of an installation for people and tools: every topic that has a tenant is said to have it.

    `templates` is the text of the setting, "" for the usual ones; topics whose template names neither tenant
    nor MAC are `topic_tenant`'s. Raises TemplateError.
    """

    def __init__(self, templates: str = "", topic_tenant: str = "default") -> None:
        self.table = topic_table(templates)
        self._topic_tenant = topic_tenant

    def match(self, topic: str) -> Route | None:
        """The route of a topic, with its tenant; a MAC's is in the registry alone."""
        route = self.table.match(topic)
        if route is None or route.tenant is not None or route.mac is not None:
            return route
        return msgspec.structs.replace(route, tenant=self._topic_tenant)

    def build(self, kind: Kind, *, tenant: str, **levels: str) -> str:
        """The topic on which a device of `tenant` publishes.

        Raises ValueError when there is none, when a name cannot stand on it, and when it is another tenant's.
        """
        topic = self.table.build(kind, tenant=tenant, **levels)
        route = self.match(topic)
        if route is not None and route.tenant not in (tenant, None):
            raise ValueError(f"topic {topic!r} is tenant {route.tenant!r}'s (TOPIC_TENANT), not {tenant!r}'s")
        return topic
