"""Pages and API about one booking and about mapping files: what they show, and what they never do."""

from __future__ import annotations

import html
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import FormatChecker, validate

from app.services.mapping_trial import MAX_TEXT, MOST_BOOKINGS
from app.services.sessions import Person
from app.store.models import ConnectionRow
from config.settings import CONFIG_DIR
from sandbox.faults import Fault
from tests.bridge import PROVIDERS, Bridge, sample, wait_for
from workers.drain import Drainer

KEY = "default:6f0f7c1e-3a55-4c0e-9d58-0d2f7f0a11c1"
PAST = {"start": "2026-11-20T09:00:00+01:00", "end": "2026-11-20T09:30:00+01:00"}
PAGES = (
    f"/bookings/{KEY}", f"/bookings/{KEY}/preview", "/mappings", "/mappings/hubspot/try"
)  # fmt: skip
FORMS = (f"/bookings/{KEY}/outcome", f"/bookings/{KEY}/sync", "/mappings/hubspot/try")
NOTHING = "bookings/nothing"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A copy of the mapping files that the test may change."""
    return Path(shutil.copytree(CONFIG_DIR / "mappings", tmp_path / "mappings"))


@pytest.fixture
def mapped(files: Path, tmp_path: Path) -> Iterator[Bridge]:
    """The service with all CRMs connected, on this copy."""
    url = f"sqlite:///{tmp_path}/bridge.sqlite3"
    made = Bridge(url, mappings_dir=files).connect_all()
    yield made
    made.close()


def text_of(page: str) -> str:
    """Return the text of a page as a person reads it."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


PHONE = "phone: {from: attendee.phone, write: untouched}"
"""The line of the file that the tests change."""


def see(bridge: Bridge, path: str, status: int = 200) -> str:
    answer = bridge.client.get(path)
    assert answer.status_code == status, answer.get_data(as_text=True)
    return str(answer.get_data(as_text=True))


def press(bridge: Bridge, path: str, status: int = 303, **fields: Any) -> str:
    with bridge.client.session_transaction() as session:
        csrf = Person(session["id"], "").csrf
    answer = bridge.client.post(path, data={"csrf": csrf, **fields})
    assert answer.status_code == status, answer.get_data(as_text=True)
    return str(answer.get_data(as_text=True))


def ask(bridge: Bridge, path: str, status: int = 200, **kwargs: Any) -> Any:
    headers = {"Authorization": f"Bearer {bridge.key}"}
    call = bridge.app.test_client().open
    answer = call(f"/api/v1/{path}", headers=headers, **kwargs)
    assert answer.status_code == status, answer.get_data(as_text=True)
    return answer.get_json()


def settle(bridge: Bridge) -> None:
    """Work until no delivery is due, whatever else the deliveries wait for."""

    def ended() -> bool:
        bridge.drain()
        return all(d.state not in ("due", "retrying") for d in bridge.deliveries())

    wait_for(ended)


def writes(bridge: Bridge) -> list[int]:
    return [bridge.sandbox(name).writes() for name in PROVIDERS]


def edit(folder: Path, provider: str, old: str, new: str) -> str:
    path = folder / f"{provider}.yaml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return path.read_text(encoding="utf-8")


def line(text: str, words: str) -> int:
    """Return the number of the first line (from 1) with these words."""
    return text[: text.index(words)].count("\n") + 1


# Access, and pages that do not exist


def test_strangers_are_sent_to_the_sign_in(bridge: Bridge) -> None:
    """Without a sign-in, every page and every form leads to the sign-in page."""
    bridge.sync(sample("booking_created"))
    stranger = bridge.app.test_client()
    for path in PAGES:
        answer = stranger.get(path)
        assert (answer.status_code, answer.headers["Location"]) == (303, "/sign-in"), path
    for path in FORMS:
        answer = stranger.post(path, data={"outcome": "held"})
        assert (answer.status_code, answer.headers["Location"]) == (303, "/sign-in"), path
    for method, path in (("GET", "preview"), ("POST", "outcome")):
        answer = stranger.open(f"/api/v1/bookings/{KEY}/{path}", method=method, json={})
        assert answer.status_code == 401
        assert set(answer.get_json()["error"]) == {"code", "message"}
    assert ask(bridge, f"bookings/{KEY}")["outcome"] is None


