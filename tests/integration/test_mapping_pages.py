"""The pages of one mapping file: the file, its check against an account, previews, questions."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from config.settings import CONFIG_DIR
from sandbox.faults import Fault
from tests.bridge import PROVIDERS, Bridge, sample
from tests.integration.test_pages_mapping import PHONE, edit, press, see, text_of, writes

TOPICS = "answers.Topics"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A copy of the mapping files that the test may change."""
    return Path(shutil.copytree(CONFIG_DIR / "mappings", tmp_path / "mappings"))


@pytest.fixture
def mapped(files: Path, tmp_path: Path) -> Iterator[Bridge]:
    """The service with all CRMs connected, on this copy."""
    made = Bridge(f"sqlite:///{tmp_path}/bridge.sqlite3", mappings_dir=files).connect_all()
    yield made
    made.close()


def account_of(bridge: Bridge, provider: str) -> int:
    """Return the number of a CRM's connection."""
    return bridge.connection(provider).id


def book(bridge: Bridge, number: int, **answers: Any) -> None:
    """Store a booking with answers."""
    person = {"email": f"p{number}@globex.example", "fullname": f"P{number} Test", "notes": answers}
    payload = sample("booking_created", id=f"b-{number}", attendees=[person])
    assert bridge.post(payload).status_code == 202


MADE_UP = {
    "kind": "made_up", "slug": "demo", "type_name": "Product demo", "first_name": "Bea",
    "last_name": "Kern", "email": "bea@globex.example", "phone": "0151 23456780",
    "timezone": "Europe/Berlin", "language": "de", "host": "john@acme.example",
    "start": "2030-01-14T10:00", "minutes": "45",
}  # fmt: skip


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_made_up_booking_is_previewed(mapped: Bridge, provider: str) -> None:
    """A made-up booking shows, for each CRM, the records that a sync would create; nothing is written
    to the CRM or stored, and the form keeps what was entered.
    """
    before = writes(mapped)
    address = f"/mappings/{provider}/preview"
    assert "Bea" not in see(mapped, address)
    page = press(mapped, address, 200, **MADE_UP, connection=account_of(mapped, provider))
    words = text_of(page)
    assert "Product demo: Bea Kern" in words and "create" in words and "+4915123456780" in words
    assert "2030-01-14" in words and "10:00" in words
    assert 'value="bea@globex.example"' in page and "/bookings/default:made-up" not in page
    assert writes(mapped) == before
    see(mapped, "/bookings/default:made-up", 404)
    book(mapped, 1)
    assert "made-up" not in see(mapped, "/")


def test_without_an_account_the_values_are_shown(mapped: Bridge, files: Path) -> None:
    """The choice of no account shows what the file makes of the booking, and calls no CRM."""
    edit(
        files,
        "hubspot",
        PHONE,
        f"{PHONE}\n    topics: {TOPICS}\n    plan: 'answers[\"Which plan?\"]'",
    )
    book(mapped, 1, Topics=["Forms", "Polls"])
    calls = mapped.sandbox("hubspot").total_calls
    page = see(mapped, "/mappings/hubspot/preview")
    assert 'name="question" value="Topics"' in page and 'value="which plan?"' in page
    answers = {"question": ["Topics", "Which plan?"], "answer": ["Forms; Routing", "Pro; or so"]}
    words = text_of(
        press(mapped, "/mappings/hubspot/preview", 200, **MADE_UP, **answers, connection=0)
    )
    assert "topics Forms, Routing" in words and "plan Pro; or so" in words
    assert "Product demo: Bea Kern" in words and mapped.sandbox("hubspot").total_calls == calls
    assert "no stored booking answers" not in words
    words = text_of(press(mapped, "/mappings/hubspot/preview", 200, **MADE_UP, connection=0))
    assert "no stored booking answers 'Which plan?'; there are: 'Topics'" in words


