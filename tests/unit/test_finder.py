"""By what a record is told whose create was begun and never answered."""

from __future__ import annotations

import pytest

from app.domain.records import (
    BY_NUMBER,
    BY_TITLE,
    Fields,
    Lookup,
    LookupKey,
    MatchKey,
    ObjectName,
    Ref,
    content_hash,
)
from crm_adapters.finder import told_begun

MINE = "default:b1"
BEGUN = {"title": content_hash("Call: Jane")}


def told(values: Fields, content: Fields | None = None) -> str:
    """What a record with these values is found by."""
    question = Lookup(Ref(ObjectName.MEETING, MINE), None, content=content or {}, begun=BEGUN)
    return told_begun(
        question, LookupKey(MatchKey.BOOKING, MINE), values, "marker", "body", "title"
    )


@pytest.mark.parametrize(
    ("values", "by"),
    [
        ({"body": "When: today\n\nmeetergo booking b1"}, BY_NUMBER),
        ({"body": "<p>When: today<br>meetergo booking b1</p>\n"}, BY_NUMBER),
        ({"body": "meetergo booking b1", "title": "Renamed"}, BY_NUMBER),
        ({"body": "meetergo booking b2", "title": "Call: Jane"}, ""),
        ({"body": "<p>meetergo booking b2</p>", "title": "Call: Jane"}, ""),
        ({"body": "meetergo booking b11", "title": "Call: Jane"}, ""),
        ({"body": "a text of their own", "title": "Call: Jane"}, BY_TITLE),
        ({"body": None, "title": "Call: Jane"}, BY_TITLE),
        ({"title": "Call: Omar"}, ""),
        ({}, ""),
    ],
)
def test_a_number_decides_alone_and_a_title_only_without_one(values: Fields, by: str) -> None:
    """Another booking's number is another booking, however the record is named."""
    assert told(values) == by


def test_the_booking_id_field_decides_before_all() -> None:
    """Where there is a field for it, a text may say what it likes."""
    content: Fields = {"marker": MINE}
    assert told({"marker": MINE, "body": "meetergo booking b2"}, content) == BY_NUMBER
    assert told({"body": "meetergo booking b1", "title": "Call: Jane"}, content) == ""