def test_a_form_without_its_token_does_nothing(bridge: Bridge) -> None:
    """A form post from another site is refused."""
    bridge.sync(sample("booking_created"))
    for path in FORMS:
        for token in ({}, {"csrf": "guessed"}):
            answer = bridge.client.post(path, data={"outcome": "held", **token})
            assert answer.status_code == 400, path
    assert ask(bridge, f"bookings/{KEY}")["outcome"] is None
    assert {d.state for d in bridge.deliveries()} == {"synced"}


@pytest.mark.parametrize("key", ["nothing", "default:x/y", "a%00b", "%F0%9F%92%A9", "x" * 5000])
def test_a_booking_that_is_not_there(database_url: str, key: str) -> None:
    """A key that no booking has gives a 404 in words, on either database."""
    bridge = Bridge(database_url, ())
    for path in (f"/bookings/{key}", f"/bookings/{key}/preview"):
        assert "no such booking" in see(bridge, path, 404)
    assert "no such booking" in press(bridge, f"/bookings/{key}/sync", 404)
    assert "no such booking" in press(bridge, f"/bookings/{key}/outcome", 404, outcome="held")
    for call in ({}, {"method": "POST", "json": {"outcome": "held"}}):
        path = f"bookings/{key}/{'outcome' if call else 'preview'}"
        assert ask(bridge, path, 404, **call)["error"]["code"] == "not_found"
    bridge.close()


def test_numbers_that_no_database_takes(database_url: str) -> None:
    """A page, an offset or a connection beyond any range is empty or not found, never a 500."""
    bridge = Bridge(database_url, ("hubspot",)).connect_all()
    bridge.sync(sample("booking_created"))
    assert "Bookings" in see(bridge, f"/?page={10**30}")
    assert ask(bridge, f"bookings?offset={10**30}&limit={10**30}") == {"bookings": []}
    for number in (0, -1, 99, 10**30):
        ask(bridge, f"bookings/{KEY}/preview?connection={number}", 404)
        press(bridge, "/mappings/hubspot/try", 404 if number else 200, connection=number)
    see(bridge, f"/connections/{10**30}", 404)
    ask(bridge, f"bookings/{KEY}/preview?connection=one", 400)
    bridge.close()


def test_providers_and_connections_that_do_not_belong(bridge: Bridge) -> None:
    """A mapping can be tried only for an existing CRM and an account of that CRM."""
    see(bridge, "/mappings/zoho/try", 404)
    press(bridge, "/mappings/zoho/try", 404, mapping="x")
    other = bridge.connection("pipedrive").id
    press(bridge, "/mappings/hubspot/try", 404, mapping="x", connection=other)


# A booking's page


def test_a_bookings_page_tells_all(bridge: Bridge) -> None:
    """The page shows time, people, answers, states, records, actions and mapping of a booking."""
    payload = sample("group_booking_created")
    bridge.sync(payload)
    page = text_of(see(bridge, f"/bookings/{payload['id']}"))
    for words in (
        "Tuesday 2026-12-01 09:00–09:30 (Europe/Berlin), 30 minutes",
        "Booked by Jane van der Berg, jane.van.der.berg@example.com, +4915123456789",
        "With Omar, omar@globex.example", "Team size 50-100", "Host John Smith (john@acme.example)",
        "https://zoom.us/j/99900011122",
    ):  # fmt: skip
        assert words in page, words
    called = {name: str(bridge.connection(name).account) for name in PROVIDERS}
    for name, account in called.items():
        longer = [other for other in called.values() if account in other and other != account]
        assert page.count(account) - sum(map(page.count, longer)) == 1
        assert bridge.services.mappings[name].version in page
    assert page.count("synced") == len(PROVIDERS)
    done = page.partition("What happened")[2]
    assert (
        done.count("created") == 6 * len(PROVIDERS) + done.count("_created") and "webhook 1" in done
    )
    links = re.findall(r'href="(https?://[^"]+)"', see(bridge, f"/bookings/{payload['id']}"))
    assert len(set(links)) == 6 * len(PROVIDERS)
    assert f"/bookings/default:{payload['id']}" in see(bridge, "/")
    assert f"/bookings/default:{payload['id']}" in see(bridge, "/events")


