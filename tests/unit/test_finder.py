"""The finder recognises a record whose create was begun and never answered."""

from __future__ import annotations

import pytest

from app.crm.lookup import FoundBy, Lookup, LookupKey, MatchKey
from app.crm.objects import Fields, ObjectName, Ref, content_hash
from crm_adapters.finder import recognise_lost_create

MINE = "default:b1"
BEGUN = {"title": (content_hash("Call: Jane"),)}


def told(values: Fields, content: Fields | None = None) -> FoundBy | None:
    """Return the way by which a record with these values is recognised."""
    question = Lookup(Ref(ObjectName.MEETING, MINE), None, content=content or {}, lost_create=BEGUN)
    return recognise_lost_create(
        question, LookupKey(MatchKey.BOOKING, MINE), values, "marker", "body", "title"
    )


@pytest.mark.parametrize(
    ("values", "by"),
    [
        ({"body": "When: today\n\nmeetergo booking b1"}, FoundBy.BOOKING_NUMBER),
        ({"body": "<p>When: today<br>meetergo booking b1</p>\n"}, FoundBy.BOOKING_NUMBER),
        ({"body": "meetergo booking b1", "title": "Renamed"}, FoundBy.BOOKING_NUMBER),
        ({"body": "meetergo booking b2", "title": "Call: Jane"}, None),
        ({"body": "<p>meetergo booking b2</p>", "title": "Call: Jane"}, None),
        ({"body": "meetergo booking b11", "title": "Call: Jane"}, None),
        ({"body": "a text of their own", "title": "Call: Jane"}, FoundBy.TITLE),
        ({"body": None, "title": "Call: Jane"}, FoundBy.TITLE),
        ({"title": "Call: Omar"}, None),
        ({}, None),
    ],
)
def test_a_number_decides_alone_and_a_title_only_without_one(
    values: Fields, by: FoundBy | None
) -> None:
    """A booking number decides alone; the title decides only for a record without a number."""
    assert told(values) == by


def test_the_booking_id_field_decides_before_all() -> None:
    """If there is a booking-id field, it decides, whatever the text contains."""
    content: Fields = {"marker": MINE}
    assert told({"marker": MINE, "body": "meetergo booking b2"}, content) == FoundBy.BOOKING_NUMBER
    assert told({"body": "meetergo booking b1", "title": "Call: Jane"}, content) is None
