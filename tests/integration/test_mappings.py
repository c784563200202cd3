"""Mapping files on the command line and on reload: check, provision, preview, diff, resync."""

from __future__ import annotations

import copy
import json
import re
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from sqlalchemy import select
from structlog.testing import capture_logs

from app.crm.port import Access
from app.domain.errors import InvalidRecord
from app.mapping.json_schema import json_schema
from app.mapping.mapping import lay_over
from app.store.engine import utcnow
from app.store.models import BookingRow, DeliveryRow
from app.sync.diff_state import Diff
from app.sync.values import same
from config.settings import CONFIG_DIR
from sandbox.faults import Fault
from sandbox.limits import Window
from tests.bridge import DATA, PROVIDERS, Bridge, sample
from tests.contract.desk import Desk, desk_in, load_desks
from workers.batch import Batch
from workers.drain import Drainer

SHIPPED = CONFIG_DIR / "mappings"
DESKS = load_desks()
SPOT = "default:6f0f7c1e-3a55-4c0e-9d58-0d2f7f0a11c1"


def run(bridge: Bridge, *words: str, code: int = 0, answer: str = "") -> str:
    """Run a command with the expected exit code; return its output."""
    runner = bridge.app.test_cli_runner(env={"COLUMNS": "240"})
    result = runner.invoke(args=["mappings", *words], input=answer or None)
    assert result.exit_code == code, (result.output, result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return str(result.stdout if "--json" in words else result.output)


def state(sandbox: Any) -> dict[str, Any]:
    """Return the whole contents of a sandbox, to compare them."""
    return {name: copy.deepcopy(getattr(sandbox, name)) for name in DESKS[sandbox.name].stores}


def shipped(provider: str) -> dict[str, Any]:
    """Return the default mapping of a provider."""
    text = (SHIPPED / f"{provider}.yaml").read_text(encoding="utf-8")
    loaded: dict[str, Any] = YAML(typ="safe", pure=True).load(text)
    return loaded


def write(folder: Path, provider: str, changes: dict[str, Any], name: str = "") -> Path:
    """Write a mapping file: the default one with changes merged in."""
    path = folder / (name or f"{provider}.yaml")
    text = json.dumps(lay_over(shipped(provider), changes), indent=1)
    path.write_text(text, encoding="utf-8")
    return path


one = pytest.mark.parametrize("provider", PROVIDERS[:1], indirect=True)
"""For tests whose result is the same for every CRM."""


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turn off waiting for rate limits here; other tests cover them."""
    monkeypatch.setattr(Access, "enter", lambda access, _: access.meter.count())
    monkeypatch.setattr(Window, "take", lambda _: True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the default mapping files that the test may change."""
    return Path(shutil.copytree(SHIPPED, tmp_path / "mappings"))


@pytest.fixture
def account(provider: str, folder: Path, tmp_path: Path) -> Iterator[Bridge]:
    """One connected CRM with mapping files of its own."""
    url = f"sqlite:///{tmp_path}/bridge.sqlite3"
    made = Bridge(url, (provider,), mappings_dir=folder).connect_all()
    yield made
    made.close()


@pytest.fixture(scope="module", params=PROVIDERS)
def still(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bridge, str]]:  # fmt: skip
    """One CRM for tests that only read."""
    url = f"sqlite:///{tmp_path_factory.mktemp('still')}/bridge.sqlite3"
    made = Bridge(url, (request.param,)).connect_all()
    yield made, request.param
    made.close()


def person(number: int | str, **more: Any) -> dict[str, Any]:
    """Return an attendee with a number in e-mail and name."""
    return {
        "email": f"p{number}@globex.example",
        "firstname": f"P{number}",
        "lastname": "Test",
        **more,
    }


# The schema


def test_schema_is_printed(still: tuple[Bridge, str]) -> None:
    """`mappings schema` prints the JSON Schema for editors."""
    assert json.loads(run(still[0], "schema")) == json_schema()


# Check

WRONG = re.compile(r"# wrong: (.+)$")


with_mistakes = pytest.mark.parametrize(
    "still", sorted(path.stem for path in (DATA / "mistakes").glob("*.yaml")), indirect=True
)
"""Runs the test for the CRMs that have a file of mistakes."""


def planted(provider: str) -> dict[int, str]:
    """Return line -> the message that the check must give for it."""
    text = (DATA / "mistakes" / f"{provider}.yaml").read_text(encoding="utf-8")
    lines = enumerate(text.splitlines(), 1)
    return {number: match[1] for number, line in lines if (match := WRONG.search(line))}


@with_mistakes
def test_every_planted_mistake_is_reported_in_one_run(still: tuple[Bridge, str]) -> None:
    """One run reports all planted mistakes with file, line, key and the CRM's alternatives, and no
    others.
    """
    bridge, provider = still
    wanted = planted(provider)
    assert len(wanted) >= 12
    file = DATA / "mistakes" / f"{provider}.yaml"
    before = state(bridge.sandbox(provider))
    output = run(bridge, "check", str(file), "--connection", "1", code=1)
    lines = output.removeprefix("Error: ").splitlines()
    found = [re.fullmatch(rf"{provider}\.yaml:(\d+): ([\w.@]+): (.+)", line) for line in lines]
    assert all(found), output
    assert [int(match[1]) for match in found if match] == sorted(wanted)
    for match in found:
        assert match and wanted[int(match[1])] in match[3], match and match[0]
    assert bridge.sandbox(provider).writes() == 0
    assert state(bridge.sandbox(provider)) == before


@with_mistakes
def test_without_an_account_the_language_alone_is_checked(still: tuple[Bridge, str]) -> None:
    """Without an account, check makes no call and reports no mistake that only the account shows."""
    bridge, provider = still
    calls = bridge.sandbox(provider).total_calls
    file = DATA / "mistakes" / f"{provider}.yaml"
    output = run(bridge, "check", str(file), code=1)
    assert "there is no path" in output and "there is no stage" not in output
    assert len(output.splitlines()) < len(planted(provider))
    assert bridge.sandbox(provider).total_calls == calls


LACKING = [(crm, *demand) for crm, desk in DESKS.items() for demand in desk.demands]


@pytest.mark.parametrize(("provider", "name", "lacking", "words"), LACKING)
def test_what_the_guides_demand_is_demanded_beforehand(
    folder: Path, tmp_path: Path, provider: str, name: str, lacking: tuple[str, ...], words: str
) -> None:
    """The CRM refuses the same missing required fields that the check reports beforehand."""
    content = shipped(provider)
    for field in lacking:
        del content[name]["fields"][field]
    (folder / f"{provider}.yaml").write_text(json.dumps(content), encoding="utf-8")
    url = f"sqlite:///{tmp_path}/bridge.sqlite3"
    bridge = Bridge(url, (provider,), mappings_dir=folder).connect_all()
    output = run(bridge, "check", "--connection", "1", code=1)
    assert f"{name}.fields: {provider} requires {words}" in output
    bridge.post(sample("booking_created"))
    bridge.drain()
    delivery = bridge.delivery(provider)
    assert delivery.state == "failed" and lacking[0] in str(delivery.error_message)
    bridge.close()