def test_strangers_cannot_put_markup_on_a_page(bridge: Bridge) -> None:
    """Names, answers and reasons are shown as text on the booking's page and in its preview."""
    evil = "<img src=x onerror=alert(1)>"
    person = {"email": "eve@gmail.com", "fullname": evil, "notes": {evil: evil}}
    bridge.sync(sample("booking_created", attendees=[person], location=evil))
    bridge.post(
        sample("booking_cancelled", attendees=[person], cancel={"reason": evil, "actionBy": evil})
    )
    for path in (f"/bookings/{KEY}", f"/bookings/{KEY}/preview", "/"):
        page = see(bridge, path)
        assert "onerror=alert(1)&gt;" in page, path
        assert "<img src=x" not in page, path


def test_every_record_of_a_booking_is_shown(mapped: Bridge, files: Path) -> None:
    """The page shows lead and case too, and with kept history every meeting."""
    edit(files, "salesforce", "contact:\n", "contact:\n  as: lead\n")
    edit(
        files, "salesforce", "\nmeeting_types",
        "  on_reschedule: keep_history\n"
        "case: {fields: {Subject: {value: Booked}}}\n"
        "lead: {fields: {LastName: attendee.display_name, Company: {value: Unknown},"
        " Email: attendee.email}}\n\nmeeting_types",
    )  # fmt: skip
    assert mapped.services.mappings.problem("salesforce") is None
    mapped.sync(sample("booking_created"))
    mapped.sync(sample("booking_rescheduled"))
    shown = ask(mapped, f"bookings/{KEY}")["deliveries"]
    links = next(d["links"] for d in shown if d["provider"] == "salesforce")
    assert sorted(link["object"] for link in links) == [
        "case", "company", "deal", "lead", "meeting", "meeting",
    ]  # fmt: skip
    org = mapped.sandbox("salesforce")
    assert {link["record_id"] for link in links} == {
        row["Id"]
        for table in ("Account", "Lead", "Opportunity", "Case", "Event")
        for row in org.tables[table].values()
    }
    page = text_of(see(mapped, f"/bookings/{KEY}"))
    assert all(f"{link['object']} {link['record_id']}" in page for link in links)
    assert "Moved from Tuesday 2026-12-01 09:00" in page


def test_only_records_that_belong_to_the_booking_are_shown(mapped: Bridge, files: Path) -> None:
    """A contact that belongs to another booking only is not shown."""
    group = sample("group_booking_created")
    mapped.sync(sample("booking_created", id="omar", attendees=[group["attendees"][1]]))
    edit(files, "hubspot", "contact:\n", "attendees: booker\ncontact:\n")
    edit(files, "pipedrive", "owner:\n", "skip: [{when: {booking.minutes: 30}}]\nowner:\n")
    mapped.post(group)
    settle(mapped)
    shown = ask(mapped, f"bookings/{group['id']}")["deliveries"]
    kinds = {d["provider"]: [link["object"] for link in d["links"]] for d in shown}
    assert kinds["hubspot"].count("contact") == 1
    assert kinds["pipedrive"] == []
    assert kinds["salesforce"].count("contact") == 2


def test_what_was_left_as_it_was_is_said(bridge: Bridge) -> None:
    """Dashboard, page and API report a field that the service left alone because a person changed it."""
    bridge.sync(sample("booking_created"))
    set_outcome(bridge, "COMPLETED")
    bridge.sync(sample("booking_cancelled"))
    words = "meeting.hs_meeting_outcome was changed by others and keeps its value."
    assert words in text_of(see(bridge, f"/bookings/{KEY}"))
    assert "1 note" in text_of(see(bridge, "/"))
    (delivery,) = [d for d in ask(bridge, f"bookings/{KEY}")["deliveries"] if d["notes"]]
    assert (delivery["provider"], delivery["notes"]) == ("hubspot", [words])
    assert delivery["mapping_version"] == bridge.services.mappings["hubspot"].version


def set_outcome(bridge: Bridge, outcome: str) -> None:
    """Set a meeting's outcome in HubSpot, as a person does."""
    for record in bridge.sandbox("hubspot").records["meetings"].values():
        record["properties"]["hs_meeting_outcome"] = outcome


