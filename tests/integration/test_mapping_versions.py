"""The texts of mapping files that were in force: kept, bounded, compared on pages and commands."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from sqlalchemy import text

from app.mapping.load import mapping_of
from app.mapping.text_diff import DiffLine, differences
from app.services import mapping_versions
from config.settings import CONFIG_DIR
from tests.bridge import Bridge, sample
from tests.integration.test_pages_mapping import edit, see, text_of

PHONE = "phone: {from: attendee.phone, write: untouched}"
LATER = "phone: {from: attendee.phone, write: if_empty}"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A copy of the mapping files that the test may change."""
    return Path(shutil.copytree(CONFIG_DIR / "mappings", tmp_path / "mappings"))


@pytest.fixture
def hub(files: Path, database_url: str) -> Iterator[Bridge]:
    """HubSpot, with mapping files of its own."""
    made = Bridge(database_url, ("hubspot",), mappings_dir=files).connect_all()
    yield made
    made.close()


def run(bridge: Bridge, *words: str) -> Result:
    """Run `mappings versions hubspot` with more words."""
    runner = bridge.app.test_cli_runner(env={"COLUMNS": "200"})
    return runner.invoke(args=["mappings", "versions", "hubspot", *words])


def listed(bridge: Bridge) -> list[dict[str, Any]]:
    """Return the kept versions as scripts get them."""
    found: list[dict[str, Any]] = json.loads(run(bridge, "--json").stdout)["versions"]
    return found


def book(bridge: Bridge, number: int) -> None:
    """Sync one more booking."""
    bridge.sync(sample("booking_created", id=f"v-{number}"))


def test_each_file_in_force_is_kept_with_its_worker(hub: Bridge, files: Path) -> None:
    """A version is kept once a worker plans with it, by whom and since when; a version that comes
    back is the same one, and comes first again.
    """
    book(hub, 1)
    (first,) = listed(hub)
    assert first["first_by"] == hub.services.processes.name and first["is_file"]
    assert first["first_at"] == first["last_at"] and first["size"] > 500
    edit(files, "hubspot", PHONE, LATER)
    assert [item["is_file"] for item in listed(hub)] == [False], "no worker has used it yet"
    book(hub, 2)
    second, before = listed(hub)
    assert second["is_file"] and {**before, "is_file": True} == first
    assert {d.mapping_version for d in hub.deliveries()} == {first["version"], second["version"]}
    edit(files, "hubspot", LATER, PHONE)
    book(hub, 3)
    again, last = listed(hub)
    assert (again["version"], last["version"]) == (first["version"], second["version"])
    assert again["first_at"] == first["first_at"] < again["last_at"]


def test_a_refused_file_is_not_kept(hub: Bridge, files: Path) -> None:
    """A file with mistakes, or one that does not fit the account, was never in force."""
    book(hub, 1)
    edit(files, "hubspot", PHONE, "phone: attendee.fone")
    book(hub, 2)
    edit(files, "hubspot", "phone: attendee.fone", "no_such_field: attendee.phone")
    book(hub, 3)
    assert hub.connection("hubspot").mapping_problem
    assert len(listed(hub)) == 1


def test_texts_are_encrypted(hub: Bridge) -> None:
    """The database holds no line of a kept file as plain text: it may name colleagues."""
    book(hub, 1)
    with hub.services.store.engine.connect() as connection:
        (stored,) = connection.execute(text("SELECT text_encrypted FROM mapping_versions")).one()
    assert "attendee" not in stored and "version: 1" not in stored


def test_versions_are_compared(hub: Bridge, files: Path) -> None:
    """Two versions, or a version and the file, are compared line by line; a text is printed whole."""
    book(hub, 1)
    old = (files / "hubspot.yaml").read_text(encoding="utf-8")
    new = edit(files, "hubspot", PHONE, LATER)
    book(hub, 2)
    second, first = (item["version"] for item in listed(hub))
    for words in (f"{first}..{second}", first[:6], f"{first}..file"):
        done = run(hub, "--diff", words)
        lines = done.output.splitlines()
        assert lines[:2] == [f"--- {first}", f"+++ {second}"], done.output
        assert f"-    {PHONE}" in lines and f"+    {LATER}" in lines
    found = json.loads(run(hub, "--diff", first, "--json").stdout)
    number = old[: old.index(PHONE)].count("\n") + 1
    changed = [line for line in found["lines"] if line["sign"] in "+-"]
    assert changed == [
        {"sign": "-", "text": f"    {PHONE}", "old": number, "new": None},
        {"sign": "+", "text": f"    {LATER}", "old": None, "new": number},
    ]
    assert run(hub, "--diff", second).output == f"{second} and {second} are the same.\n"
    assert run(hub, "--show", first).output == old.rstrip("\n") + "\n"
    assert json.loads(run(hub, "--show", "file", "--json").stdout)["text"] == new


