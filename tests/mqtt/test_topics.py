"""Topic matching: the standard's own examples, and the index against the plain definition."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caudal.mqtt.topics import FilterIndex, matches, shared_filter, valid_filter, valid_name

levels = st.sampled_from(["a", "b", "", "$x"])
topics = st.lists(levels, min_size=1, max_size=4).map("/".join).filter(bool)
patterns = (
    st.tuples(st.lists(levels | st.just("+"), max_size=3), st.sampled_from([[], ["#"], ["+"], ["a"]]))
    .map(lambda parts: "/".join(parts[0] + parts[1]))
    .filter(bool)
)


@pytest.mark.parametrize(
    ("pattern", "topic", "expected"),
    [
        ("sport/tennis/player1/#", "sport/tennis/player1", True),
        ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", True),
        ("sport/#", "sport", True),
        ("#", "a/b", True),
        ("sport/tennis/+", "sport/tennis/player1", True),
        ("sport/tennis/+", "sport/tennis/player1/ranking", False),
        ("sport/+", "sport", False),
        ("sport/+", "sport/", True),
        ("+/+", "/finance", True),
        ("/+", "/finance", True),
        ("+", "/finance", False),
        ("#", "$SYS/x", False),
        ("+/monitor/Clients", "$SYS/monitor/Clients", False),
        ("$SYS/#", "$SYS/x", True),
        ("$SYS/monitor/+", "$SYS/monitor/Clients", True),
        ("ACCOUNTS", "Accounts", False),
    ],
)
def test_examples_of_the_standard(pattern: str, topic: str, expected: bool) -> None:
    assert matches(pattern, topic) is expected


@pytest.mark.parametrize("pattern", ["", "a/#/b", "a#", "a+/b", "#/a", "a\0", "/".join("a" * 200)])
def test_filters_that_are_none(pattern: str) -> None:
    assert not valid_filter(pattern)


def test_names_have_no_wildcards() -> None:
    assert valid_name("a b/ç")
    assert not valid_name("a/+")
    assert not valid_name("")


def test_shared_filters() -> None:
    assert shared_filter("a/b") is None
    assert shared_filter("$share/g/a/+") == "a/+"
    assert shared_filter("$share/g") == ""
    assert shared_filter("$share//a") == ""


@given(st.lists(st.tuples(patterns, st.integers(0, 3)), max_size=12), st.lists(topics, max_size=6), st.data())
def test_the_index_agrees_with_the_definition(
    entries: list[tuple[str, int]], asked: list[str], data: st.DataObject
) -> None:
    index: FilterIndex[tuple[str, int]] = FilterIndex()
    kept = set(entries)
    for pattern, key in entries:
        index.add(pattern, key, (pattern, key))
    for topic in asked:  # fills the memory, which what follows must not leave stale
        index.match(topic)
    for pattern, key in data.draw(st.lists(st.sampled_from(entries))) if entries else []:
        index.discard(pattern, key)
        kept.discard((pattern, key))
    for topic in asked:
        assert sorted(index.match(topic)) == sorted(entry for entry in kept if matches(entry[0], topic))
    for pattern, key in kept:
        index.discard(pattern, key)
    assert len(index) == 0