def test_good_files_pass(still: tuple[Bridge, str], tmp_path: Path) -> None:
    """The default file and a file that uses the account's fields pass with exit code 0."""
    bridge, provider = still
    assert "is good for connection 1" in run(bridge, "check", "--connection", "1")
    rich = {
        "owner": {"rule": "host_email", "fallback": "mary@acme.example", "write": "if_empty"},
        "skip": [{"when": {"attendee.email_domain": ["acme.example"]}, "because": "internal"}],
        "contact": {"match": ["email", "phone"], "several": "newest"},
        "deal": {"per": "open_deal_of_contact"},
        "meeting_types": {"demo": {"deal": {"stage": {"created": DESKS[provider].a_stage}}}},
        "hosts": {"mary@acme.example": {"deal": "none"}},
    }
    file = write(tmp_path, provider, rich)
    assert "is good" in run(bridge, "check", str(file), "--connection", "1")
    assert f"{provider}.yaml is good" in run(bridge, "check", str(file))
    assert bridge.sandbox(provider).writes() == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["check", "--provision"], "need --connection"),
        (["check", "--resync"], "need --connection"),
        (["check", "--connection", "99"], "There is no connection 99"),
        (["preview", "zoho"], "There is no CRM 'zoho'"),
        (["preview", "CRM"], "Give one of"),
        (["preview", "CRM", "--event", "99"], "There is no event 99"),
        (["preview", "CRM", "--booking", "nope"], "There is no booking 'nope'"),
        (["preview", "CRM", "--since", "lately"], "neither a date nor one of"),
        (["preview", "CRM", "--since", "today", "--booking", "x"], "Give one of"),
        (["preview", "CRM", "--since", "today", "--connection", "99"], "There is no connection 99"),
        (["preview", "CRM", "BROKEN"], "broken.json is not JSON"),
        (["preview", "CRM", "EMPTY"], "webhookType"),
        (["preview", "CRM", "FORM"], "neither an e-mail nor a phone"),
        (["preview", "CRM", "BOOKING", "--mapping", "BROKEN"], "broken.json:1"),
        (["preview", "CRM", "BOOKING", "--mapping", "OTHER"], "this one is for other"),
        (["check", "OTHER"], "other.yaml:2: crm: there is no CRM 'other'; there are: hubspot"),
        (["check", "CAPITALS"], "m.yaml:2: crm: there is no CRM 'HubSpot'; did you mean hubspot?"),
        (["check", "NOTHING"], "n.yaml:1: the file is empty; it must begin with"),
        (["check", "LATIN"], "l.yaml:3: this line is not readable as UTF-8"),
        (["check", "NAMELESS"], "crm is missing"),
        (["check", "BINARY"], "not readable"),
        (["diff", "OTHER", "OTHER"], "there is no CRM 'other'"),
        (["diff", "SHIPPED", "SHIPPED", "--events", "lately"], "neither a date nor one of"),
    ],
)
@pytest.mark.parametrize("still", PROVIDERS[:1], indirect=True)
def test_errors_are_sentences(
    still: tuple[Bridge, str], tmp_path: Path, words: list[str], sentence: str
) -> None:
    """An impossible command prints a sentence, with exit code 2 if it was written wrongly, else 1."""
    bridge, provider = still
    files = {
        "BROKEN": ("broken.json", b"{"),
        "EMPTY": ("empty.json", b"{}"),
        "FORM": ("form.json", b'{"webhookType": "form_submission", "id": 5}'),
        "OTHER": ("other.yaml", b"version: 1\ncrm: other\n"),
        "CAPITALS": ("m.yaml", b"version: 1\ncrm: HubSpot\n"),
        "NOTHING": ("n.yaml", b""),
        "LATIN": ("l.yaml", "version: 1\ncrm: hubspot\n# Größe\n".encode("latin-1")),
        "NAMELESS": ("nameless.yaml", b"version: 1\n"),
        "BINARY": (f"{provider}.yaml", b"\xff\xfe\x00crm: \x80"),
    }
    for name, content in files.values():
        (tmp_path / name).write_bytes(content)
    paths = {key: str(tmp_path / name) for key, (name, _) in files.items()}
    paths |= {"CRM": provider, "BOOKING": str(DATA / "booking_created.json")}
    paths["SHIPPED"] = str(SHIPPED / f"{provider}.yaml")
    usage = ("need --connection", "Give one of", "neither a date")
    code = 2 if sentence.startswith(usage) else 1
    output = run(bridge, *(paths.get(word, word) for word in words), code=code)
    assert sentence in output and "Traceback" not in output


def test_a_crm_that_does_not_answer_is_told_of(account: Bridge, provider: str) -> None:
    """An outage or a dead grant ends check and preview with a sentence that says what to do."""
    sandbox = account.sandbox(provider)
    commands = (
        ["check", "--connection", "1"],
        ["preview", provider, str(DATA / "booking_created.json"), "--connection", "1"],
    )
    for words in commands:
        sandbox.faults.append(Fault(status=503, body="away"))
        output = run(account, *words, code=1)
        assert output.startswith("Error: ") and "503" in output and "tries again" in output
        sandbox.faults.clear()
    sandbox.kill_grants()
    for words in commands:
        assert "onnect" in run(account, *words, code=1)


# Provision

GOAL, VIP, SEATS, SEEN, HOST = "Demo goal", "Vip", "Seats", "First seen", "Meeting host"


def custom(provider: str) -> dict[str, dict[str, Any]]:
    """Return mapping changes that fill custom fields which the account lacks."""
    called = DESKS[provider].custom_name
    contact = {
        called(GOAL): "answers.Goal",
        called(VIP): {"value": True},
        called(SEATS): {"from": "answers.Seats", "as": "number"},
        called(SEEN): {"from": "booking.start", "as": "date"},
    }
    return {"contact": {"fields": contact}, "deal": {"fields": {called(HOST): "host.full_name"}}}


