"""Hostile mapping files: shipped files with parts exchanged, and texts with lines and signs exchanged."""

from __future__ import annotations

import functools
import json
import time
from typing import Any

from hypothesis import strategies as st
from ruamel.yaml import YAML

from app.domain.errors import CrmError, MappingError
from app.mapping.check import check_against
from app.mapping.load import MappingText
from app.mapping.plan import Planner
from config.settings import CONFIG_DIR
from tests.bridge import PROVIDERS
from tests.unit.test_check import WORDS
from tests.unit.test_plan_properties import AROUND, DIRECTORY, bookings, shape_of

SECONDS = 10.0
"""The longest that one file may take on a busy machine."""
MOST_TEXT = 2_000_000
"""The most characters of a plan."""
SNIPPETS = [
    "&a [*a]", "*a", "<<: *a", "!!python/object:os.system {}", "!env x", "? x\n: y", "- - - -", "{", "[",
    "}", "]", "'", '"', "|\n", ">\n  x", "\t", "%YAML 1.1\n", "---\n", "...\n", "#", "\x00", "\ufeff", "\u2028",
    "{{ attendee.email }}", "{{ x.__class__ }}", "{% for i in range(99999999) %}x{% endfor %}",
    "{{ 'x' * 99999999 }}", "{{ 10 ** 10 ** 9 }}", "{{ answers | list }}", "{% set x = [1] * 999999 %}",
    "{{ '%0999999999d' % 1 }}", "{{ 'x' | center(999999999) }}", "0x" + "f" * 9999, "9" * 5000, "1e999",
    ".inf", ".nan", "2026-13-45", "1_000", "yes", "null", "~", "=1+1", "(a+)+$",
]  # fmt: skip
NODES = st.one_of(
    st.sampled_from([None, True, 0, -1, 10**30, 1e308, "", [], {}, [[]], {"": ""}, {"from": []}]),
    st.sampled_from(SNIPPETS + WORDS.split()),
    st.dictionaries(st.sampled_from(WORDS.split()), st.sampled_from(WORDS.split()), max_size=3),
    st.lists(st.sampled_from(WORDS.split()), max_size=3),
)


@functools.cache
def shipped(provider: str) -> str:
    """Return the text of a shipped file."""
    return (CONFIG_DIR / "mappings" / f"{provider}.yaml").read_text(encoding="utf-8")


def places(node: Any) -> list[tuple[Any, Any]]:
    """Return every place in a document: its holder and its key."""
    found: list[tuple[Any, Any]] = []
    if isinstance(node, (dict, list)):
        for key, child in list(node.items() if isinstance(node, dict) else enumerate(node)):
            found += [(node, key), *places(child)]
    return found


@st.composite
def by_nodes(draw: st.DrawFn, text: str) -> str:
    """Draw a document with some of its parts exchanged, doubled or left out."""
    document = json.loads(json.dumps(YAML(typ="safe").load(text), default=str))
    for _ in range(draw(st.integers(1, 4))):
        every = places(document)
        holder, key = every[draw(st.integers(0, len(every) - 1))]
        act = draw(st.sampled_from(["exchange", "exchange", "leave out", "rename", "graft"]))
        if act == "leave out":
            del holder[key]
        elif act == "rename" and isinstance(holder, dict):
            holder[draw(st.sampled_from(WORDS.split() + SNIPPETS))] = holder.pop(key)
        elif act == "graft":
            other, there = every[draw(st.integers(0, len(every) - 1))]
            # A copy: a part that holds itself is no document.
            holder[key] = json.loads(json.dumps(other[there]))
        else:
            holder[key] = draw(NODES)
        if not places(document):
            break
    return json.dumps(document, indent=1)


@st.composite
def by_lines(draw: st.DrawFn, text: str) -> str:
    """Draw a text with lines doubled, moved, left out or broken by signs of YAML and templates."""
    lines = text.splitlines()
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, len(lines) - 1))
        act = draw(st.integers(0, 4))
        if act == 0:
            lines.insert(draw(st.integers(0, len(lines))), lines[at])
        elif act == 1 and len(lines) > 1:
            del lines[at]
        else:
            cut = draw(st.integers(0, len(lines[at])))
            rest = lines[at][cut:] if act == 2 else ""
            lines[at] = lines[at][:cut] + draw(st.sampled_from(SNIPPETS)) + rest
    return "\n".join(lines)


def mapping_file(data: st.DataObject) -> None:
    """Any file is a mapping or has mistakes with a line; any mapping gives a plan or a named error, soon."""
    provider = data.draw(st.sampled_from(PROVIDERS))
    bend = data.draw(st.sampled_from([by_nodes, by_lines]))
    text = data.draw(bend(shipped(provider)))
    began = time.monotonic()
    try:
        read = MappingText("f.yaml", text, provider)
    except MappingError as error:
        assert str(error).startswith("f.yaml:")
        return
    for mistake in read.mistakes:
        assert mistake.message and 1 <= mistake.line <= text.count("\n") + 1
    if read.mapping is not None:
        check_against(read.mapping, shape_of(provider), DIRECTORY)
        booking, around = data.draw(bookings()), data.draw(AROUND)
        try:
            plan = Planner(read.mapping, shape_of(provider), DIRECTORY).plan(booking, around)
        except CrmError as error:
            assert error.message
        else:
            assert sum(len(str(record.fields)) for record in plan.records) < MOST_TEXT
    assert time.monotonic() - began < SECONDS