def test_a_stored_booking_is_previewed_side_by_side(mapped: Bridge, files: Path) -> None:
    """A stored booking is chosen by its key: the page shows the value now and after a sync."""
    mapped.sync(sample("booking_created"))
    key = "default:6f0f7c1e-3a55-4c0e-9d58-0d2f7f0a11c1"
    page = see(mapped, f"/mappings/hubspot/preview?booking={key}")
    assert f'name="booking" value="{key}"' in page and f'<option value="{key}">' in page
    edit(files, "hubspot", 'hs_meeting_title: {template: "', 'hs_meeting_title: {template: "New ')
    chosen = {"kind": "stored", "booking": key, "connection": account_of(mapped, "hubspot")}
    words = text_of(press(mapped, "/mappings/hubspot/preview", 200, **chosen))
    assert "hs_meeting_title Discovery Call: Jane van der Berg New Discovery Call: Jane" in words
    for booking in ("", "nope", "x" * 500):
        words = text_of(
            press(mapped, "/mappings/hubspot/preview", 200, kind="stored", booking=booking)
        )
        assert "There is no such booking." in words or "Choose a booking" in words


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"minutes": "a few"}, "'a few' is no length in minutes, such as 30."),
        ({"minutes": "²"}, "'²' is no length in minutes, such as 30."),
        ({"minutes": "9000"}, "'9000' is no length in minutes"),
        ({"start": "soon"}, "'soon' is no time, such as 2027-01-14T10:00."),
        ({"email": "nobody", "phone": ""}, "The attendee needs an e-mail address or a phone number"),
        ({"email": "", "phone": "12"}, "The attendee needs an e-mail address or a phone number"),
    ],
)  # fmt: skip
def test_a_made_up_booking_with_a_mistake_is_told(
    mapped: Bridge, changes: dict[str, str], words: str
) -> None:
    """What cannot be read is a sentence above the form, which keeps the entries."""
    page = press(mapped, "/mappings/hubspot/preview", 200, **{**MADE_UP, **changes}, connection=0)
    assert words in text_of(page) and 'value="Kern"' in page


@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_file_in_use_is_checked_against_its_account(
    mapped: Bridge, provider: str, files: Path
) -> None:
    """The button reads the account and says that the file fits, or what it would refuse."""
    number = account_of(mapped, provider)
    page = text_of(press(mapped, f"/mappings/{provider}/check", 200, connection=number))
    version = mapped.services.mappings[provider].version
    assert f"Version {version} fits" in page
    text = (files / f"{provider}.yaml").read_text(encoding="utf-8")
    first = re.search(r"^contact:.*\n  fields:\n", text, re.M)
    assert first
    wrong = text[: first.end()] + "    no_such_thing: attendee.email\n" + text[first.end() :]
    (files / f"{provider}.yaml").write_text(wrong, encoding="utf-8")
    page = text_of(press(mapped, f"/mappings/{provider}/check", 200, connection=number))
    line = wrong[: wrong.index("no_such_thing")].count("\n") + 1
    assert f"{provider}.yaml:{line}: contact.fields.no_such_thing: " in page
    assert "would refuse this" in page
    press(mapped, f"/mappings/{provider}/check", 400)
    other = next(name for name in PROVIDERS if name != provider)
    press(mapped, f"/mappings/{provider}/check", 404, connection=account_of(mapped, other))


def test_an_account_that_is_away_is_told(mapped: Bridge) -> None:
    """A CRM that does not answer is a sentence on the page of the file."""
    mapped.sandbox("hubspot").faults.append(Fault(status=503, body="down", times=50))
    number = account_of(mapped, "hubspot")
    page = text_of(press(mapped, "/mappings/hubspot/check", 200, connection=number))
    assert "The account could not be read:" in page and " fits " not in page


def test_the_page_shows_file_problems_and_questions(mapped: Bridge, files: Path) -> None:
    """The page shows the text in use, that a changed file is refused, and which questions no field
    of this file uses.
    """
    good = edit(files, "hubspot", PHONE, f"{PHONE}\n    topics: {TOPICS} # <script>")
    book(mapped, 1, Topics=["Forms"], Budget="<b>500</b>")
    page = see(mapped, "/mappings/hubspot")
    assert "<script>\n" not in page and "# &lt;script&gt;" in page
    words = text_of(page)
    assert "answer 2 questions; no field of this file uses 1 of them" in words
    assert "Topics 1 discovery-call (1) HubSpot" in words
    assert "Budget 1 discovery-call (1) no field" in words
    edit(files, "hubspot", TOPICS, "answer.Topics")
    page = see(mapped, "/mappings/hubspot")
    assert "there is no path" in text_of(page) and TOPICS in good and TOPICS in page
    assert "there is no path" not in text_of(see(mapped, "/mappings/salesforce"))
    see(mapped, "/mappings/zoho", 404)
    assert 'href="/mappings/hubspot"' in see(mapped, "/mappings")


def test_strangers_see_none_of_it(mapped: Bridge) -> None:
    """Without a sign-in every page of a file leads to the sign-in page; forms need their token."""
    browser = mapped.app.test_client()
    for path in ("", "/preview", "/versions/file"):
        assert browser.get(f"/mappings/hubspot{path}").status_code == 303
    for path in ("/check", "/preview"):
        assert browser.post(f"/mappings/hubspot{path}").status_code == 303
        assert mapped.client.post(f"/mappings/hubspot{path}").status_code == 400