def test_provision_shows_asks_and_makes(account: Bridge, provider: str, folder: Path) -> None:
    """Missing fields are shown and created after a confirmation; then the check passes, and a
    booking is synced with the new fields.
    """
    write(folder, provider, custom(provider))
    sandbox, desk = account.sandbox(provider), desk_in(account)
    names = [name for part in custom(provider).values() for name in part["fields"]]
    plain = run(account, "check", "--connection", "1", code=1)
    assert all(f"has no field {name!r}" in plain for name in names)
    before = state(sandbox)
    words = ("check", "--connection", "1", "--provision")
    no = run(account, *words, answer="n\n", code=1)
    assert "These custom fields would be created:" in no and "Create them?" in no
    assert all(f".{name} (" in no for name in names)
    assert f".{desk.custom_name(SEATS)} (number)" in no
    assert (sandbox.writes(), state(sandbox)) == (0, before)
    begun = len(sandbox.log)
    yes = run(account, *words, answer="y\n")
    assert f"{provider}.yaml is good for connection 1" in yes
    made = [call for call in sandbox.log[begun:] if re.match(desk.make_field, call)]
    assert len(made) == len(names)
    sandbox.calls.clear()
    again = run(account, *words)
    assert "would be created" not in again and sandbox.writes() == 0
    notes = {"Goal": "Growth", "Seats": "1.200"}
    account.sync(sample("booking_created", attendees=[person(1, notes=notes)]))
    assert account.delivery(provider).state == "synced", account.delivery(provider).error_message
    (contact,) = desk.records("contact")
    goal, vip, seats, seen = (desk.custom_name(label) for label in (GOAL, VIP, SEATS, SEEN))
    assert contact[goal] == "Growth" and same(contact[seats], 1200)
    assert contact[seen] == "2026-12-01" and contact[vip] is True


@one
def test_provision_with_yes_does_not_ask(account: Bridge, provider: str, folder: Path) -> None:
    """--yes creates the fields without a question; without --provision it creates none."""
    write(folder, provider, custom(provider))
    sandbox = account.sandbox(provider)
    run(account, "check", "--connection", "1", "--yes", code=1)
    assert sandbox.writes() == 0
    output = run(account, "check", "--connection", "1", "--provision", "--yes")
    assert "Create them?" not in output and "is good" in output


def test_provision_leaves_mistakes_alone(account: Bridge, provider: str, folder: Path) -> None:
    """Provision reports a mistake that no new field solves, and offers no impossible field."""
    section, field = DESKS[provider].no_field
    write(folder, provider, {section: {"fields": {field: "attendee.email"}}})
    sandbox = account.sandbox(provider)
    output = run(account, "check", "--connection", "1", "--provision", "--yes", code=1)
    assert f"has no field {field!r}" in output and "would be created" not in output
    assert sandbox.writes() == 0


def test_provision_makes_nothing_beside_other_mistakes(
    account: Bridge, provider: str, folder: Path
) -> None:
    """Provision creates no field until the rest of the file is correct."""
    changes = custom(provider)
    deal = {**changes["deal"], "stage": {"created": "Nowhere"}}
    write(folder, provider, {**changes, "deal": deal})
    sandbox = account.sandbox(provider)
    output = run(account, "check", "--connection", "1", "--provision", "--yes", code=1)
    assert "No custom field is created before the other mistakes are corrected" in output
    assert "there is no stage 'Nowhere'" in output and sandbox.writes() == 0


def test_provision_makes_lists_and_what_somebody_says(
    account: Bridge, provider: str, folder: Path
) -> None:
    """The options of a map become a list; for a question the user's reply to the prompt decides the
    type, and an unknown type is asked for again.
    """
    plan, size = (DESKS[provider].custom_name(label) for label in ("Plan", "Size"))
    table = {"one": "Basic", "two": "Pro"}
    fields = {
        plan: {"from": "answers.Plan", "as": {"map": table}},
        size: {"from": "answers.Size", "write": "always"},
    }
    write(folder, provider, {"contact": {"fields": fields}})
    answer = f"contact.{size}: colour\ncontact.{size}: some of a list: S, M, L\ny\n"
    output = run(account, "check", "--connection", "1", "--provision", answer=answer)
    assert f"contact.{plan} (one of a list: Basic, Pro)" in output
    assert f"contact.{size} (text)" in output and "There is no type 'colour'" in output
    assert f"contact.{size} (some of a list: S, M, L)" in output
    assert f"{provider}.yaml is good for connection 1" in output
    notes = {"Plan": "two", "Size": "L; s"}
    account.sync(sample("booking_created", attendees=[person(1, notes=notes)]))
    assert account.delivery(provider).state == "synced", account.delivery(provider).error_message
    (contact,) = desk_in(account).records("contact")
    assert (contact[plan], sorted(contact[size])) == ("Pro", ["L", "S"])


def test_provision_makes_a_list_of_the_answers_that_were_given(
    account: Bridge, provider: str, folder: Path
) -> None:
    """If stored bookings answer with several choices, the new field offers these choices."""
    field = DESKS[provider].custom_name("Topics")
    for number, chosen in enumerate((["Forms", "Routing"], ["Polls"], "Forms")):
        notes = {"Topics": chosen}
        account.post(sample("booking_created", id=str(number), attendees=[person(1, notes=notes)]))
    write(folder, provider, {"contact": {"fields": {field: "answers.topics"}}})
    output = run(account, "check", "--connection", "1", "--provision", "--yes")
    words = " ".join(output.split())
    assert f"contact.{field} (some of a list: " in words
    listed = words.partition("some of a list: ")[2].partition(")")[0]
    assert sorted(listed.split(", ")) == ["Forms", "Polls", "Routing"]


# Preview


def live(bridge: Bridge, provider: str, *words: str, code: int = 0) -> list[dict[str, Any]]:
    """Return a preview against the account, read from JSON; check that it has written nothing."""
    sandbox = bridge.sandbox(provider)
    before, writes, calls = state(sandbox), sandbox.writes(), sandbox.total_calls
    output = run(bridge, "preview", provider, *words, "--connection", "1", "--json", code=code)
    assert (state(sandbox), sandbox.writes()) == (before, writes)
    assert sandbox.total_calls > calls
    found: list[dict[str, Any]] = json.loads(output)
    for item in found:
        assert set(item) == {"key", "title", "who", "records", "skipped", "problem", "notes"}
        for record in item["records"]:
            assert set(record) == {
                "object",
                "action",
                "record_id",
                "url",
                "fields",
                "links",
                "notes",
            }
            assert record["action"] in ("create", "change", "delete", "leave", "problem")
            assert all(
                set(entry) == {"name", "old", "new", "now", "then"} for entry in record["fields"]
            )
    return found


def actions(item: dict[str, Any]) -> dict[str, str]:
    """Return object -> the planned action."""
    return {record["object"]: record["action"] for record in item["records"]}


def save(tmp_path: Path, payload: dict[str, Any]) -> str:
    path = tmp_path / "payload.json"
    path.write_text(json.dumps(payload), encoding="utf-8")
    return str(path)


def test_preview_of_a_file_without_an_account(still: tuple[Bridge, str]) -> None:
    """Without an account, preview shows every field with value and write rule and makes no call."""
    bridge, provider = still
    calls = bridge.sandbox(provider).total_calls
    file = str(DATA / "booking_created.json")
    table = run(bridge, "preview", provider, file)
    assert "Discovery Call: Jane van der Berg" in table and "on_create" in table
    assert "john@acme.example" in table
    (found,) = json.loads(run(bridge, "preview", provider, file, "--json"))
    assert set(found) == {"key", "title", "who", "skipped", "records", "notes"}
    assert [record["object"] for record in found["records"]] == [
        "company",
        "contact",
        "deal",
        "meeting",
    ]
    assert bridge.sandbox(provider).total_calls == calls