@pytest.mark.parametrize("name", ["nope", "abc", "../x", ""])
def test_a_version_that_is_not_kept_is_told(hub: Bridge, name: str) -> None:
    """An unknown or too short name ends with 1 and the versions that there are."""
    book(hub, 1)
    done = run(hub, "--diff", f"{name}..file")
    assert done.exit_code == 1 and "is kept; there are: file, " in done.stderr, done.output
    assert run(hub, "--diff", "file", "--show", "file").exit_code == 2


def test_only_so_much_is_kept(hub: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    """The versions that were used last stay, within a number and a size; the newest always stays."""
    monkeypatch.setattr(mapping_versions, "MOST_KEPT", 3)
    head = "version: 1\ncrm: hubspot\ncontact: {fields: {email: attendee.email}}\n"
    for number in range(5):
        hub.services.versions.note(mapping_of(f"{head}# {number}\n", "hubspot"), "a")
    texts = [hub.services.versions.text("hubspot", item["version"]) for item in listed(hub)]
    assert texts == [f"{head}# {number}\n" for number in (4, 3, 2)]
    monkeypatch.setattr(mapping_versions, "MOST_CHARACTERS", 2 * len(head) + 20)
    hub.services.versions.note(mapping_of(f"{head}# 6\n", "hubspot"), "a")
    assert len(listed(hub)) == 2
    hub.services.versions.note(mapping_of(head + "#" * 500, "hubspot"), "a")
    assert [item["size"] for item in listed(hub)] == [len(head) + 500]


def test_the_pages_lead_to_versions(hub: Bridge, files: Path) -> None:
    """A booking's page links the version it was planned with; that page shows text and differences."""
    book(hub, 1)
    old = hub.services.mappings["hubspot"].version
    edit(files, "hubspot", PHONE, LATER + " # <b>new</b>")
    book(hub, 2)
    new = hub.services.mappings["hubspot"].version
    address = f"/mappings/hubspot/versions/{old}"
    assert f'href="{address}"' in see(hub, "/bookings/default:v-1")
    page = see(hub, address)
    assert f"- {PHONE}" in text_of(page) or PHONE in text_of(page)
    assert "<b>new" not in page and "&lt;b&gt;new" in page
    assert LATER not in text_of(see(hub, f"{address}?with={old}"))
    assert f"/versions/{new}" in see(hub, "/mappings/hubspot")
    see(hub, "/mappings/hubspot/versions/abcd12345678", 404)
    see(hub, f"{address}?with=zzzz", 404)
    see(hub, "/mappings/nope/versions/file", 404)
    with hub.services.store.write() as session:
        session.execute(text("DELETE FROM mapping_versions"))
    assert "/versions/" not in see(hub, "/bookings/default:v-1")


def test_differences_are_found_by_line() -> None:
    """Lines that are gone, new and around are numbered as in their texts; too long ones are refused."""
    old = "".join(f"line {n}\n" for n in range(1, 21))
    lines = differences(old, old.replace("line 10\n", "ten\nmore\n"))
    assert lines is not None
    assert lines[0] == DiffLine("@", "line 7")
    assert [line for line in lines if line.sign in "+-"] == [
        DiffLine("-", "line 10", 10, None), DiffLine("+", "ten", None, 10),
        DiffLine("+", "more", None, 11),
    ]  # fmt: skip
    assert lines[-1] == DiffLine(" ", "line 13", 13, 14)
    assert differences(old, old) == []
    assert differences("--- a\n", "+++ b\n") == [
        DiffLine("@", "line 1"), DiffLine("-", "--- a", 1, None), DiffLine("+", "+++ b", None, 1),
        DiffLine(" ", "", 2, 2),
    ]  # fmt: skip
    assert differences("\n" * 6_000, "") is None
