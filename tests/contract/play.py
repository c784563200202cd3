"""Plays a case through the whole service; the test acts as meetergo, the clock and the colleagues."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

from sqlalchemy import select
from time_machine import Traveller

from app.domain.booking import MeetingOutcome
from app.domain.refusals import RefusalReason
from app.mapping.check import check_against
from app.store.cause_models import CauseRow
from app.store.delivery_marking import release_rechecks
from app.store.engine import Store, utcnow
from app.store.models import BookingRow, ConnectionRow, DeliveryRow
from sandbox.accounts import dress
from sandbox.meetergo import API_KEY, MeetergoSandbox
from sandbox.serve import Served
from tests.bridge import PROVIDERS, Bridge, owned, sample
from tests.contract.case_files import (
    DESKS,
    PLURALS,
    Case,
    Changes,
    Converts,
    Deletes,
    Expected,
    Knows,
    Looks,
    Makes,
    Merges,
    Replays,
    Says,
    Turns,
    Waits,
    Webhook,
    mapping_text,
)  # fmt: skip
from tests.contract.compare import fits, paired, shown
from tests.contract.desk import Desk
from workers import jobs

SAYS_NOTHING = ("Not her",)
"""Words of a refusal that tell no reason."""
START = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
"""A Monday morning, a week before the meeting of the sample webhooks."""
UNITS = {"minute": 60, "hour": 3600, "day": 86_400}


@lru_cache
def _empty_database() -> bytes:
    """Return a database with its tables; to create them for every case takes longer than the case."""
    with TemporaryDirectory() as folder:
        store = Store(f"sqlite:///{folder}/empty.sqlite3")
        store.migrate()
        store.close()
        return Path(folder, "empty.sqlite3").read_bytes()


class Play:
    """A running case, for one CRM or for all together."""

    def __init__(
        self, cases: Mapping[str, Case], folder: Path, clock: Traveller, odd: bool = False
    ) -> None:
        """`odd`: the accounts have realistic defects, so that some deliveries may not end."""
        self._odd = odd
        self._cases, self._clock = cases, clock
        case = next(iter(cases.values()))
        values: dict[str, Any] = {}
        self._meetergo = None
        if any(isinstance(step, Knows) for step in case.steps):
            self._meetergo = Served(MeetergoSandbox())
            values = {"meetergo_api_key": API_KEY, "meetergo_api_base": self._meetergo.url,
                      "meetergo_api_user_id": "u1"}  # fmt: skip
        mappings = folder / "mappings"
        mappings.mkdir()
        for crm in PROVIDERS:
            mine = cases.get(crm)
            text = mapping_text(mine, crm) if mine else f"version: 1\ncrm: {crm}\n"
            (mappings / f"{crm}.yaml").write_text(text, encoding="utf-8")
        database = folder / "case.sqlite3"
        database.write_bytes(_empty_database())
        self.bridge = Bridge(f"sqlite:///{database}", tuple(cases), mappings_dir=mappings, **values)
        self.desks: dict[str, Desk] = {}
        for crm, mine in cases.items():
            desk = self.desks[crm] = DESKS[crm](self.bridge.sandbox(crm))
            desk.lift_limits()
            desk.add_users(mine.users)
            desk.set_pipelines(mine.pipelines)
            if mine.assignment_rule:
                desk.assign_to(mine.assignment_rule)
            for name, fields in mine.custom_fields.items():
                for field, spec in fields.items():
                    desk.add_field(name, field, spec)
            turn_all(desk, mine.account)
        self._payloads: dict[str, dict[str, Any]] = {}

    def close(self) -> None:
        """Stop everything."""
        self.bridge.close()
        if self._meetergo:
            self._meetergo.stop()

    def run(self) -> None:
        """Play every step and check the end; then play all once more, which must change nothing."""
        self.bridge.connect_all(warm=not self._odd)
        if not self._odd:
            self.check_mappings()
        steps = zip(*(self._all_steps(case) for case in self._cases.values()), strict=True)
        for step in steps:
            self._clock.shift(timedelta(minutes=1))
            self._do(dict(zip(self._cases, step, strict=True)))
        self.settle()
        for crm, case in self._cases.items():
            self.look(crm, case.then, "then")
        if not self._odd or all(row.state == "synced" for row in self.bridge.deliveries()):
            self.again()

    def _all_steps(self, case: Case) -> Iterator[Any]:
        yield from (*case.before, *case.steps)

    def check_mappings(self) -> None:
        """Check that the mapping passes `mappings check --connection`."""
        for crm in self._cases:
            account = self.bridge.drainer.warm(self.bridge.connection(crm).id)
            found = check_against(account.mapping, account.adapter.shape, account.directory)
            assert not found, [f"{crm}: {item.key}: {item.message}" for item in found]
            self.bridge.sandbox(crm).calls.clear()

    def _do(self, steps: Mapping[str, Any]) -> None:
        crm, step = next(iter(steps.items()))
        if isinstance(step, Webhook):
            self._send(step)
        elif isinstance(step, Knows):
            assert self._meetergo
            base = self._payloads.get(step.booking) or self._payload(
                "booking_created", step.booking
            )
            told = merged(base, step.meetergo_knows)
            self._meetergo.sandbox.book(told)
        elif isinstance(step, Says):
            said = None if step.outcome == "none" else MeetingOutcome(step.outcome)
            self.bridge.services.intake.say_outcome(step.booking, said, "tester")
            self.settle()
        elif isinstance(step, Waits):
            self._wait(step)
        elif isinstance(step, Replays):
            self._replay()
        for crm, step in steps.items():
            if isinstance(step, Looks):
                self.look(crm, step.expect, "expect")
            elif isinstance(step, Turns):
                turn_all(self.desks[crm], step.account)
            elif not isinstance(step, (Webhook, Knows, Replays, Says, Waits)):
                with self.bridge.sandbox(crm).account.colleague():
                    self._at_the_desk(crm, step)

    def _wait(self, step: Waits) -> None:
        number, unit = step.wait.split()
        seconds = int(number) * UNITS[unit.rstrip("s")]
        if not self._odd:
            self._clock.shift(timedelta(seconds=seconds))
            with self.bridge.services.store.write() as session:
                release_rechecks(session, utcnow())
            self.settle()
            return
        # A broken account is retried again and again: the sweep runs all the time.
        pace = min(seconds, max(60, seconds // 8))
        for _ in range(seconds // pace):
            self._clock.shift(timedelta(seconds=pace))
            self._sweep()

    def _sweep(self) -> None:
        """Run the scheduler's jobs in this process."""
        with patch.object(jobs, "process_services", lambda: self.bridge.services):
            jobs.refresh_now()
            jobs.wake_due(self.bridge.drainer.drain)

    def _at_the_desk(self, crm: str, step: Any) -> None:
        desk = self.desks[crm]
        with desk.sandbox.lock:
            if isinstance(step, Makes):
                name, values = next(iter(step.colleague_makes.items()))
                record_id = desk.make(name, values)
                if step.called:
                    desk.aliases[step.called] = record_id
                return
            name, record_id = self._meant(crm, next(iter(step.model_dump().values())))
            if isinstance(step, Changes):
                desk.change(name, record_id, step.to)
            elif isinstance(step, Deletes):
                desk.delete(name, record_id)
            elif isinstance(step, Converts):
                self._now_called(desk, record_id, desk.convert(record_id))
            elif isinstance(step, Merges):
                _, winner = self._meant(crm, step.into)
                left = desk.merge(name, record_id, winner)
                self._now_called(desk, record_id, left)
                self._now_called(desk, winner, left)

    def _now_called(self, desk: Desk, old: str, new: str) -> None:
        for alias, record_id in desk.aliases.items():
            if record_id == old:
                desk.aliases[alias] = new

    def _meant(self, crm: str, one: Mapping[str, Any]) -> tuple[str, str]:
        """Return the only record that a step describes."""
        name, how = next(iter(one.items()))
        desk = self.desks[crm]
        if isinstance(how, str):
            return name, desk.id_of(name, how)
        self._check_words(crm, name, how)
        found = [row["id"] for row in desk.records(name) if self._fits_row(desk, row, how)]
        assert len(found) == 1, f"{len(found)} {name} records are {how}: {desk.records(name)}"
        return name, str(found[0])

    # Webhooks

    def _payload(self, kind: str, booking: str) -> dict[str, Any]:
        """Return the next state of a booking; earlier changes stay."""
        fresh = sample(kind)
        now = f"{utcnow():%Y-%m-%dT%H:%M:%SZ}"
        base = self._payloads.get(booking)
        if base is None:
            base = {**fresh, "id": booking, "createdAt": now}
        else:
            own = {"webhookType", "isCancelled", "cancel"}
            own |= {"start", "end"} if kind == "booking_rescheduled" else set()
            base = {key: value for key, value in base.items() if key != "cancel"}
            base |= {key: value for key, value in fresh.items() if key in own}
        if "updatedAt" in fresh:
            base["updatedAt"] = now
        if kind == "booking_rescheduled":
            base["rescheduledAt"] = now
        return base

    def _send(self, step: Webhook) -> None:
        payload = merged(merged(self._payload(step.webhook, step.booking), step.change), step.add)
        payload = _filled(payload, self.desks)
        self._payloads[step.booking] = payload
        answer = self.bridge.post(payload)
        assert answer.status_code == 202, answer.get_data(as_text=True)
        assert answer.get_json()["status"] == "accepted", answer.get_json()
        if not step.hold:
            self.settle()

    def settle(self) -> None:
        """Work until no delivery is due; the simulated clock moves past the CRM's pauses."""
        ended = {"synced", "failed", "parked", "skipped", "waiting"}
        if self._odd:
            # Deliveries that do not end here end in a `wait` step, or are the subject of the case.
            for _ in range(5):
                self.bridge.drain()
                if all(delivery.state in ended for delivery in self.bridge.deliveries()):
                    return
                self._clock.shift(timedelta(minutes=1))
            return
        for _ in range(20):
            self.bridge.drain()
            if all(delivery.state in ended for delivery in self.bridge.deliveries()):
                return
            self._clock.shift(timedelta(minutes=1))
        raise AssertionError([(d.state, d.error_message) for d in self.bridge.deliveries()])

    # Expectations

    def look(self, crm: str, expected: Expected, where: str) -> None:
        """Compare a file's expectations with the CRM; calls count from the last comparison."""
        sandbox, desk = self.bridge.sandbox(crm), self.desks[crm]
        made = (sandbox.total_calls, sandbox.writes(), dict(sandbox.calls))
        sandbox.calls.clear()
        self._look_at_deliveries(crm, expected, where)
        self._look_at_connection(crm, expected, where)
        if expected.check is not None:
            self._look_at_check(crm, expected.check, where)
        if expected.either:
            self._look_at_either(crm, expected.either, where)
        for plural, name in PLURALS.items():
            wanted = getattr(expected, plural)
            if wanted is not None:
                self._look_at_records(crm, desk, name, wanted, where)
        if expected.calls is not None:
            assert made[0] <= expected.calls, f"{where}: {made[0]} calls: {made[2]}"
        if expected.writes is not None:
            assert made[1] == expected.writes, f"{where}: {made[1]} writes: {made[2]}"

    def _look_at_check(self, crm: str, wanted: list[str], where: str) -> None:
        """Check that these words are in the complaints of `mappings check --connection`."""
        account = self.bridge.drainer.warm(self.bridge.connection(crm).id)
        found = check_against(account.mapping, account.adapter.shape, account.directory)
        texts = [f"{item.key}: {item.message}" for item in found]
        for words in wanted:
            assert any(words in text for text in texts), f"{where}: {words!r} is not in {texts}"

    def _look_at_either(self, crm: str, ends: list[Expected], where: str) -> None:
        """Check that one of several allowed ends is there."""
        wrong = []
        for end in ends:
            try:
                self.look(crm, end, where)
                return
            except AssertionError as error:
                wrong.append(str(error))
        raise AssertionError("\nnor: ".join(wrong))

    def _look_at_connection(self, crm: str, expected: Expected, where: str) -> None:
        row = self.bridge.connection(crm)
        said = [row.last_error or "", row.next_step or "", *map(str, row.account_notes)]
        if expected.connection is not None:
            seen = f"the connection is {row.status}: {said}"
            assert row.status in expected.connection.split("|"), f"{where}: {seen}"
            assert row.status == "active" or row.last_error, f"{where}: nobody says why: {seen}"
        for delivery in self._rows(crm).values() if expected.told else ():
            said += [delivery.error_message or "", delivery.error_advice or ""]
            said += [delivery.error_raw or ""]
            said += [str(note) for note in delivery.notes or ()]
            said += [f"{name} {words}" for name, words in (delivery.error_fields or {}).items()]
        for words in expected.told or ():
            assert any(words in text for text in said), f"{where}: {words!r} is not in {said}"

    def _look_at_records(self, crm: str, desk: Desk, name: str, wanted: Any, where: str) -> None:
        there = desk.records(name)
        if isinstance(wanted, int):
            assert len(there) == wanted, f"{where}: {len(there)} {name} records: {shown(there)}"
            return
        for entry in wanted:
            self._check_words(crm, name, entry)
        if not owned(crm, name):
            wanted = [{**entry, "owner": None} if "owner" in entry else entry for entry in wanted]
        left = paired(wanted, there, lambda row, how: self._fits_row(desk, row, how))
        if left is None and len(wanted) == len(there):
            return
        keys = sorted({key for entry in wanted for key in entry})
        called = {record_id: alias for alias, record_id in desk.aliases.items()}
        seen = [{key: row.get(key, called.get(row["id"])) for key in keys} for row in there]
        assert not left and len(wanted) == len(there), (
            f"{where}: {name}: not there: {left}\nthere are:\n" + "\n".join(map(repr, seen))
        )

    def _check_words(self, crm: str, name: str, entry: Mapping[str, Any]) -> None:
        """Refuse words that this CRM does not know: their value would always be empty."""
        desk = self.desks[crm]
        words = next((set(row) for row in desk.records(name)), desk.words(name))
        unknown = set(entry) - words - {"is"}
        assert not unknown, f"{crm} says nothing of a {name}'s {', '.join(sorted(unknown))}"

    def _fits_row(self, desk: Desk, row: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
        for key, value in wanted.items():
            if key == "is":
                if row["id"] != desk.aliases[value]:
                    return False
            elif not fits(row[key], value, desk.aliases):
                return False
        return True

    def _untold(self, row: DeliveryRow) -> bool:
        """Whether the CRM's refusal of a booking is only told in the CRM's own words."""
        if row.cause_key is None or any(words in str(row.error_raw) for words in SAYS_NOTHING):
            return row.state == "failed" and row.cause_key is None
        with self.bridge.services.store.read() as session:
            return session.get_one(CauseRow, row.cause_key).reason == RefusalReason.OTHER

    def _rows(self, crm: str) -> dict[str, DeliveryRow]:
        """Return the deliveries of a CRM by the booking names of the file."""
        with self.bridge.services.store.read() as session:
            query = (
                select(BookingRow.key, DeliveryRow)
                .join(DeliveryRow, DeliveryRow.booking_id == BookingRow.id)
                .join(ConnectionRow, ConnectionRow.id == DeliveryRow.connection_id)
                .where(ConnectionRow.provider == crm)
            )
            return {key.partition(":")[2].removeprefix("form-"): row
                    for key, row in session.execute(query)}  # fmt: skip

    def _look_at_deliveries(self, crm: str, expected: Expected, where: str) -> None:
        rows = self._rows(crm)
        wanted = expected.deliveries
        if isinstance(wanted, str):
            wanted = dict.fromkeys(rows, wanted)
        for booking, how in (wanted or {}).items():
            assert booking in rows, f"{where}: there is no delivery of {booking}"
            row = rows[booking]
            state, _, words = how.partition(":")
            seen = f"{booking} is {row.state}: {row.error_message}"
            assert row.state in state.strip().split("|"), f"{where}: {seen}"
            assert not self._untold(row), f"{where}: {seen}"
            told = f"{row.error_message} {row.error_raw}"
            assert words.strip() in told, f"{where}: {seen}"
        notes = [str(note) for row in rows.values() for note in row.notes or ()]
        if expected.notes == []:
            assert not notes, f"{where}: {notes}"
        for words in expected.notes or ():
            assert any(words in note for note in notes), f"{where}: {words!r} is not in {notes}"

    def _replay(self) -> None:
        for event in self.bridge.events():
            self.bridge.services.intake.replay(event.id)
        self.settle()

    def again(self) -> None:
        """Replay each webhook and each delivery; nothing may change."""
        for crm in self._cases:
            self.bridge.sandbox(crm).calls.clear()
        self._replay()
        for crm, case in self._cases.items():
            sandbox = self.bridge.sandbox(crm)
            assert sandbox.writes() == 0, f"again: {dict(sandbox.calls)}"
            # Notes describe the last run only, and the replay left no field alone.
            last = dict.fromkeys(("calls", "writes", "notes", "told"))
            later = case.then.model_copy(update=last)
            self.look(crm, later, "again")


def turn_all(desk: Desk, switches: list[Any]) -> None:
    """Set switches of an account: each is a name, or a name with its new value."""
    for switch in switches:
        name, value = (switch, ()) if isinstance(switch, str) else next(iter(switch.items()))
        if name == "person":
            desk.aliases["the person"] = desk.sandbox.org.person(**value)
        elif name == "dress":
            dress(desk.sandbox, value)
        else:
            _turn(desk, name, value)


def _turn(desk: Desk, name: str, value: Any) -> None:
    sandbox = desk.sandbox
    places = [
        sandbox.account,
        getattr(sandbox, "org", None),
        getattr(sandbox, "portal", None),
        sandbox,
    ]
    place = next((place for place in places if hasattr(place, name)), None)
    assert place is not None, f"no account has the switch {name}"
    switch = getattr(place, name)
    if not callable(switch):
        setattr(place, name, value)
    elif isinstance(value, dict):
        given = _with_ids({"object_" if k == "object" else k: v for k, v in value.items()}, desk)
        fields = given.pop("names", ())
        first = [given.pop(key) for key in ("record_id", "object_") if key in given and fields]
        switch(*first, *fields, **given)
    else:
        switch(*(value if isinstance(value, (list, tuple)) else [value]))


def _with_ids(node: Any, desk: Desk) -> Any:
    """Return a switch's value with the ids of the records that it names as `@name`."""
    if isinstance(node, dict):
        return {key: _with_ids(value, desk) for key, value in node.items()}
    if isinstance(node, list):
        return [_with_ids(item, desk) for item in node]
    return desk.aliases[node[1:]] if isinstance(node, str) and node[:1] == "@" else node


def merged(base: Any, change: Any) -> Any:
    """Return a payload with a change merged in: objects are merged, lists and values replaced."""
    if isinstance(base, dict) and isinstance(change, dict):
        return {**base, **{key: merged(base.get(key), value) for key, value in change.items()}}
    return copy.deepcopy(change)


def _filled(node: Any, desks: Mapping[str, Desk]) -> Any:
    """Return a text with the ids and addresses of records filled in, for `{id of old deal}` or
    `{address of deal old deal}`: links from the CRM carry ids, and people copy addresses from
    their browser.
    """
    if isinstance(node, dict):
        return {key: _filled(value, desks) for key, value in node.items()}
    if isinstance(node, list):
        return [_filled(item, desks) for item in node]
    if not isinstance(node, str):
        return node
    desk = next(iter(desks.values()))
    node = re.sub(
        r"\{address of (\w+) ([\w -]+)\}",
        lambda match: desk.address(match[1], desk.aliases[match[2]]),
        node,
    )
    return re.sub(r"\{id of ([\w -]+)\}", lambda match: desk.aliases[match[1]], node)
