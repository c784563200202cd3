"""A person's bookings give the same values in any order of arrival as in their own order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.crm.objects import ObjectName, Ref
from app.crm.schema import CrmShape, Directory
from app.sync.desired import DesiredBooking, DesiredRecord, WriteRule
from app.sync.diff import diff_records
from app.sync.ledger_entry import LedgerEntry
from app.sync.ledger_rules import known_after
from app.sync.merge import merge

REF = Ref(ObjectName.CONTACT, "email:jane@globex.example")
EPOCH = datetime(2030, 1, 1, tzinfo=UTC)
SHAPE = CrmShape({}, None, "", False, {})
RULES = {
    "first": WriteRule.NEVER_BLANK,
    "last": WriteRule.NEVER_BLANK,
    "phone": WriteRule.NEVER_BLANK,
    "title": WriteRule.ALWAYS,
    "source": WriteRule.ON_CREATE,
}
VALUES = st.sampled_from([None, "x", "y", "z"])
NAMES = st.sampled_from([(None, None), ("Jane", "Berg"), ("Omar", "Haddad"), ("Mary", None)])
"""No name here is half of another: with three such names the intended one is unclear (see the other
test).
"""
REST = st.fixed_dictionaries(dict.fromkeys(("phone", "title"), VALUES))
STATES = st.lists(
    st.builds(lambda name, rest: state(*name, **rest), NAMES, REST), min_size=2, max_size=5
)


def state(first: str | None = None, last: str | None = None, **rest: Any) -> dict[str, Any]:
    """Return a booking's values for Jane."""
    return {**dict.fromkeys(RULES), "first": first, "last": last, **rest}


def booking(number: int, fields: dict[str, Any]) -> DesiredBooking:
    """Return a booking about Jane; a larger number changed later."""
    record = DesiredRecord(REF, fields, RULES, atomic_fields=frozenset({"first", "last"}))
    return DesiredBooking(str(number), EPOCH + timedelta(days=number), (record,))


def arrive(batches: list[list[DesiredBooking]]) -> dict[str, Any]:
    """Return the CRM's values after the batches; each batch runs twice, and the second run changes
    nothing.
    """
    stands: dict[str, Any] = {}
    ledger: dict[Ref, LedgerEntry] = {}
    for batch in batches:
        for again in (False, True):
            wanted = merge(batch)
            settled = diff_records(wanted, ledger, SHAPE, Directory())
            assert not (again and settled.plan.changes)
            for change in settled.plan.changes:
                stands.update(change.fields)
            ledger[REF] = known_after(wanted[REF], ledger.get(REF), "1", "")
    return {name: value for name, value in stands.items() if value is not None}


@given(STATES, st.data())
@example(  # An older booking fills a field empty in the newest; a third one in between is better.
    [state(phone="x"), state(phone="y"), state()], None
)
def test_the_order_of_arrival_does_not_matter(states: list[dict[str, Any]], data: Any) -> None:
    """In any order and any batches, each field gets the value of the newest booking that has one."""
    told = [booking(n, state) for n, state in enumerate(states)]
    in_order = arrive([[one] for one in told])
    mixed = data.draw(st.permutations(told)) if data else [told[2], told[0], told[1]]
    marks = data.draw(st.sets(st.integers(1, len(mixed) - 1))) if data else {1, 2}
    cuts = [0, *sorted(marks), len(mixed)]
    assert arrive([mixed[a:b] for a, b in pairwise(cuts)]) == in_order


def test_who_gives_no_name_lets_no_older_one_in() -> None:
    """If the newest booking has no name, the name of the booking before it stays, whoever arrives
    later.
    """
    jane, omar, nobody = (
        booking(n, state(*name))
        for n, name in enumerate([("Jane", "Berg"), ("Omar", "Haddad"), (None, None)])
    )
    assert arrive([[omar], [nobody], [jane]]) == {"first": "Omar", "last": "Haddad"}


def test_only_the_first_writes_what_is_for_a_create() -> None:
    """A field for new records is not changed by a later arrival, older or newer."""
    old, middle, new = (booking(n, state(source=value)) for n, value in enumerate("xyz"))
    assert arrive([[middle], [new], [old]]) == {"source": "y"}


@pytest.mark.parametrize("batches", [[[0], [1]], [[1], [0]], [[0, 1]], [[1, 0]]])
@pytest.mark.parametrize("half", [("Jane", None), (None, "Berg")])
def test_half_a_name_takes_nothing_from_the_whole_one(
    batches: list[list[int]], half: tuple[str | None, str | None]
) -> None:
    """A booking with half of the same name does not change the whole name, in any order."""
    told = [booking(0, state("Jane", "Berg")), booking(1, state(*half))]
    stands = arrive([[told[n] for n in batch] for batch in batches])
    assert stands == {"first": "Jane", "last": "Berg"}


@pytest.mark.parametrize("batches", [[[0], [1]], [[1], [0]], [[0, 1]]])
def test_another_name_is_written_whole(batches: list[list[int]]) -> None:
    """Another first name alone replaces the whole old name."""
    told = [booking(0, state("Jane", "Berg")), booking(1, state("Mary"))]
    assert arrive([[told[n] for n in batch] for batch in batches]) == {"first": "Mary"}