def outcomes(bridge: Bridge) -> tuple[str, bool, str]:
    """Return the outcome of the meeting in HubSpot, Pipedrive and Salesforce."""
    (meeting,) = bridge.sandbox("hubspot").records["meetings"].values()
    (activity,) = bridge.sandbox("pipedrive").records["activities"].values()
    (event,) = bridge.sandbox("salesforce").tables["Event"].values()
    return meeting["properties"]["hs_meeting_outcome"], activity["done"], event["Subject"]


def test_an_outcome_goes_into_the_crms_and_back(bridge: Bridge) -> None:
    """Held, no-show and 'take it back' on the booking's page reach every CRM."""
    title = "Discovery Call: Jane van der Berg"
    bridge.sync(sample("booking_created", **PAST))
    path = f"/bookings/{KEY}"
    assert "Take it back" not in see(bridge, path)
    press(bridge, f"{path}/outcome", outcome="held")
    bridge.settle()
    assert outcomes(bridge) == ("COMPLETED", True, title)
    assert "A person set: held" in text_of(see(bridge, path))
    press(bridge, f"{path}/outcome", outcome="no_show")
    bridge.settle()
    assert outcomes(bridge) == ("NO_SHOW", False, f"No-show: {title}")
    assert "no-show" in text_of(see(bridge, "/"))
    press(bridge, f"{path}/outcome", outcome="none")
    bridge.settle()
    assert outcomes(bridge) == ("SCHEDULED", False, title)
    for bad in ("", "maybe"):
        press(bridge, f"{path}/outcome", 400, outcome=bad)


def test_an_outcome_that_a_person_set_stays(bridge: Bridge) -> None:
    """The service does not overwrite an outcome that a person set in HubSpot, on page, move or cancel."""
    bridge.sync(sample("booking_created", **PAST))
    set_outcome(bridge, "NO_SHOW")
    press(bridge, f"/bookings/{KEY}/outcome", outcome="held")
    bridge.settle()
    assert outcomes(bridge)[0] == "NO_SHOW"
    bridge.sync(sample("booking_rescheduled"), sample("booking_cancelled"))
    assert outcomes(bridge)[0] == "NO_SHOW"


def test_a_meeting_whose_create_was_never_answered_is_ours(crm: Bridge, provider: str) -> None:
    """A meeting whose create got no answer is recognised as ours and marked as cancelled."""

    class Died(BaseException):
        pass

    def die() -> None:
        raise Died

    crm.post(sample("booking_created"))
    crm.drainer._before_save = die
    with pytest.raises(Died):
        crm.drain()
    crm.drainer._before_save = lambda: None
    crm.sync(sample("booking_cancelled"))
    (meeting,) = crm.sandbox(provider).view().meetings
    assert meeting.cancelled


def test_a_meeting_to_come_and_a_form_have_no_outcome_to_say(mapped: Bridge, files: Path) -> None:
    """The outcome buttons appear once the meeting has begun; a form has none."""
    edit(files, "hubspot", "\nmeeting_types", "\nform_submission: {}\n\nmeeting_types")
    soon = sample("booking_created", start="2099-01-01T00:00:00Z", end="2099-01-01T00:30:00Z")
    mapped.post(soon)
    page = see(mapped, f"/bookings/{KEY}")
    assert "has not begun yet" in page and ">No-show<" not in page
    form = {"id": "f1", "email": "jane@globex.example", "createdAt": "2026-11-20T08:00:00Z"}
    mapped.post({"event": "form_submission", "data": form})
    page = see(mapped, "/bookings/form-f1")
    assert "How it went" not in page and "Sent in" in page
    press(mapped, "/bookings/form-f1/outcome", 400, outcome="held")
    answer = ask(
        mapped, "bookings/form-f1/outcome", 400, method="POST", json={"outcome": "held"}
    )  # fmt: skip
    assert "form" in answer["error"]["message"]


