"""docs/mappings.md as a reader follows it: every command runs and prints the output on the page."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.domain.booking import MeetingOutcome
from app.mapping.check import Complaint, check_against
from app.mapping.load import MappingText
from config.settings import CONFIG_DIR
from tests import guide
from tests.bridge import ENTRIES, Bridge, sample

WIDTH = 100
"""The terminal's columns for the output on the page."""
LEFT_OUT = "..."
"""A line of the page's output that stands for any number of lines."""
DEMO = {"slug": "demo", "meetingInfo": {"name": "Product demo"}}


class Reader:
    """A reader who types the page's commands in an empty folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._bridge: Bridge | None = None
        shutil.copytree(CONFIG_DIR / "mappings", folder / "config" / "mappings")
        for name in ("draft.yaml", "payload.json"):
            (folder / name).write_text(guide.file(name), encoding="utf-8")

    @property
    def bridge(self) -> Bridge:
        """Return the service, started after the reader made the mapping files, with one booking."""
        if self._bridge is None:
            url, files = f"sqlite:///{self.folder}/bridge.sqlite3", self.folder / "mappings"
            self._bridge = Bridge(url, ("hubspot",), mappings_dir=files).connect_all()
            self._bridge.sync(sample("booking_created", meetingType=DEMO))
        return self._bridge

    def type(self, command: str, answers: str) -> str:
        """Run one command; `answers` reply to its questions."""
        if not command.startswith("bridge "):
            made = subprocess.run(
                ["bash", "-c", command], cwd=self.folder, capture_output=True, text=True
            )
            assert made.returncode == 0, made.stderr
            # The reader edits the copy of the default file into the file on the page.
            if command.endswith(" draft.yaml") and command.startswith("cp "):
                (self.folder / "draft.yaml").write_text(guide.file("draft.yaml"), encoding="utf-8")
            return made.stdout
        words, _, target = command.partition(" > ")
        arguments = shlex.split(words)
        runner = self.bridge.app.test_cli_runner(env={"COLUMNS": str(WIDTH)})
        answer = runner.invoke(args=arguments[1:], input=answers)
        assert answer.exception is None or isinstance(answer.exception, SystemExit)
        if target:
            (self.folder / target).write_text(answer.output, encoding="utf-8")
            return ""
        return answer.output

    def read(self, block: guide.Block) -> Iterator[tuple[str, str, str]]:
        """Type the commands of a block; return each with the expected and the actual output."""
        for part in re.split(r"^\$ ", block.text, flags=re.M)[1:]:
            command, _, wanted = part.partition("\n")
            asked = re.findall(r"\]: (\w+)$", wanted, re.M)
            yield command, wanted, self.type(command, "".join(f"{a}\n" for a in asked))

    def close(self) -> None:
        """Stop the service."""
        if self._bridge:
            self._bridge.close()


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    """A reader in an empty folder."""
    monkeypatch.chdir(tmp_path)
    made = Reader(tmp_path)
    yield made
    made.close()


def plain(text: str) -> str:
    """Return output without differences between runs: versions, and blanks at the ends of lines."""
    text = re.sub(r"\b[0-9a-f]{12}\b", "<version>", text)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def fits(wanted: str, came: str) -> bool:
    """Whether the actual output matches the output on the page, as far as the page shows it."""
    first, *others = re.split(rf"^{re.escape(LEFT_OUT)}$", plain(wanted), flags=re.M)
    left = plain(came)
    if not left.startswith(first) or not (others or left == first):
        return False
    left = left[len(first) :]
    for part in others[:-1]:
        left = left.partition(part)[2]
    return not others or left.endswith(others[-1])


def test_the_guide_is_true_from_beginning_to_end(reader: Reader) -> None:
    """Every command prints the output on the page, and the final mapping works as promised."""
    commands = 0
    for block in guide.blocks("console"):
        for command, wanted, came in reader.read(block):
            commands += 1
            assert fits(wanted, came), f"line {block.line}: $ {command}\n{came}"
        if "cp draft.yaml mappings/hubspot.yaml" in block.text:
            reader.bridge.sync(json.loads(guide.file("payload.json")))
    assert commands > 12
    bridge = reader.bridge
    bridge.settle()
    portal = bridge.sandbox("hubspot").records
    goals = [record["properties"].get("goal") for record in portal["contacts"].values()]
    assert "Fewer no-shows" in goals
    deals = {r["properties"]["dealname"]: r["properties"] for r in portal["deals"].values()}
    anna = deals["Product demo: Anna Schmidt"]
    assert (anna["amount"], anna["dealstage"]) == ("25000", "demobooked")
    # --resync has brought the earlier booking along.
    assert deals["Product demo: Jane van der Berg"]["dealstage"] == "demobooked"
    held = [r["properties"]["hs_meeting_outcome"] for r in portal["meetings"].values()]
    assert sorted(held) == ["COMPLETED", "SCHEDULED"]
    version = bridge.services.mappings["hubspot"].version
    assert {delivery.mapping_version for delivery in bridge.deliveries()} == {version}
    assert '"$schema"' in (reader.folder / "mappings" / "schema.json").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def accounts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    """One account of each CRM, for reading only."""
    folder = tmp_path_factory.mktemp("accounts")
    made = Bridge(f"sqlite:///{folder}/bridge.sqlite3").connect_all()
    yield made
    made.close()


@pytest.mark.parametrize("block", guide.fragments(), ids=lambda block: f"line {block.line}")
def test_every_fragment_fits_an_account(accounts: Bridge, block: guide.Block) -> None:
    """Each example is valid for the account, except for custom fields that do not exist yet."""
    crm = block.about or "hubspot"
    text = block.text if "version:" in block.text else guide.whole(block.text, crm)
    mapping = MappingText("x.yaml", text, crm).mapping
    assert mapping is not None
    adapter = accounts.services.adapter(accounts.connection(crm).id)
    found: list[Complaint] = check_against(mapping, adapter.shape, adapter.directory())
    assert [c.message for c in found if c.missing is None] == []


(COSTS,) = guide.tables("mapping")
TITLES = guide.listed_titles("Number of calls to")
TOLD = tuple(name for title in TITLES for name, entry in ENTRIES.items() if entry.title == title)
"""The CRMs whose calls the page tells, in its order."""
STEPS = ("booking_created", "booking_rescheduled", "booking_cancelled", "again")


def free_mail(step: str) -> dict[str, Any]:
    again = {"id": "again", "updatedAt": "2026-11-28T00:00:00Z"} if step == "again" else {}
    payload = sample("booking_created" if again else step, **again)
    payload["attendees"][0]["email"] = "jane.van.der.berg@gmail.com"
    return payload


@pytest.mark.parametrize("row", COSTS, ids=lambda row: row[0])
def test_a_mapping_costs_the_calls_that_the_page_says(tmp_path: Path, row: list[str]) -> None:
    """Each row's number of calls is measured at the sandboxes; a dash means that the CRM cannot do it."""
    fragment = "".join(guide.code(row[0]))
    files = Path(shutil.copytree(CONFIG_DIR / "mappings", tmp_path / "mappings"))
    dashes = dict(zip(TOLD, row[1].split(" / "), strict=True))
    able = tuple(name for name in TOLD if dashes[name] != "–")
    for name in able:
        (files / f"{name}.yaml").write_text(guide.whole(fragment, name), encoding="utf-8")
    url = f"sqlite:///{tmp_path}/bridge.sqlite3"
    bridge = Bridge(url, able, mappings_dir=files).connect_all()
    measured = []
    for step in STEPS:
        for served in bridge.served.values():
            served.sandbox.calls.clear()
        bridge.sync(free_mail(step))
        assert {d.state for d in bridge.deliveries()} == {"synced"}
        calls = {name: str(bridge.sandbox(name).total_calls) for name in able}
        measured.append(" / ".join(calls.get(name, "–") for name in TOLD))
    bridge.close()
    assert measured == row[1:]


def test_outcomes_are_taken_by_the_words_of_the_page(accounts: Bridge) -> None:
    """The command accepts held, no_show and none, and refuses other words by name."""
    accounts.post(sample("booking_created"))
    key = sample("booking_created")["id"]
    runner = accounts.app.test_cli_runner()
    for word in (*(item.value for item in MeetingOutcome), "none"):
        answer = runner.invoke(args=["bookings", "outcome", key, word])
        assert answer.output == f"{word}: workers now write it to the CRMs.\n"
    assert runner.invoke(args=["bookings", "outcome", key, "maybe"]).exit_code == 2
    assert "no booking" in runner.invoke(args=["bookings", "outcome", "x", "held"]).output
