"""Topic names and filters (section 4.7): what is valid, what matches, and an index of who wants what."""

from __future__ import annotations

from typing import Generic, TypeVar

MAX_LEVELS = 128  # deeper than any scheme in use; bounds the work one filter can cause

T = TypeVar("T")


def valid_name(topic: str) -> bool:
    """May `topic` be published on?"""
    return bool(topic) and "+" not in topic and "#" not in topic and "\0" not in topic


def valid_filter(pattern: str) -> bool:
    """May `pattern` be subscribed to? A `+` or `#` stands alone in its level, a `#` only at the end."""
    if not pattern or "\0" in pattern:
        return False
    levels = pattern.split("/")
    if len(levels) > MAX_LEVELS or "#" in levels[:-1]:
        return False
    return all(level in ("+", "#") or ("+" not in level and "#" not in level) for level in levels)


def shared_filter(pattern: str) -> str | None:
    """The filter inside `$share/{group}/{filter}`, "" when that is ill-formed, None when it is not shared."""
    if not pattern.startswith("$share/"):
        return None
    group, _, inner = pattern[7:].partition("/")
    return inner if group and "+" not in group and "#" not in group and valid_filter(inner) else ""


def matches(pattern: str, topic: str) -> bool:
    """Does the filter take in the topic? Wildcards do not reach topics that begin with `$` (4.7.2)."""
    if pattern[:1] in ("+", "#") and topic.startswith("$"):
        return False
    wanted = pattern.split("/")
    levels = topic.split("/")
    for number, level in enumerate(wanted):
        if level == "#":
            return True
        if number == len(levels) or level not in ("+", levels[number]):
            return False
    return len(wanted) == len(levels)


class _Node(Generic[T]):
    __slots__ = ("children", "values")

    def __init__(self) -> None:
        self.children: dict[str, _Node[T]] = {}
        self.values: dict[object, T] = {}


class FilterIndex(Generic[T]):
    """Values by (filter, key). Exact filters cost one look-up; those with wildcards are walked as a tree.

    Answers are remembered for as long as nobody subscribes or leaves, up to a bound.
    """

    MEMORY = 20_000

    def __init__(self) -> None:
        self._exact: dict[str, dict[object, T]] = {}
        self._root: _Node[T] = _Node()
        self._wild = 0
        self._memory: dict[str, tuple[T, ...]] = {}

    def __len__(self) -> int:
        return self._wild + len(self._exact)

    def add(self, pattern: str, key: object, value: T) -> None:
        """Sets the value of `key` for the filter."""
        if "+" not in pattern and "#" not in pattern:
            self._exact.setdefault(pattern, {})[key] = value
            self._memory.pop(pattern, None)
            return
        node = self._root
        for level in pattern.split("/"):
            node = node.children.setdefault(level, _Node())
        self._wild += key not in node.values
        node.values[key] = value
        self._memory.clear()

    def discard(self, pattern: str, key: object) -> None:
        """Removes it, and the empty branches it leaves."""
        if "+" not in pattern and "#" not in pattern:
            found = self._exact.get(pattern)
            if found is not None and found.pop(key, None) is not None and not found:
                del self._exact[pattern]
            self._memory.pop(pattern, None)
            return
        path: list[tuple[_Node[T], str]] = []
        node = self._root
        for level in pattern.split("/"):
            below = node.children.get(level)
            if below is None:
                return
            path.append((node, level))
            node = below
        if node.values.pop(key, None) is not None:
            self._wild -= 1
        for parent, level in reversed(path):
            child = parent.children[level]
            if child.values or child.children:
                break
            del parent.children[level]
        self._memory.clear()

    def match(self, topic: str) -> tuple[T, ...]:
        """The values of every filter that takes in the topic, one for each filter and key."""
        if not self._wild:
            exact = self._exact.get(topic)
            return tuple(exact.values()) if exact else ()
        found = self._memory.get(topic)
        if found is None:
            found = (*self._exact.get(topic, {}).values(), *self._walk(topic))
            if len(self._memory) >= self.MEMORY:
                self._memory.clear()
            self._memory[topic] = found
        return found

    def _walk(self, topic: str) -> list[T]:
        levels = topic.split("/")
        special = topic.startswith("$")
        found: list[T] = []
        nodes = [self._root]
        for number, level in enumerate(levels):
            following: list[_Node[T]] = []
            for node in nodes:
                children = node.children
                wild = not (special and number == 0)
                if wild and (rest := children.get("#")) is not None:
                    found += rest.values.values()
                if (exact := children.get(level)) is not None:
                    following.append(exact)
                if wild and (one := children.get("+")) is not None:
                    following.append(one)
            nodes = following
            if not nodes:
                return found
        for node in nodes:
            found += node.values.values()
            if (rest := node.children.get("#")) is not None:  # "a/#" takes in "a" too
                found += rest.values.values()
        return found