def test_a_failed_booking_is_synced_again(bridge: Bridge) -> None:
    """The page shows the CRM's refusal, and its button syncs the booking once the CRM accepts it."""
    rule = ("dealstage", "appointmentscheduled", "closedate")
    bridge.sandbox("hubspot").required_when["deals"] = rule
    bridge.sync(sample("booking_created"))
    page = text_of(see(bridge, f"/bookings/{KEY}"))
    assert "closedate is required" in page and "then sync again" in page
    assert re.search(r"contact \d+", page.partition("closedate is required")[2])
    bridge.sandbox("hubspot").required_when.clear()
    before = writes(bridge)
    press(bridge, f"/bookings/{KEY}/sync")
    bridge.settle()
    assert {d.state for d in bridge.deliveries()} == {"synced"}
    # Records that exist already are not written again.
    assert [now - then for now, then in zip(writes(bridge), before, strict=True)] == [
        2 if name == "hubspot" else 0 for name in PROVIDERS
    ]


# Previews


def test_a_preview_writes_nothing_and_is_true(bridge: Bridge) -> None:
    """A preview shows what the next sync does in every CRM, without one write."""
    bridge.post(sample("booking_created"))
    before = writes(bridge)
    page = text_of(see(bridge, f"/bookings/{KEY}/preview"))
    assert writes(bridge) == before
    assert page.count("create company") == page.count("create contact") == len(PROVIDERS)
    assert page.count("create deal") == page.count("create meeting") == len(PROVIDERS)
    assert "dealname Discovery Call: Jane van der Berg" in page
    bridge.settle()
    bridge.post(sample("booking_rescheduled"))
    before = writes(bridge)
    page = text_of(see(bridge, f"/bookings/{KEY}/preview"))
    assert writes(bridge) == before
    assert "hs_meeting_start_time 2026-12-01T08:00:00Z 2026-12-02T13:00:00Z" in page
    assert "due_date 2026-12-01 2026-12-02" in page
    assert "StartDateTime 2026-12-01T08:00:00Z 2026-12-02T13:00:00Z" in page
    assert page.count("Nothing to write.") == 3 * len(PROVIDERS)
    bridge.settle()
    page = text_of(see(bridge, f"/bookings/{KEY}/preview"))
    assert page.count("Nothing to write.") == 4 * len(PROVIDERS)
    assert "create" not in page and "change " not in page


def test_a_preview_by_api(bridge: Bridge) -> None:
    """The API's preview has every field's old and new value, for one connection or all; it writes
    nothing.
    """
    bridge.sync(sample("booking_created"))
    bridge.post(sample("booking_rescheduled"))
    before = writes(bridge)
    number = bridge.connection("pipedrive").id
    (account,) = ask(bridge, f"bookings/{KEY}/preview?connection={number}")["accounts"]
    assert (account["connection"], account["problem"]) == (number, None)
    (shown,) = account["bookings"]
    actions = {record["object"]: record["action"] for record in shown["records"]}
    expected = {"company": "leave", "contact": "leave", "deal": "leave", "meeting": "change"}
    assert actions == expected
    (meeting,) = [record for record in shown["records"] if record["object"] == "meeting"]
    days = {"old": "2026-12-01", "new": "2026-12-02", "now": "2026-12-01", "then": "2026-12-02"}
    moved = {"name": "due_date", **days}
    assert moved in meeting["fields"]
    every = ask(bridge, f"bookings/{KEY}/preview")["accounts"]
    assert [account["provider"] for account in every] == list(PROVIDERS)
    assert writes(bridge) == before


def test_a_crm_that_does_not_answer_is_a_sentence(bridge: Bridge) -> None:
    """If a CRM does not answer, the preview shows the others and says what to do."""
    bridge.post(sample("booking_created"))
    bridge.sandbox("hubspot").faults.append(Fault(status=503, body="down", times=50))
    bridge.sandbox("pipedrive").kill_grants()
    page = text_of(see(bridge, f"/bookings/{KEY}/preview"))
    assert page.count("The preview is not available:") == 2
    assert "tries again by itself" in page
    assert "Salesforce" in page and page.count("create deal") == len(PROVIDERS) - 2
    bridge.drain()
    assert "The connection is expired." in text_of(see(bridge, f"/bookings/{KEY}/preview"))
    accounts = ask(bridge, f"bookings/{KEY}/preview")["accounts"]
    assert [account["provider"] for account in accounts] == list(PROVIDERS)
    silent = [account["provider"] for account in accounts if account["problem"]]
    assert silent == ["hubspot", "pipedrive"]
    booked = [len(account["bookings"]) for account in accounts]
    assert booked == [0 if name in silent else 1 for name in PROVIDERS]


