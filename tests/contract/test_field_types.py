"""Every field type in each CRM's documentation: written, read, changed by others, emptied.

The test sends a webhook and compares the CRM's value in its own form. `check` refuses every field
that no mapping file can write.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import time_machine

from app.crm.objects import ObjectName
from app.crm.schema import APPENDABLE, FieldKind
from app.mapping.check import check_against
from app.mapping.load import mapping_of
from app.services.rate_limits import SharedRateLimiter
from tests.contract.case_files import Webhook, case_for
from tests.contract.desk import NOBODY, Desk, FieldType, load_desks
from tests.contract.play import START, Play

TYPED = [crm for crm, desk in load_desks().items() if desk.field_types]
"""The CRMs whose desks list their field types."""


@pytest.fixture(autouse=True)
def nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turn off waiting for rate limits here; other tests cover them."""
    monkeypatch.setattr(SharedRateLimiter, "enter", lambda self, allowance: self.ensure_lease())


class Account:
    """One account with fields of every type, and its only deal."""

    def __init__(self, desk: Desk) -> None:
        self.desk, self.lock = desk, desk.sandbox.lock
        with self.lock:
            users = {name: desk.user_id(f"{name}@acme.example") for name in ("mary", "john")}
            self.ids = users | desk.make_others()

    def real(self, value: Any) -> Any:
        """Return a value with the ids of this account in place of @names."""
        if isinstance(value, str) and value[:1] == "@":
            return self.ids[value[1:]]
        return value

    def there(self, name: str) -> Any:
        """Return the value of a deal's field in the CRM."""
        with self.lock:
            holder, key = self.desk.holder(name)
            return holder.get(key)

    def choose(self, name: str, value: Any) -> None:
        """Write another value into the field, as a colleague does."""
        with self.lock:
            holder, key = self.desk.holder(name)
            holder[key] = self.real(value)


def play(
    crm: str, tmp_path: Path, clock: Any, fields: dict[str, Any], specs: tuple[FieldType, ...]
) -> Play:
    """A service whose mapping writes the fields, connected to an account that has these fields."""
    raw = {
        "title": "Types of fields", "wanted": "Every type of field is written as it has to be.",
        "mapping": {crm: {"deal": {"fields": fields}}},
        "steps": [{"webhook": "booking_created"}], "then": {"deals": 1},
    }  # fmt: skip
    made = Play({crm: case_for(raw, crm)}, tmp_path, clock)
    for spec in specs:
        made.desks[crm].add_typed(spec)
    return made


@pytest.mark.parametrize("write", ["always", "untouched"])
@pytest.mark.parametrize("crm", TYPED)
def test_every_type_is_written_changed_emptied_and_left_to_colleagues(
    crm: str, write: str, tmp_path: Path
) -> None:
    """Each value has the CRM's own form; with `untouched` a colleague's choice stays, and the
    service recognises its own value in any form that the CRM returns.
    """
    types = load_desks()[crm].field_types
    specs = [spec for spec in types if spec.first != NOBODY]
    fields = {
        spec.name: {"from": f"payload.wishes.{_key(spec)}", "as": spec.transforms, "write": write}
        if spec.transforms else {"from": f"payload.wishes.{_key(spec)}", "write": write}
        for spec in specs
    }  # fmt: skip
    with time_machine.travel(START, tick=True) as clock:
        made = play(crm, tmp_path, clock, fields, types)
        try:
            account = Account(made.desks[crm])
            made.bridge.connect_all()
            made.check_mappings()

            def send(values: dict[str, Any], event: str = "booking_created") -> None:
                clock.shift(60)
                wishes = {_key(s): _told(account.real(values.get(s.name)), s) for s in specs}
                made._send(Webhook(webhook=event, add={"wishes": wishes}))
                made.settle()
                states = {row.state for row in made.bridge.deliveries()}
                assert states == {"synced"}, [
                    (row.error_message, row.notes) for row in made.bridge.deliveries()
                ]

            send({spec.name: spec.first for spec in specs})
            _compare(account, {spec.name: spec.first_there for spec in specs})
            send({spec.name: spec.second for spec in specs}, "booking_rescheduled")
            _compare(account, {spec.name: spec.second_there for spec in specs})
            if write == "always":
                send({}, "booking_rescheduled")
                stay = {s.name: s.second_there for s in specs if s.emptied == "stays"}
                _compare(account, {spec.name: spec.emptied for spec in specs} | stay)
            else:
                for spec in specs:
                    account.choose(spec.name, spec.own)
                send({spec.name: spec.first for spec in specs}, "booking_rescheduled")
                _compare(account, {spec.name: account.real(spec.own) for spec in specs
                                   if spec.own != spec.second_there})  # fmt: skip
        finally:
            made.close()


def _key(spec: FieldType) -> str:
    return spec.name.lower()


def _told(value: Any, spec: FieldType) -> Any:
    return str(value) if value and spec.name in ("Org", "People") else value


def _compare(account: Account, wanted: dict[str, Any]) -> None:
    there = {name: account.there(name) for name in wanted}
    assert there == {name: account.real(value) for name, value in wanted.items()}


@pytest.mark.parametrize("crm", TYPED)
def test_check_says_what_no_file_can_write_and_where_nothing_can_be_added(
    crm: str, tmp_path: Path
) -> None:
    """The check allows `append` only for texts and lists, and refuses any value for a computed field."""
    types = load_desks()[crm].field_types
    with time_machine.travel(START, tick=True) as clock:
        made = play(crm, tmp_path, clock, {}, types)
        try:
            made.bridge.connect_all()
            account = made.bridge.drainer.warm(made.bridge.connection(crm).id)
        finally:
            made.close()
    lines = [f"    {s.name}: {{from: answers.X, write: append}}" for s in types]
    text = "\n".join(["version: 1", f"crm: {crm}", "deal:", "  fields:", *lines, ""])
    complaints = check_against(mapping_of(text, crm), account.adapter.shape, account.directory)
    for spec in types:
        said = [item.message for item in complaints if spec.name in item.location]
        field = account.directory.field(ObjectName.DEAL, spec.name)
        assert field is not None, spec.name
        if spec.first == NOBODY:
            assert not field.writable and any("read-only" in words for words in said), said
        else:
            assert field.kind is not FieldKind.OTHER
            refused = any("append cannot be used" in words for words in said)
            assert refused is (field.kind not in APPENDABLE), (spec.name, field.kind, said)
