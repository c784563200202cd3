"""What a person who may not see people sees of a webhook."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from app.domain.masked import MASK, SHOWN, masked
from tests.bridge import sample

LEAVES = st.none() | st.booleans() | st.integers() | st.text()
ANY = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


def test_a_webhook_keeps_its_shape_and_hides_its_people() -> None:
    """Times, ids and the kind stay; names, addresses, numbers and answers do not."""
    message = sample("booking_created")
    shown = json.dumps(masked(message))
    assert message["id"] in shown and "attendees" in shown
    for person in message["attendees"]:
        for name in ("email", "firstname", "lastname", "fullname", "phone"):
            assert person[name] not in shown


@given(ANY)
def test_nothing_but_listed_values_is_shown(value: Any) -> None:
    """Whatever a stranger sends, a text or number shows only under a listed key."""

    def look(seen: Any, key: str) -> None:
        if isinstance(seen, dict):
            for name, each in seen.items():
                look(each, name)
        elif isinstance(seen, list):
            for each in seen:
                look(each, "")
        elif seen is not None and not isinstance(seen, bool):
            assert seen == MASK or key in SHOWN

    look(masked(value), "")