def test_a_preview_says_what_would_fail_and_what_is_skipped(mapped: Bridge, files: Path) -> None:
    """A preview says in words which bookings the mapping skips or cannot plan."""
    edit(files, "hubspot", "created: first", "created: Nowhere")
    edit(files, "pipedrive", "owner:\n", "skip: [{when: {}, because: not today}]\nowner:\n")
    mapped.post(sample("booking_created"))
    page = text_of(see(mapped, f"/bookings/{KEY}/preview"))
    assert "problem deal there is no stage 'Nowhere' in Sales Pipeline" in page
    assert "create contact" in page and "create meeting" in page
    assert "Skipped: not today" in page


# Mapping files


def test_a_broken_file_is_told_loudly(mapped: Bridge, files: Path) -> None:
    """Dashboard and page show line and mistake of a broken file, and the old file's use, until the
    repair.
    """
    version = mapped.services.mappings["hubspot"].version
    assert 'role="alert"' not in see(mapped, "/")
    good = (files / "hubspot.yaml").read_text(encoding="utf-8")
    edit(files, "hubspot", PHONE, "phone: attendee.fone")
    for path in ("/", "/mappings"):
        page = see(mapped, path)
        assert 'role="alert"' in page
        assert f"hubspot.yaml:{line(good, 'phone:')}: contact.fields.phone" in text_of(page)
        assert "The previous file stays in use" in text_of(page)
    assert version in see(mapped, "/mappings")
    (files / "hubspot.yaml").write_text(good, encoding="utf-8")
    assert 'role="alert"' not in see(mapped, "/")


def test_a_file_that_an_account_speaks_against_is_told(mapped: Bridge, files: Path) -> None:
    """A valid file with a field that the CRM lacks is refused for that account, on every page."""
    mapped.sync(sample("booking_created"))
    edit(files, "hubspot", PHONE, "fax: attendee.phone")
    mapped.sync(sample("booking_rescheduled"))
    number = mapped.connection("hubspot").id
    for path in ("/", "/mappings", f"/connections/{number}"):
        assert "contact has no field 'fax'" in text_of(see(mapped, path)), path
    (told,) = [
        row["mapping_problem"] for row in ask(mapped, "connections")["connections"]
        if row["mapping_problem"]
    ]  # fmt: skip
    assert "fax" in told and "stays in use" in told
    # A worker that starts now uses the last file that fitted.
    mapped.drainer = Drainer(mapped.services)
    mapped.sync(sample("booking_created", id="after the restart"))
    assert "stays in use" in text_of(see(mapped, f"/connections/{number}"))
    # If no file ever fitted, the newest one is used, and the page says so.
    with mapped.services.store.write() as session:
        session.get_one(ConnectionRow, number).mapping_text = None
    mapped.drainer = Drainer(mapped.services)
    mapped.sync(sample("booking_created", id="after another restart"))
    for path in ("/", f"/connections/{number}"):
        page = text_of(see(mapped, path))
        assert "used all the same" in page and "stays in use" not in page, path
    edit(files, "hubspot", "fax: attendee.phone", f"{PHONE}  # as it was")
    mapped.sync(sample("booking_cancelled"))
    assert "does not fit" not in text_of(see(mapped, "/"))


def test_the_page_names_version_and_what_is_behind(mapped: Bridge, files: Path) -> None:
    """After a change the page says how many bookings an older version planned, and how to catch up."""
    mapped.sync(sample("booking_created"))
    page = text_of(see(mapped, "/mappings"))
    for name in PROVIDERS:
        assert str(files / f"{name}.yaml") in page
        assert mapped.services.mappings[name].version in page
    assert "another version" not in page
    edit(files, "pipedrive", "title: {", "title:   {")
    page = text_of(see(mapped, "/mappings"))
    number = mapped.connection("pipedrive").id
    assert "1 bookings were planned by another version" in page
    assert f"mappings check --connection {number} --resync" in page


