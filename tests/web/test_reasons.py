"""Why a message was not stored or not delivered, in Portuguese: every sentence that our sources can say."""

from __future__ import annotations

import ast
import re
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import caudal
from caudal.telemetry.decode import decode
from caudal.telemetry.model import Decoded, Reason, Reject
from caudal.telemetry.topics import TopicTable
from caudal.web.console.reasons import portuguese
from caudal.web.console.words import WORDS

SOURCES = Path(caudal.__file__).parent
FILES = [
    *sorted(SOURCES.glob("telemetry/**/*.py")), *sorted(SOURCES.glob("messaging/**/*.py")),
    SOURCES / "core/eventlog/deadletters.py",
]  # fmt: skip
# What is called with a sentence, and the place of the sentence; those of parts follow a field's name.
CALLS = {
    "RefusedError": 1, "Reject": 1, "Dead": 1, "Poison": 1, "fault": 1, "ProviderError": 2, "Failed": 1,
    "Unknown": 0, "PutBack": 1, "PartError": 1, "TimestampError": 0, "_hold": 3, "_give_up": 2,
}  # fmt: skip
PARTS = {"PartError", "TimestampError"}
# Functions and variables that make a sentence for one of those.
MAKERS = {"explain", "absent_sentence", "_sentence"}
# What stands in braces, where it is not any text: as the source would fill it.
FILLED = {
    "error": "is outside the years 1 to 9999", "kind": "is a number, and must be a list",
    "what": "has no field of SenML",
    "field": "points", "where": "points[0]", "index": "3", "_describe(doc)": "an object with the keys \"a\"",
    "meaning": "The provider refused it.", "sentence": "The provider cannot be reached.",
    "error.sentence": "The provider cannot be reached.", "bad.sentence": "is missing",
    "pointer[1:]": "points",
    "status": "502", "limit": "100", "error.start": "4", "at": "4", "error.msg": "Extra data",
    "_wanted(kind, bound_format)": "any format that this topic is for (v1)",
    "row['ts'].isoformat()": "2025-10-07T15:30:00+00:00",
}  # fmt: skip
# Somebody else's words alone; to clients of the API, in English; a mixture that no source says.
NOT_OURS = {
    "", "x", "points is x", "The database does not answer. Try again, with the same Idempotency-Key.",
    "an has no field of SenML is an object, and this is x",
}  # fmt: skip
NUMBERS = re.compile(r"len\(|_MAX|_max|longest|most|LONGEST|CAPTION|LARGEST|VERSION|payload_bytes|index")


def text_of(node: ast.expr) -> Iterator[str]:
    """What an expression may say; nothing for one that is no literal."""
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.IfExp():
            yield from text_of(node.body)
            yield from text_of(node.orelse)
        case ast.JoinedStr():
            made = [""]
            for part in node.values:
                if isinstance(part, ast.Constant):
                    said = [str(part.value)]
                else:
                    assert isinstance(part, ast.FormattedValue)
                    name = ast.unparse(part.value)
                    said = [FILLED.get(name) or ("7" if NUMBERS.search(name) else "x")]
                made = [before + one for before in made for one in said]
            yield from made
        case ast.Subscript():
            yield from text_of(node.value)


def sentences(path: Path) -> Iterator[str]:
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            place = CALLS.get(name)
            if place is not None and len(node.args) > place:
                for text in text_of(node.args[place]):
                    yield f"points[0].v {text}" if name in PARTS else text
        elif isinstance(node, ast.FunctionDef) and node.name in MAKERS:
            for inner in ast.walk(node):
                if isinstance(inner, ast.Return) and inner.value is not None:
                    yield from text_of(inner.value)
                elif isinstance(inner, ast.Dict):
                    # What stands before a provider's own words.
                    yield from (f"{text} (131: x)" for one in inner.values for text in text_of(one))
        elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            if isinstance(target, ast.Name) and target.id == "sentence":
                yield from text_of(node.value)


def test_every_sentence_of_the_sources_is_there_in_portuguese() -> None:
    said = {text for path in FILES for text in sentences(path)} - NOT_OURS
    assert len(said) > 90, sorted(said)
    untold = sorted(text for text in said if portuguese(text) is None)
    assert untold == []
    told = [(portuguese(text) or "").replace(FILLED["error"], "") for text in said]
    left = [text for text in told if re.search(r"\b(the|and|must|which|is)\b", text)]
    assert left == []


def test_what_the_vectors_are_refused_for_is_told(shared_dir: Path) -> None:
    topics = TopicTable()
    told = 0
    for line in (shared_dir / "vectors" / "telemetry.jsonl").read_text().splitlines():
        vector = msgspec.json.decode(line)
        route = topics.match(vector["topic"])
        if route is None:
            assert portuguese(topics.explain(vector["topic"]))
            continue
        raw = vector["payload"].encode() if "payload" in vector else b64decode(vector["payload_b64"])
        found = decode(route, raw, now=1_800_000_000_000_000, max_skew_us=300_000_000)
        faults = (
            [found] if isinstance(found, Reject) else list(found.faults if isinstance(found, Decoded) else ())
        )
        for fault in faults:
            told += 1
            assert portuguese(fault.sentence), fault.sentence
    assert told >= 10


@pytest.mark.parametrize(
    ("sentence", "own"),
    [
        ('points[0].v (of "level", declared float) is an object, and must be a number',
         'points[0].v (de "level", declarado float) é um objeto; deve ser um número'),
        ("record 3: n is missing", "registro 3: n está ausente"),
        ('ts "soon" is not an ISO 8601 date and time, such as 2025-10-07T15:30:00Z',
         'ts "soon" não é data e hora ISO 8601, como 2025-10-07T15:30:00Z'),
        ("no JSON from byte 7 on: Expecting value", "não é JSON a partir do byte 7: esperava-se um valor"),
        ("an ack is an object, and this is a list", "um ack é um objeto, e isto é uma lista"),
        ("the array has 20000 items; 10000 are allowed", "a lista tem 20000 itens; o máximo é 10000"),
        ("Given up after 5 attempts. The provider cannot be reached.",
         "Desistimos após 5 tentativas. O provedor não pode ser alcançado."),
    ],
)  # fmt: skip
def test_a_sentence_reads_well(sentence: str, own: str) -> None:
    assert portuguese(sentence) == own


@given(st.text(max_size=300))
def test_whatever_a_device_sent_stays_as_it_came(sent: str) -> None:
    said = portuguese(f"points[0].v is {sent!r}, beyond what a double can hold")
    assert said is not None
    assert repr(sent) in said or "\n" in sent


def test_what_nobody_translated_is_left_alone() -> None:
    for sentence in ("", "x", "something else entirely", "a is b" * 2000, "{0}"):
        assert portuguese(sentence) is None


def test_every_reason_has_a_title() -> None:
    poison = {
        node.args[0].value
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", "") == "Poison"
        and isinstance(node.args[0], ast.Constant)
    }
    missing = [
        name for name in {*get_args(Reason), *poison, "handler_failed"} if f"reason.{name}" not in WORDS
    ]
    assert missing == []