def test_preview_takes_every_source(account: Bridge, provider: str, tmp_path: Path) -> None:
    """A file, a stored webhook, a booking by key or id, and last week all give the same preview."""
    account.post(sample("booking_created"))
    (from_file,) = live(account, provider, str(DATA / "booking_created.json"))
    assert from_file["key"] == SPOT
    spot_id = SPOT.partition(":")[2]
    for words in (
        ["--event", "1"], ["--booking", SPOT], ["--booking", spot_id], ["--since", "last-week"],
        ["--since", "today"], ["--since", (utcnow() - timedelta(days=1)).date().isoformat()],
    ):  # fmt: skip
        assert live(account, provider, *words) == [from_file]
    assert live(account, provider, "--since", (utcnow() + timedelta(days=1)).isoformat()) == []


def test_preview_says_create_change_and_leave(
    account: Bridge, provider: str, tmp_path: Path
) -> None:
    """A new booking shows create, a synced one shows leave, a moved one shows old and new values."""
    file = str(DATA / "booking_created.json")
    (new,) = live(account, provider, file)
    assert set(actions(new).values()) == {"create"}
    assert set(actions(new)) == {"company", "contact", "deal", "meeting"}
    account.sync(sample("booking_created"))
    (same_again,) = live(account, provider, file)
    assert set(actions(same_again).values()) == {"leave"}
    assert all(r["record_id"] and r["url"].startswith("http") for r in same_again["records"])
    moved = save(tmp_path, sample("booking_rescheduled"))
    (change,) = live(account, provider, moved)
    expected = {"company": "leave", "contact": "leave", "deal": "leave", "meeting": "change"}
    assert actions(change) == expected
    fields = {f["name"]: (f["old"], f["new"]) for f in change["records"][-1]["fields"]}
    old, new_value = fields[DESKS[provider].field("meeting", "start")]
    assert old.startswith("2026-12-01") and new_value.startswith("2026-12-02")
    table = run(account, "preview", provider, moved, "--connection", "1")
    assert "change" in table and "2026-12-01" in table and "2026-12-02" in table


def test_preview_shows_what_a_colleague_has_changed(account: Bridge, provider: str) -> None:
    """The old value in a preview is the CRM's current value, not the last written one."""
    account.sync(sample("booking_created"))
    desk = desk_in(account)
    title = desk.field("meeting", "title")
    (meeting,) = desk.records("meeting")
    desk.change("meeting", meeting["id"], {"title": "Talk with Jane"})
    account.post(sample("booking_cancelled"))
    (found,) = live(account, provider, "--booking", SPOT)
    fields = {f["name"]: f for f in found["records"][-1]["fields"]}
    if title in fields:
        assert fields[title]["old"] == "Talk with Jane"
    assert fields and all(f["old"] != f["new"] for f in fields.values())


@one
def test_preview_with_another_file(
    account: Bridge, provider: str, folder: Path, tmp_path: Path
) -> None:
    """--mapping previews with another file than the one in use."""
    other = write(tmp_path, provider, {"deal": "none", "skip": []}, "draft.yaml")
    words = (str(DATA / "booking_created.json"), "--mapping", str(other))
    (found,) = live(account, provider, *words)
    assert "deal" not in actions(found)
    skipping = write(
        tmp_path,
        provider,
        {"skip": [{"when": {"booking.minutes": 30}, "because": "short"}]},
        "s.yaml",
    )
    (skipped,) = live(account, provider, words[0], "--mapping", str(skipping))
    assert (skipped["skipped"], skipped["records"]) == ("short", [])
    assert "skipped: short" in run(
        account, "preview", provider, words[0], "--mapping", str(skipping)
    )


@one
def test_preview_of_a_form(account: Bridge, provider: str, tmp_path: Path) -> None:
    """A form without rules is skipped; with rules it waits for a booking and then becomes a contact."""
    form = sample("form_submission_assumed")
    rules = {"form_submission": {"after_hours": 2, "as": "contact"}}
    file = write(tmp_path, provider, rules, "forms.yaml")
    new = save(tmp_path, {**form, "createdAt": utcnow().isoformat()})
    (none,) = live(account, provider, new)
    assert none["skipped"] == "the mapping has no form_submission"
    (waits,) = live(account, provider, new, "--mapping", str(file))
    assert waits["skipped"].startswith("waits until") and waits["records"] == []
    old = save(tmp_path, {**form, "createdAt": (utcnow() - timedelta(hours=3)).isoformat()})
    (ripe,) = live(account, provider, old, "--mapping", str(file))
    assert actions(ripe)["contact"] == "create"


def test_preview_says_which_bookings_fail(account: Bridge, provider: str, tmp_path: Path) -> None:
    """A booking that cannot be planned does not hide the others; the exit code is 1."""
    place = DESKS[provider].field("meeting", "where")
    broken = {"meeting": {"fields": {place: {"from": "answers.Seats", "as": "number"}}}}
    file = write(tmp_path, provider, broken, "draft.yaml")
    account.post(sample("booking_created", id="1", attendees=[person(1, notes={"Seats": "many"})]))
    account.post(sample("booking_created", id="2", attendees=[person(2, notes={"Seats": "5"})]))
    words = ("--since", "today", "--mapping", str(file))
    first, second = live(account, provider, *words, code=1)
    assert "'many' is not a number" in first["problem"] and first["records"] == []
    assert second["problem"] == "" and set(actions(second).values()) == {"create"}
    for extra in ((), ("--connection", "1")):
        table = run(account, "preview", provider, *words, *extra, code=1)
        assert "'many' is not a number" in table and "default:2" in table
        assert "1 booking would fail" in table
    offline = json.loads(run(account, "preview", provider, *words, "--json", code=1))
    assert "problem" in offline[0] and "problem" not in offline[1]


def test_preview_says_what_blocks(account: Bridge, provider: str, tmp_path: Path) -> None:
    """If several records match and a person must choose, the contact is a problem, and records that
    depend on it are not shown as created.
    """
    account.sync(
        sample("booking_created", id="1", attendees=[person(1, phone="+4915112345678")]),
        sample("booking_created", id="2", attendees=[person(2, phone="+4915112345678")]),
    )
    rules = {"contact": {"match": ["phone"], "several": "flag"}, "company": "none"}
    file = write(tmp_path, provider, rules, "draft.yaml")
    stranger = save(tmp_path, sample("booking_created", id="3", attendees=[person(3, phone="+4915112345678")]))  # fmt: skip
    (found,) = live(account, provider, stranger, "--mapping", str(file), code=1)
    assert set(actions(found).values()) == {"problem"}
    assert "2 contact records match" in found["records"][0]["notes"][0]
    assert "contact has to be written first" in found["records"][1]["notes"][0]