def test_a_mapping_is_tried_before_it_counts(mapped: Bridge, files: Path) -> None:
    """The form shows the file in use; a trial of a changed text shows old and new values and saves
    nothing.
    """
    mapped.sync(sample("booking_created"))
    text = (files / "hubspot.yaml").read_text(encoding="utf-8")
    asked = html.unescape(see(mapped, "/mappings/hubspot/try"))
    assert text in asked
    before, version = writes(mapped), mapped.services.mappings["hubspot"].version
    changed = text.replace(PHONE, "jobtitle: {value: Boss}")
    number = mapped.connection("hubspot").id
    page = press(
        mapped, "/mappings/hubspot/try", 200, mapping=changed.replace("\n", "\r\n"),
        connection=number,
    )  # fmt: skip
    assert "jobtitle empty Boss" in text_of(page)
    assert changed in html.unescape(page)
    assert writes(mapped) == before
    assert (files / "hubspot.yaml").read_text(encoding="utf-8") == text
    assert mapped.services.mappings["hubspot"].version == version
    assert ask(mapped, f"bookings/{KEY}")["deliveries"][0]["mapping_version"] == version


def test_a_text_with_mistakes_shows_them_all(mapped: Bridge, files: Path) -> None:
    """A trial lists the file's own mistakes and those that only the account shows, with their lines."""
    text = (files / "hubspot.yaml").read_text(encoding="utf-8")
    wrong = text.replace("email: attendee.email", "email: attendee.emial")
    wrong = wrong.replace(PHONE, "fax: attendee.phone")
    path, number = "/mappings/hubspot/try", mapped.connection("hubspot").id
    page = text_of(press(mapped, path, 200, mapping=wrong, connection=number))
    assert "2 mistakes" in page
    email = f"hubspot.yaml:{line(text, 'email:')}: contact.fields.email"
    assert email in page
    assert f"hubspot.yaml:{line(text, 'phone:')}: contact.fields.fax" in page
    page = text_of(press(mapped, path, 200, mapping=wrong))
    assert f"1 mistake {email}" in page
    assert "has no mistake" in text_of(press(mapped, path, 200, mapping=text))


BOMB = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
)


def test_an_object_that_the_crm_has_not_fails_in_words(tmp_path: Path, files: Path) -> None:
    """A mapping that makes leads in HubSpot fails each booking with a sentence."""
    edit(
        files,
        "hubspot",
        "contact:\n",
        "lead: {fields: {email: attendee.email}}\ncontact:\n  as: lead\n",
    )
    bridge = Bridge(f"sqlite:///{tmp_path}/b.sqlite3", ("hubspot",), mappings_dir=files)
    bridge.connect_all()
    bridge.sync(sample("booking_created"))
    assert bridge.delivery("hubspot").state == "failed"
    assert "hubspot has no lead here" in text_of(see(bridge, f"/bookings/{KEY}"))
    assert "problem lead hubspot has no lead" in text_of(see(bridge, f"/bookings/{KEY}/preview"))
    bridge.close()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the file is empty"),
        ("a: [", "hubspot.yaml:"),
        ("a: \x00", "hubspot.yaml:"),
        (BOMB, "aliases make it larger"),
        ("contact: &c {fields: *c}", "hubspot.yaml:"),
        ("x" * (MAX_TEXT + 1), "longer than"),
        ("version: 1\ncrm: salesforce\n", "this one is for salesforce"),
    ],
)
def test_any_text_ends_in_words(mapped: Bridge, text: str, words: str) -> None:
    """No text breaks the page: a text that is no mapping file is reported as such."""
    number = mapped.connection("hubspot").id
    page = press(mapped, "/mappings/hubspot/try", 200, mapping=text, connection=number)
    assert words in text_of(page).partition("Result")[2]


def test_more_than_a_form_may_hold_is_refused(mapped: Bridge) -> None:
    """A form larger than the allowed body gives a page with a sentence, and starts no work."""
    page = press(mapped, "/mappings/hubspot/try", 413, mapping="x" * 300_000)
    assert "That did not work" in page


