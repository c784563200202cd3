"""The list of bookings: found by a part of a name in encrypted data, filtered, page by page."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from sqlalchemy import select, text

from app.store.engine import utcnow
from app.store.models import BookingRow
from app.store.search_models import BookingTerm
from tests.bridge import Bridge, sample
from tests.many import Costs, analyze, fill


@pytest.fixture
def bridge(database_url: str) -> Iterator[Bridge]:
    """The service with two CRMs, on both databases."""
    made = Bridge(database_url, ("hubspot", "pipedrive")).connect_all()
    yield made
    made.close()


def person(name: str, email: str) -> list[dict[str, str]]:
    return [{"fullname": name, "email": email}]


def listed(bridge: Bridge, **asked: str) -> list[str]:
    """Return the ids of the bookings on the page, newest first."""
    answer = signed_in(bridge).get("/bookings.json", query_string=asked)
    assert answer.status_code == 200, answer.text
    return [view["key"].partition(":")[2] for view in answer.json["bookings"]]


def signed_in(bridge: Bridge) -> Any:
    client = bridge.app.test_client()
    client.post("/sign-in", data={"key": bridge.key})
    return client


def three(bridge: Bridge) -> None:
    bridge.sync(
        sample("booking_created", id="b1", attendees=person("Anna Müller", "am@one.example"))
    )
    bridge.sync(
        sample("booking_created", id="b2", attendees=person("Annette Kurz", "ak@two.example"))
    )
    bridge.sync(
        sample("booking_created", id="b3", attendees=person("Bo Li", "bo@one.example"),
               hosts=[{"email": "mary@acme.example"}])
    )  # fmt: skip


def test_bookings_are_found_by_parts_of_words(bridge: Bridge) -> None:
    """Name, address, domain, id and meeting type; all words of a search must fit."""
    three(bridge)
    assert listed(bridge, q="ann") == ["b2", "b1"]
    assert listed(bridge, q="ann one") == ["b1"]
    assert listed(bridge, q="mueller") == ["b1"]
    assert listed(bridge, q="one.example") == ["b3", "b1"]
    assert listed(bridge, q="b3") == ["b3"]
    assert listed(bridge, q="discovery") == ["b3", "b2", "b1"]
    assert listed(bridge, q="discovery zebra") == []
    assert listed(bridge, q="ann", state="synced", crm="hubspot", period="today") == ["b2", "b1"]
    assert listed(bridge, host="mary@acme.example") == ["b3"]


def test_a_changed_booking_is_found_by_what_it_is_now(bridge: Bridge) -> None:
    """A new name replaces the old one; an outcome is a filter."""
    three(bridge)
    bridge.sync(
        sample("booking_rescheduled", id="b2", attendees=person("Annette Lang", "ak@two.example"))
    )
    assert listed(bridge, q="lang") == ["b2"] and listed(bridge, q="kurz") == []
    with time_machine.travel(utcnow() + timedelta(days=400)):
        client = signed_in(bridge)
        page = client.get("/bookings/default:b1").text
        token = page.partition('name="csrf" value="')[2].partition('"')[0]
        client.post("/bookings/default:b1/outcome", data={"csrf": token, "outcome": "held"})
        answer = client.get("/bookings.json?outcome=held").json
    assert [view["key"] for view in answer["bookings"]] == ["default:b1"]


def test_the_index_holds_no_word_and_forgets_with_the_booking(bridge: Bridge) -> None:
    """Erasing a person takes the terms along; what is left stays found."""
    three(bridge)
    with bridge.services.store.read() as session:
        rows = session.execute(text("SELECT * FROM booking_terms")).all()
    assert rows and all(isinstance(value, int) for row in rows for value in row)
    run = bridge.app.test_cli_runner().invoke
    assert run(args=["erase", "--email", "am@one.example", "--yes"]).exit_code == 0
    with bridge.services.store.read() as session:
        number = session.scalar(select(BookingRow.id).where(BookingRow.key == "default:b1"))
        assert not session.scalars(
            select(BookingTerm).where(BookingTerm.booking_id == number)
        ).all()
    bridge.services.search_index.run()
    assert listed(bridge, q="mueller") == [] and listed(bridge, q="b1") == ["b1"]


def test_bookings_of_an_older_release_are_indexed_by_themselves(bridge: Bridge) -> None:
    """After the upgrade a worker fills the index; nothing has to be replayed."""
    three(bridge)
    with bridge.services.store.write() as session:
        session.execute(text("DELETE FROM booking_terms"))
        session.execute(text("UPDATE bookings SET indexed = false"))
    assert listed(bridge, q="ann") == []
    assert bridge.services.search_index.run() == 3
    assert listed(bridge, q="ann") == ["b2", "b1"]


def test_pages_follow_one_another_without_a_gap(bridge: Bridge) -> None:
    """Each booking once, whatever is changed between two pages before the place."""
    for number in range(7):
        bridge.post(
            sample(
                "booking_created",
                id=f"n{number}",
                attendees=person("Pat Ng", f"p{number}@x.example"),
            )
        )
    seen: list[str] = []
    client, address = signed_in(bridge), "/bookings?most=3&q=pat"
    for _ in range(3):
        page = client.get(address).text
        rows = page.partition("<tbody>")[2].partition("</tbody>")[0]
        seen += [part.partition('"')[0] for part in rows.split("/bookings/default:")[1:]]
        address = (
            page.partition('rel="next"')[0]
            .rpartition('href="')[2]
            .partition('"')[0]
            .replace("&amp;", "&")
        )
    assert [each for each in dict.fromkeys(seen)] == [f"n{number}" for number in range(6, -1, -1)]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("state=zebra", "There is no state"),
        ("crm=zoho", "There is no crm"),
        ("period=never", "There is no period"),
        ("q=a", "two letters"),
        ("after=zzz", "Begin with the first page"),
        ("after=MjAyNi0wMS0wMSAx", "Begin with the first page"),
    ],
)
def test_a_wrong_filter_is_refused_in_words(bridge: Bridge, asked: str, words: str) -> None:
    """The page says what there is; the files answer 400."""
    client = signed_in(bridge)
    page = client.get(f"/bookings?{asked}")
    assert page.status_code == 400 and words in page.text
    assert client.get(f"/bookings.json?{asked}").status_code == 400
    assert client.get(f"/bookings.csv?{asked}").status_code == 400


def test_the_csv_is_safe_to_open(bridge: Bridge) -> None:
    """A name that a spreadsheet would run as a formula stays a text."""
    bridge.sync(
        sample("booking_created", attendees=person('=HYPERLINK("http://evil")', "e@x.example"))
    )
    answer = signed_in(bridge).get("/bookings.csv")
    assert answer.content_type.startswith("text/csv")
    assert "'=HYPERLINK" in answer.text and "hubspot,synced" in answer.text


@pytest.mark.parametrize("asked", ["/bookings", "/bookings?q=corp7", "/bookings?state=failed", "/"])
def test_a_page_costs_the_same_in_a_large_database(database_url: str, asked: str) -> None:
    """Among six thousand bookings, no page reads more than among a thousand, but what it shows."""
    bridge = Bridge(database_url).connect_all()
    client, store = signed_in(bridge), bridge.services.store

    def cost() -> int:
        analyze(store)
        client.get(asked)
        with Costs().measured(store.engine) as costs:
            assert client.get(asked).status_code == 200
        return costs.total

    fill(store, bridge.services.cipher, 1000, indexed=False)
    bridge.services.search_index.run()
    small = cost()
    fill(store, bridge.services.cipher, 5000, indexed=False)
    bridge.services.search_index.run()
    assert cost() < 2 * small + 50_000
    bridge.close()