def test_preview_shows_no_plan_that_the_account_would_refuse(
    account: Bridge, provider: str, tmp_path: Path
) -> None:
    """A file that contradicts the CRM's schema gives its mistakes with lines instead of a preview."""
    wrong = {"contact": {"fields": {"no_such_field": "attendee.email"}}}
    file = write(tmp_path, provider, wrong, "draft.yaml")
    words = (provider, str(DATA / "booking_created.json"))
    output = run(account, "preview", *words, "--connection", "1", "--mapping", str(file), code=1)
    assert re.search(r"draft\.yaml:\d+: contact\.fields\.no_such_field: the CRM's contact", output)
    assert "create" not in output
    assert "no_such_field" in run(account, "preview", *words, "--mapping", str(file))


NASTY = "[red]x[/] [/nope] \\[b] {{ 7*7 }} <b>"


def test_preview_shows_no_secret_and_takes_text_for_text(
    account: Bridge, provider: str, tmp_path: Path
) -> None:
    """A preview never shows the webhook's credential or tokens; brackets and braces in names stay
    text.
    """
    spy = {"meeting": {"fields": {
        DESKS[provider].field("meeting", "where"):
        {"template": "{{ payload.secret }}{{ payload.get('secret') }}{% for k in payload %}{{ k }} {% endfor %}"},
    }}}  # fmt: skip
    file = write(tmp_path, provider, spy, "draft.yaml")
    people = [
        {"email": "a@globex.example", "firstname": NASTY, "lastname": NASTY, "fullname": NASTY}
    ]
    payload = save(tmp_path, sample("booking_created", attendees=people))
    account.post(sample("booking_created", attendees=people))
    grant = account.sandbox(provider).grants[0]
    for words in ([payload], ["--booking", SPOT], ["--event", "1"]):
        for extra in ([], ["--connection", "1"]):
            for form in ([], ["--json"]):
                shown = run(
                    account, "preview", provider, *words, *extra, *form, "--mapping", str(file)
                )
                assert "cancel-token-do-not-store" not in shown and "secret" not in shown
                assert grant.refresh_token not in shown
                assert not any(token in shown for token in grant.access_tokens)
                assert "[/nope]" in shown and "{{ 7*7 }}" in shown


# A sync does what the preview says


def colleague(bridge: Bridge) -> None:
    """Create a contact and a company, as a colleague did earlier by hand."""
    desk = desk_in(bridge)
    desk.make("company", desk.known_company("globex.example"))
    theirs = {"name": "Old", "email": "p1@globex.example", "owner": "mary@acme.example"}
    desk.make("contact", theirs)


def told(previews: list[dict[str, Any]]) -> tuple[list[Any], dict[tuple[str, str], dict[str, Any]]]:
    """Return the planned creates and the planned changes over all bookings."""
    created, changed = [], {}
    for item in previews:
        for record in item["records"]:
            values = {f["name"]: (f["old"], f["new"]) for f in record["fields"]}
            if record["action"] == "create":
                created.append((record["object"], {name: new for name, (_, new) in values.items()}))
            elif record["action"] == "change":
                changed.setdefault((record["object"], record["record_id"]), {}).update(values)
    return created, changed


def fits(row: dict[str, Any], values: dict[str, Any]) -> bool:
    return all(same(row.get(name), value) for name, value in values.items())


def heir_of(desk: Desk, row: dict[str, Any], said: dict[str, Any], new: Any) -> tuple[str, str]:
    """The new meeting that has taken the place of one that could not be changed."""
    values = {name: value for name, value in row.items() if name not in desk.link_fields}
    values |= {name: value for name, (_, value) in said.items()}
    heirs = [key for key, there in new.items() if key[0] == "meeting" and fits(there, values)]
    assert heirs, (values, new)
    return heirs[0]


def compare(bridge: Bridge, provider: str) -> None:
    """Preview all stored bookings, sync them, and compare the preview with the actual changes."""
    desk = desk_in(bridge)
    before = desk.raw()
    created, changed = told(live(bridge, provider, "--since", "today"))
    bridge.settle()
    assert {d.state for d in bridge.deliveries()} == {"synced"}
    after = desk.raw()
    new = {key: row for key, row in after.items() if key not in before}
    for name, values in created:
        there = [key for key, row in new.items() if key[0] == name and fits(row, values)]
        assert there, (name, values, [row for key, row in new.items() if key[0] == name])
        del new[there[0]]
    for key in [key for key in changed if desk.remakes_meetings and key not in after]:
        after[key] = new.pop(heir_of(desk, before[key], changed[key], new))
    assert new == {}
    for key, row in before.items():
        said = changed.pop(key, {})
        for name, (old, value) in said.items():
            assert same(row.get(name), old), (key, name)
            assert same(after[key].get(name), value), (key, name)
        moved = {
            n for n in row.keys() | after[key].keys() if not same(row.get(n), after[key].get(n))
        }
        assert moved - desk.link_fields <= set(said), key
    assert changed == {}


def test_what_preview_says_then_happens(account: Bridge, provider: str) -> None:
    """The sync creates and changes exactly the previewed records: new and known people, a
    colleague's contact, groups, a phone alone, moves and cancels.
    """
    colleague(account)
    account.sync(sample("booking_created"))
    account.post(sample("booking_rescheduled"))
    account.post(sample("booking_created", id="11", attendees=[person(1, phone="+4915112345678")]))
    account.post(sample("booking_created", id="12", attendees=[person(1), person(2)]))
    account.post(sample("booking_created", id="13", attendees=[person(2, firstname="Zoe")],
                        updatedAt="2026-11-25T00:00:00Z"))  # fmt: skip
    account.post(sample("group_booking_created", id="14"))
    account.post(sample("phone_only_created", id="15"))
    account.post(sample("booking_cancelled", id="16", attendees=[person(3)]))
    account.post(sample("booking_created", id="17", attendees=[]))
    compare(account, provider)
    # Once more, now that the people are known.
    account.post(sample("booking_cancelled"))
    account.post(sample("booking_rescheduled", id="11", attendees=[person(1), person(4)],
                        updatedAt="2026-11-26T00:00:00Z"))  # fmt: skip
    account.post(sample("booking_created", id="18", attendees=[person(3, lastname="New")],
                        updatedAt="2026-11-27T00:00:00Z"))  # fmt: skip
    compare(account, provider)