def test_a_trial_looks_at_the_newest_bookings_only(mapped: Bridge, files: Path) -> None:
    """A trial shows only a limited number of the newest bookings, and says so."""
    for number in range(MOST_BOOKINGS + 3):
        person = {"email": f"p{number}@gmail.com", "fullname": f"Person {number:02d}."}
        mapped.post(sample("booking_created", id=f"b{number}", attendees=[person]))
    text = (files / "hubspot.yaml").read_text(encoding="utf-8")
    number = mapped.connection("hubspot").id
    page = press(mapped, "/mappings/hubspot/try", 200, mapping=text, connection=number)
    assert page.count("<h3>") == MOST_BOOKINGS
    assert "Person 22." in page and "Person 02." not in page
    assert f"the {MOST_BOOKINGS} bookings that changed last" in text_of(page)


def test_a_trial_against_an_account_that_is_away(mapped: Bridge, files: Path) -> None:
    """If the account does not answer, the text is still checked, and the page reports the account."""
    text = (files / "hubspot.yaml").read_text(encoding="utf-8")
    mapped.sandbox("hubspot").faults.append(Fault(status=503, body="down", times=50))
    number = mapped.connection("hubspot").id
    page = text_of(press(mapped, "/mappings/hubspot/try", 200, mapping=text, connection=number))
    assert "has no mistake." in page and "The preview is not available:" in page


# The API's description


def test_an_outcome_by_api(bridge: Bridge) -> None:
    """The API accepts held, no_show and null; anything else is a 400 in the standard error format."""
    bridge.sync(sample("booking_created", **PAST))
    path = f"bookings/{KEY}/outcome"
    for said in ("held", "no_show", None):
        answer = ask(bridge, path, method="POST", json={"outcome": said})
        assert answer == {"key": KEY, "outcome": said}
        assert ask(bridge, f"bookings/{KEY}")["outcome"] == said
    ask(bridge, path, method="POST", json={"outcome": "held"})
    bridge.settle()
    assert outcomes(bridge)[0] == "COMPLETED"
    for bad in ({}, {"outcome": "maybe"}, {"outcome": ""}, {"outcome": ["held"]}, [], "held"):
        answer = ask(bridge, path, 400, method="POST", json=bad)
        assert set(answer["error"]) == {"code", "message"}, bad
    assert ask(bridge, path, 415, method="POST", data="outcome=held")["error"]["code"]
    assert ask(bridge, f"bookings/{KEY}")["outcome"] == "held"


def fits(answer: Any, described: dict[str, Any], path: str, status: str = "200") -> None:
    """Check that an answer has exactly the keys of its description."""
    (call,) = described["paths"][path].values()
    schema = call["responses"][status]["content"]["application/json"]["schema"]
    closed = json.loads(json.dumps(described["components"]))
    for name, part in closed["schemas"].items():
        if "properties" in part:
            part["additionalProperties"] = False
            # A request may leave out what has a default; an answer leaves out nothing.
            if not name.endswith("Request"):
                assert set(part["required"]) == set(part["properties"])
    validate(answer, {**schema, "components": closed}, format_checker=FormatChecker())


def test_the_description_is_what_comes_out(bridge: Bridge) -> None:
    """Bookings, previews, outcomes and errors have exactly the keys of openapi.json."""
    described = ask(bridge, "openapi.json")
    bridge.sync(sample("booking_created", **PAST))
    set_outcome(bridge, "COMPLETED")
    bridge.sync(sample("booking_cancelled"))
    bridge.post(sample("booking_rescheduled", updatedAt="2026-11-27T00:00:00Z"))
    one = "/api/v1/bookings/{key}"
    for name in ("bookings", "sources", "connections"):
        answer = ask(bridge, name)
        assert answer[name], name
        fits(answer, described, f"/api/v1/{name}")
    fits(ask(bridge, f"bookings/{KEY}"), described, one)
    fits(ask(bridge, f"bookings/{KEY}/preview"), described, f"{one}/preview")
    call: dict[str, Any] = {"method": "POST", "json": {"outcome": "held"}}
    fits(ask(bridge, f"bookings/{KEY}/outcome", **call), described, f"{one}/outcome")
    fits(ask(bridge, NOTHING, 404), described, one, "404")
    rules = {
        re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
        for rule in bridge.app.url_map.iter_rules()
        if rule.endpoint.startswith("api.") and not rule.rule.endswith("openapi.json")
    }
    assert set(described["paths"]) == rules