def test_more_than_a_batch_is_previewed_as_one(
    account: Bridge, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person created by a booking of an earlier batch is not previewed as new in a later batch."""
    size = 4
    monkeypatch.setattr(type(account.services.adapter(1)), "batch_size", size)
    for number in range(size + 5):
        account.post(sample("booking_created", id=str(number), attendees=[person(number % 3)]))
    found = live(account, provider, "--since", "today")
    made = [r["object"] for item in found for r in item["records"] if r["action"] == "create"]
    assert (made.count("contact"), made.count("company")) == (3, 1)
    assert made.count("deal") == made.count("meeting") == size + 5
    assert "The preview of booking default:0 shows this record." in found[-1]["records"][0]["notes"]
    compare(account, provider)


RULES: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "open deals": {"deal": {"per": "open_deal_of_contact"}},
    "in turn": {"owner": {"rule": "round_robin", "users": ["john@acme.example", "mary@acme.example"]}},
    "history": {"meeting": {"on_reschedule": "keep_history", "on_cancel": "delete"}},
}  # fmt: skip
RULED = [
    pytest.param(crm, changes, id=f"{crm}-{name}")
    for crm, desk in DESKS.items()
    for name, changes in {**RULES, **desk.own_rules}.items()
]


@pytest.mark.parametrize(("provider", "rules"), RULED)
def test_preview_keeps_to_rules(
    account: Bridge, provider: str, folder: Path, rules: dict[str, Any]
) -> None:
    """Write rules, open deals, owners in turn and kept histories work in the sync as previewed."""
    write(folder, provider, rules)
    colleague(account)
    job = {"Job": "CEO"}
    account.post(
        sample("booking_created", id="1", attendees=[person(1, phone="+4915112345678", notes=job)])
    )
    account.post(sample("booking_created", id="2", attendees=[person(2, phone="+4915112345679")]))
    compare(account, provider)
    account.post(
        sample(
            "booking_rescheduled",
            id="1",
            attendees=[person(1, phone="+4915112345000", lastname="Next", notes={"Job": "CFO"})],
        )
    )
    account.post(
        sample(
            "booking_created",
            id="3",
            attendees=[person(2, notes=job)],
            updatedAt="2026-11-28T00:00:00Z",
        )
    )
    compare(account, provider)


# Diff


def different(bridge: Bridge, old: Path, new: Path, *words: str) -> set[str]:
    """Return the ids of the bookings that a diff names; check that it made no call."""
    (sandbox,) = (served.sandbox for served in bridge.served.values())
    calls, before = sandbox.total_calls, state(sandbox)
    output = run(bridge, "diff", str(old), str(new), *words)
    assert (sandbox.total_calls, state(sandbox)) == (calls, before)
    named = set(re.findall(r"│ default:(\S+)", output))
    number = re.search(r"(\d+) of \d+ bookings would be written differently", output)
    assert number and int(number[1]) == len(named), output
    return named


EVERY = {"new", "cancelled", "support", "long", "mary", "moved"}
DIFFERENCES: list[tuple[str, Any, set[str]]] = [
    ("nothing", {}, set()),
    ("what is said already", {"deal": {"per": "booking"}}, set()),
    ("a title", {"deal": {"fields": {"$deal": "meeting_type.slug"}}}, EVERY),
    ("a stage for cancelled ones", {"deal": {"stage": {"cancelled": "Closed lost"}}}, {"cancelled"}),
    ("a meeting type", {"meeting_types": {"support-call": {"deal": "none"}}}, {"support"}),
    ("a host", {"hosts": {"mary@acme.example": {"company": "none"}}}, {"mary"}),
    ("bookings that are left out", {"skip": [{"when": {"booking.minutes": {"above": 60}}}]}, {"long"}),
    ("what a cancel does", {"meeting": {"on_cancel": "delete"}}, {"cancelled"}),
    ("what a move does", {"meeting": {"on_reschedule": "keep_history"}}, {"moved"}),
    ("an owner who stands in", {"owner": {"fallback": "sales@acme.example"}}, EVERY),
    ("an owner by table", {"owner": {"rule": "table", "table": {"mary@acme.example": "boss@acme.example"}}}, EVERY),
    ("a write rule", {"contact": {"fields": {"$mail": {"from": "attendee.email", "write": "on_create"}}}}, EVERY),
    ("an answer that one booking has", {"meeting": {"fields": {"$place": "answers.Place"}}}, EVERY),
    ("a field that one booking fills", {"deal": {"fields": {"x": "answers.Place"}}}, {"long"}),
    ("a field that fails for one", {"deal": {"fields": {"x": {"from": "answers.Place", "as": "number"}}}}, {"long"}),
    ("how contacts with a phone are found", {"contact": {"match": ["phone", "email"]}}, EVERY - {"new", "long"}),
    ("who is a contact", {"attendees": {"when": {"attendee.email_domain": {"not": "new.example"}}}}, {"new"}),
]  # fmt: skip


def bookings(bridge: Bridge) -> None:
    """Store one booking of each sort, with the sort as its id."""
    mary = [{"email": "mary@acme.example", "givenName": "Mary", "familyName": "Major"}]
    kind = {"id": "mt2", "slug": "support-call", "meetingInfo": {"name": "Support"}}
    long = sample("booking_created", id="long", end="2026-12-01T11:00:00+01:00")
    long["attendees"] = [person("long", notes={"Place": "Room 7"})]
    for name, payload in {
        "new": sample("booking_created", attendees=[person("new", email="ann@new.example")]),
        "cancelled": sample("booking_cancelled"),
        "support": sample("booking_created", meetingType=kind),
        "long": long,
        "mary": sample("booking_created", hosts=mary),
        "moved": sample("booking_created"),
    }.items():
        bridge.post({**payload, "id": name})
    moved = {"start": "2026-12-03T10:00:00Z", "end": "2026-12-03T10:30:00Z"}
    bridge.post(sample("booking_rescheduled", id="moved", **moved))


def named(changes: Any, provider: str) -> Any:
    """Return mapping changes with the field names of one CRM."""
    text, field = json.dumps(changes), DESKS[provider].field
    for word, name in (("$deal", field("deal", "title")), ("$place", field("meeting", "where")),
                       ("$mail", field("contact", "email"))):  # fmt: skip
        text = text.replace(word, name)
    return json.loads(text)


def test_diff_names_exactly_what_comes_out_differently(
    account: Bridge, provider: str, tmp_path: Path
) -> None:
    """A diff names for each change of a file exactly the bookings that come out differently."""
    bookings(account)
    old = SHIPPED / f"{provider}.yaml"
    for number, (what, changes, expected) in enumerate(DIFFERENCES):
        new = write(tmp_path, provider, named(changes, provider), f"new{number}.yaml")
        found = different(account, *((old, new) if number % 2 else (new, old)))
        assert found == expected, (what, found)


@one
def test_diff_looks_at_the_span_that_is_asked_for(
    account: Bridge, provider: str, tmp_path: Path
) -> None:
    """--events accepts last-week, today, last-month or a date; the default is last week."""
    account.post(sample("booking_created", id="old"))
    account.post(sample("booking_created", id="new"))
    with account.services.store.write() as session:
        query = select(BookingRow).where(BookingRow.key == "default:old")
        session.scalars(query).one().updated_at = utcnow() - timedelta(days=10)
    old = SHIPPED / f"{provider}.yaml"
    new = write(tmp_path, provider, {"deal": "none"}, "new.yaml")
    assert different(account, old, new) == {"new"}
    assert different(account, old, new, "--events", "last-week") == {"new"}
    assert different(account, old, new, "--events", "last-month") == {"new", "old"}
    day = (utcnow() - timedelta(days=11)).date().isoformat()
    assert different(account, old, new, "--events", day) == {"new", "old"}
    tomorrow = (utcnow() + timedelta(days=1)).isoformat()
    assert different(account, old, new, "--events", tomorrow) == set()


# Reload and resync


def title_of(bridge: Bridge, provider: str, number: str) -> str | None:
    """Return the title of a booking's deal."""
    deals = bridge.sandbox(provider).view().deals
    return next((deal.title for deal in deals if deal.booking == f"default:{number}"), None)


def book(bridge: Bridge, number: int | str) -> None:
    """Post a booking and process it."""
    bridge.sync(sample("booking_created", id=str(number), attendees=[person(number)]))


def versions(bridge: Bridge) -> dict[str, str | None]:
    """Return booking id -> the mapping version that planned it."""
    with bridge.services.store.read() as session:
        query = select(BookingRow.key, DeliveryRow.mapping_version).join(
            DeliveryRow, DeliveryRow.booking_id == BookingRow.id
        )
        return {key.partition(":")[2]: version for key, version in session.execute(query)}


@one
def test_a_changed_file_counts_from_the_next_batch(
    account: Bridge, provider: str, folder: Path
) -> None:
    """Without a restart, a worker plans the next batch by the changed file and stores its version."""
    book(account, 1)
    old = account.services.mappings[provider].version
    title = DESKS[provider].field("deal", "title")
    write(folder, provider, {"deal": {"fields": {title: {"value": "By the new file"}}}})
    book(account, 2)
    assert title_of(account, provider, "1") == "Discovery Call: P1 Test"
    assert title_of(account, provider, "2") == "By the new file"
    new = account.services.mappings[provider].version
    assert versions(account) == {"1": old, "2": new} and old != new
    assert account.connection(provider).mapping_problem is None


@one
def test_a_change_takes_effect_within_one_backlog(
    account: Bridge, provider: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that changes during a backlog is used from the next batch on."""
    account.drain(warm_only=True)
    adapter = type(account.services.adapter(1))
    monkeypatch.setattr(adapter, "batch_size", 2)
    applied: list[int] = []
    original = adapter.apply

    def apply(self: Any, plan: Any, report: Any) -> None:
        original(self, plan, report)
        applied.append(len(plan.changes))
        if len(applied) == 1:
            title = DESKS[provider].field("deal", "title")
            changes = {"deal": {"fields": {title: {"value": "Changed"}}}}
            write(folder, provider, changes)

    for number in range(6):
        account.post(sample("booking_created", id=str(number), attendees=[person(number)]))
    monkeypatch.setattr(adapter, "apply", apply)
    account.settle()
    titles = [title_of(account, provider, str(number)) for number in range(6)]
    assert len(applied) >= 3
    assert titles == [f"Discovery Call: P{n} Test" for n in (0, 1)] + ["Changed"] * 4


BROKEN = {
    "no yaml": "contact: [",
    "an unknown key": "version: 1\ncrm: CRM\ncontcat: none\n",
    "an unknown path": "version: 1\ncrm: CRM\ncontact: {fields: {x: attendee.nope}}\n",
    "a template that reaches out": 'version: 1\ncrm: CRM\ncontact: {fields: {x: {template: "{{ self }}"}}}\n',
    "another CRM's": "version: 1\ncrm: other\n",
    "gone": "",
}  # fmt: skip


@one
def test_a_broken_file_is_refused_loudly(account: Bridge, provider: str, folder: Path) -> None:
    """A broken file is not used; the log, the dashboard and the check report it until it is repaired."""
    book(account, "first")
    good = account.services.mappings[provider].version
    path = folder / f"{provider}.yaml"
    for what, text in BROKEN.items():
        path.write_text(text.replace("CRM", provider), encoding="utf-8")
        if not text:
            path.unlink()
        with capture_logs() as logs:
            book(account, what)
        refused = [entry for entry in logs if entry["event"] == "mapping_refused"]
        assert refused and refused[0]["log_level"] == "error"
        assert refused[0]["version_in_use"] == good and f"{provider}.yaml" in refused[0]["problem"]
        assert title_of(account, provider, what) == f"Discovery Call: P{what} Test"
        assert versions(account)[what] == good
        problem = account.services.mappings.problem(provider)
        assert problem and problem in run(account, "check", code=1)
        assert f"{provider}.yaml" in account.client.get("/").get_data(as_text=True)
    shutil.copy(SHIPPED / f"{provider}.yaml", path)
    book(account, "last")
    assert account.services.mappings.problem(provider) is None
    run(account, "check")


def test_a_file_that_the_crm_speaks_against_is_refused_loudly(
    account: Bridge, provider: str, folder: Path
) -> None:
    """A file with a field that the account lacks is not used; the connection says why, and a
    repaired file is used again.
    """
    book(account, 1)
    good = account.services.mappings[provider].version
    path = write(folder, provider, {"deal": {"fields": {"no_such_field": "attendee.email"}}})
    with capture_logs() as logs:
        book(account, 2)
    refused = [entry for entry in logs if entry["event"] == "mapping_refused"]
    assert refused and refused[0]["log_level"] == "error" and refused[0]["version_in_use"] == good
    assert versions(account) == {"1": good, "2": good}
    assert title_of(account, provider, "2") == "Discovery Call: P2 Test"
    problem = account.connection(provider).mapping_problem
    assert problem and "has no field 'no_such_field'" in problem
    page = account.client.get("/connections/1").get_data(as_text=True)
    assert "no_such_field" in page
    assert "no_such_field" in run(account, "check", str(path), "--connection", "1", code=1)
    # A refused file is not checked again with every batch.
    calls = account.sandbox(provider).calls.copy()
    with capture_logs() as logs:
        book(account, 1)
    assert not [entry for entry in logs if entry["event"] == "mapping_refused"]
    assert account.sandbox(provider).calls == calls
    title = DESKS[provider].field("deal", "title")
    write(folder, provider, {"deal": {"fields": {title: {"value": "Mended"}}}})
    book(account, 3)
    assert title_of(account, provider, "3") == "Mended"
    assert account.connection(provider).mapping_problem is None


def test_a_worker_that_starts_keeps_the_file_that_fitted_last(
    account: Bridge, provider: str, folder: Path
) -> None:
    """A new worker uses the last file that fitted the account, and no booking fails."""
    book(account, 1)
    good = account.services.mappings[provider].version
    write(folder, provider, {"deal": {"fields": {"no_such_field": "attendee.email"}}})
    for number in (2, 3):
        account.drainer = Drainer(account.services)
        book(account, number)
        problem = account.connection(provider).mapping_problem or ""
        assert "The previous file stays in use" in problem and "no_such_field" in problem
    assert versions(account) == {"1": good, "2": good, "3": good}
    assert {row.state for row in account.deliveries()} == {"synced"}
    title = DESKS[provider].field("deal", "title")
    write(folder, provider, {"deal": {"fields": {title: {"value": "Mended"}}}})
    account.drainer = Drainer(account.services)
    book(account, 4)
    assert title_of(account, provider, "4") == "Mended"
    assert account.connection(provider).mapping_problem is None


def test_resync_applies_a_new_file_to_past_bookings(
    account: Bridge, provider: str, folder: Path
) -> None:
    """Resync plans only bookings of another version again and writes only the differences; a second
    resync makes no call.
    """
    for number in (1, 2, 3):
        book(account, number)
    sandbox = account.sandbox(provider)
    old = account.services.mappings[provider].version
    words = ("check", "--connection", "1", "--resync")
    sandbox.calls.clear()
    assert "0 bookings are synced again" in run(account, *words)
    asked = sandbox.total_calls
    account.settle()
    assert sandbox.total_calls == asked and sandbox.writes() == 0
    title = DESKS[provider].field("deal", "title")
    slug = {"template": "{{ meeting_type.slug }} {{ attendee.first_name }}"}
    write(folder, provider, {"deal": {"fields": {title: slug}}})
    book(account, 4)
    new = account.services.mappings[provider].version
    assert versions(account) == {"1": old, "2": old, "3": old, "4": new}
    before = desk_in(account).raw()
    output = run(account, *words)
    assert f"3 bookings are synced again with {provider}.yaml {new}" in output
    sandbox.calls.clear()
    account.settle()
    assert versions(account) == dict.fromkeys("1234", new)
    assert [title_of(account, provider, n) for n in "1234"] == [
        f"discovery-call P{n}" for n in "1234"
    ]
    after = desk_in(account).raw()
    assert after.keys() == before.keys()
    touched = {key for key in after if after[key] != before[key]}
    assert len(touched) == 3 and {name for name, _ in touched} == {"deal"}
    assert 0 < sandbox.writes() <= 3
    sandbox.calls.clear()
    assert "0 bookings are synced again" in run(account, *words)
    read = sandbox.total_calls
    account.settle()
    assert sandbox.total_calls == read and sandbox.writes() == 0


@one
@pytest.mark.parametrize("ending", ["synced", "failed"])
def test_resync_reaches_what_is_being_written(
    account: Bridge, provider: str, folder: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    """A resync during a write plans the batch once more with the file in use."""
    note, title = Batch.note_intents, DESKS[provider].field("deal", "title")
    slug = {"template": "{{ meeting_type.slug }}"}

    def resync_meanwhile(batch: Batch, settled: Diff) -> None:
        note(batch, settled)
        monkeypatch.setattr(Batch, "note_intents", note)
        write(folder, provider, {"deal": {"fields": {title: slug}}})
        assert "0 bookings" in run(account, "check", "--connection", "1", "--resync")
        if ending == "failed":
            batch.state.report.problems[settled.plan.changes[0].ref] = InvalidRecord("refused")

    monkeypatch.setattr(Batch, "note_intents", resync_meanwhile)
    book(account, 1)
    new = account.services.mappings[provider].version
    assert versions(account) == {"1": new}
    assert account.delivery(provider).state == "synced"
    assert title_of(account, provider, "1") == "discovery-call"


@one
def test_resync_takes_in_what_was_skipped_or_had_failed(
    account: Bridge, provider: str, folder: Path
) -> None:
    """A resync creates the records of bookings that the old file skipped or failed."""
    name = DESKS[provider].field("meeting", "where")
    strict = {"meeting": {"fields": {name: {"from": "answers.Seats", "as": "number"}}}}
    write(folder, provider, {**strict, "skip": [{"when": {"attendee.first_name": "P1"}}]})
    account.drain(warm_only=True)
    many = sample("booking_created", id="2", attendees=[person(2, notes={"Seats": "many"})])
    account.post(sample("booking_created", id="1", attendees=[person(1)]))
    account.post(many)
    account.drain()
    assert sorted(d.state for d in account.deliveries()) == ["failed", "skipped"]
    assert account.sandbox(provider).view().deals == []
    shutil.copy(SHIPPED / f"{provider}.yaml", folder / f"{provider}.yaml")
    assert "2 bookings are synced again" in run(account, "check", "--connection", "1", "--resync")
    account.settle()
    assert {d.state for d in account.deliveries()} == {"synced"}
    assert len(account.sandbox(provider).view().deals) == 2


@one
def test_resync_works_on_the_file_in_use(account: Bridge, provider: str, tmp_path: Path) -> None:
    """Resync refuses a file that is not in use, and a file with mistakes."""
    book(account, 1)
    other = write(tmp_path, provider, {"deal": "none"}, "other.yaml")
    words = ("check", str(other), "--connection", "1", "--resync")
    assert "needs the file in use" in run(account, *words, code=1)
    account.settings.mappings_dir.joinpath(f"{provider}.yaml").write_text("version: 1\n")
    run(account, "check", "--connection", "1", "--resync", code=1)
    assert {d.state for d in account.deliveries()} == {"synced"}


# Reads that write rules need

BATCHED = [name for name, desk in DESKS.items() if desk.batch_reads]


@pytest.mark.parametrize("provider", BATCHED)
def test_reads_for_if_empty_are_batched(account: Bridge, provider: str, folder: Path) -> None:
    """One read per batch is enough for `if_empty`, whatever the number of new and known contacts."""
    desk = desk_in(account)
    phone = desk.field("contact", "phone")
    rules = {"contact": {"fields": {phone: {"from": "attendee.phone", "write": "if_empty"}}},
             "company": "none"}  # fmt: skip
    write(folder, provider, rules)
    account.drain(warm_only=True)
    sandbox = account.sandbox(provider)
    number = min(account.services.adapter(1).batch_size, 60)

    def reads() -> int:
        return sum(n for call, n in sandbox.calls.items() if call.endswith(desk.batch_reads))

    def mobile(index: int, digit: int) -> str:
        return f"+49151{digit}{index:06d}"

    for index in range(number):
        theirs = {"email": f"p{index}@globex.example", "name": "Old"}
        desk.make("contact", theirs | ({"phone": mobile(index, 1)} if index % 2 else {}))
    sandbox.calls.clear()
    for index in range(number):
        people = [person(index, phone=mobile(index, 2))]
        account.post(sample("booking_created", id=str(index), attendees=people))
    account.settle()
    assert reads() == 1, sandbox.calls
    contacts = {c.email: c.phone for c in sandbox.view().contacts}
    assert contacts == {f"p{i}@globex.example": mobile(i, 1 if i % 2 else 2) for i in range(number)}
    sandbox.calls.clear()
    for index in range(number):
        later = {
            "updatedAt": "2026-11-26T00:00:00Z",
            "attendees": [person(index, phone=mobile(index, 3))],
        }
        account.post(sample("booking_created", id=str(index), **later))
    account.settle()
    assert reads() == 1, sandbox.calls
    assert {c.email: c.phone for c in sandbox.view().contacts} == contacts
