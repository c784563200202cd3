"""Each CRM's adapter reads the record id from the text or address that people type or paste."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.crm.lookup import Whose
from app.crm.objects import ObjectName
from app.crm.port import Access, Adapter
from config.providers import load_providers
from config.settings import CONFIG_DIR
from sandbox.salesforce import soql
from tests.bridge import ADAPTERS, ENTRIES, PROVIDERS, Bridge
from tests.contract.desk import load_desks

DESKS = load_desks()


class NoTokens:
    """Tokens for adapters that must make no call."""

    def token(self) -> str:
        raise AssertionError("a call is made for an id")

    def renewed(self, refused: str) -> str:
        raise AssertionError("a call is made for an id")

    def look_for_address(self, token: str) -> None:
        raise AssertionError("a call is made for an id")


UNCALLED: dict[str, Adapter] = {
    crm: ADAPTERS[crm](Access(DESKS[crm].called_at or entry.api_base, NoTokens()))
    for crm, entry in ENTRIES.items()
}
NAMES = st.sampled_from(ObjectName)
BITS = ["https://", "http://", "app.hubspot.com", "app-eu1.hubspot.com", "acme.pipedrive.com", "acme.my.salesforce.com",
        "/", "contacts", "/record/", "0-1", "0-3", "/deal/", "/person/", "lightning/r/", "Contact", "/view", "view", "?x=2", "#5", "@",
        "12", "0012", "003000000000001AAA", "003000000000001AAB", "006Ab000001CdEfGHI", "²", "９", " ", "\n", "[", "]", ":", "%", "\x00", "'"]  # fmt: skip
TYPED = st.one_of(
    st.text(max_size=60),
    st.lists(st.sampled_from(BITS), max_size=12).map("".join),
    st.from_regex(r"https?://[a-z.]{1,20}/\S{0,40}", fullmatch=True),
)


@pytest.mark.parametrize("crm", PROVIDERS)
@given(name=NAMES, text=TYPED)
def test_any_text_gives_an_id_of_the_right_form_or_nothing(
    crm: str, name: ObjectName, text: str
) -> None:
    """Any text gives an id that the CRM accepts, or nothing."""
    adapter = UNCALLED[crm]
    if name not in adapter.shape.objects:
        return
    found = adapter.record_id_in(name, text)
    if not found:
        return
    if adapter.shape.is_in_inbox(name, found):
        return
    assert DESKS[crm].is_id(name, found)
    # The id is in the text as a whole, never as a part of a longer number.
    assert found[:15] in text
    if found.isdigit():
        assert re.search(f"(?<![0-9]){found}(?![0-9])", text)
        assert found not in re.split(r"[?]", text, maxsplit=1)[1:]


@pytest.fixture(scope="module")
def connected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Adapter]]:
    """Adapters connected to sandbox accounts."""
    path = tmp_path_factory.mktemp("named") / "bridge.sqlite3"
    bridge = Bridge(f"sqlite:///{path}").connect_all()
    adapters = {crm: bridge.services.adapter(bridge.connection(crm).id) for crm in PROVIDERS}
    for adapter in adapters.values():
        adapter.whoami()
    yield adapters
    bridge.close()


@pytest.mark.parametrize("crm", PROVIDERS)
@given(name=NAMES, other=NAMES, number=st.integers(1, 10**15 - 1))
def test_the_address_that_an_adapter_gives_is_read_back(
    connected: dict[str, Adapter], crm: str, name: ObjectName, other: ObjectName, number: int
) -> None:
    """An adapter reads its own link back, with any suffix, and only for the right object."""
    adapter = connected[crm]
    if {name, other} - set(adapter.shape.objects):
        return
    record_id = DESKS[crm].made_up_id(name, number)
    address = adapter.url_for(name, record_id)
    assert adapter.record_id_in(name, address) == record_id
    assert adapter.record_id_in(name, f" {address}\n") == record_id
    assert adapter.record_id_in(name, record_id) == record_id
    if "#" not in address:
        assert adapter.record_id_in(name, f"{address}?engagement=77#more/78") == record_id
    if other is not name:
        assert adapter.record_id_in(other, address) == ""
    elsewhere = re.sub("(?<=://)[^/]+", "crm.example", address)
    assert adapter.record_id_in(name, elsewhere) == ""
    for stranger, their in connected.items():
        if stranger != crm and name in their.shape.objects:
            assert their.record_id_in(name, address) == ""


@pytest.mark.parametrize("crm", PROVIDERS)
def test_links_lead_to_the_pages_that_the_environment_names(crm: str) -> None:
    """With <CRM>_WEB_BASE, links open there and are read back, and so are those of the usual host."""
    path, web = CONFIG_DIR / "providers.yaml", "https://crm.acme.example:444"
    entry = load_providers(path, {f"{crm.upper()}_WEB_BASE": f"{web}/"})[crm]
    base = DESKS[crm].called_at or entry.api_base
    moved = ADAPTERS[crm](Access(base, NoTokens(), web_base=entry.web_base))
    for name in moved.shape.objects:
        record_id = DESKS[crm].made_up_id(name, 77)
        usual, address = UNCALLED[crm].url_for(name, record_id), moved.url_for(name, record_id)
        assert address.startswith(f"{web}/")
        assert moved.record_id_in(name, address) == record_id
        assert moved.record_id_in(name, usual) == record_id
        assert UNCALLED[crm].record_id_in(name, address) == ""


READ = [
    ("hubspot", "deal", "https://app.hubspot.com/contacts/4711/record/0-3/9/view/1", "9"),
    ("hubspot", "deal", "https://app-eu1.hubspot.com/contacts/4711/record/0-3/9/?interaction=note&x=3", "9"),
    ("hubspot", "deal", "https://app.hubspot.com/contacts/4711/deal/9", "9"),
    ("hubspot", "contact", "HTTPS://APP.hubspot.com/contacts/4711/contact/9/?engagement=8", "9"),
    ("hubspot", "company", "https://app.hubspot.com/contacts/4711/company/9", "9"),
    ("hubspot", "deal", "https://app.hubspot.com/contacts/4712/record/0-3/9", ""),
    ("hubspot", "deal", "https://app.hubspot.com/contacts/4711/record/0-1/9", ""),
    ("hubspot", "deal", "https://app.hubspot.com/contacts/4711/record/0-3/9x", ""),
    ("hubspot", "deal", "https://app.hubspot.com:444/contacts/4711/record/0-3/9", ""),
    ("hubspot", "deal", "https://app.hubspot.com@evil.example/contacts/4711/record/0-3/9", ""),
    ("hubspot", "deal", "https://evil.example/?u=https://app.hubspot.com/contacts/4711/record/0-3/9", ""),
    ("hubspot", "deal", "0-3/9", ""),
    ("hubspot", "deal", "007", ""),
    ("hubspot", "deal", "9" * 19, ""),
    ("pipedrive", "deal", "https://acme.example.pipedrive.com/deal/9", ""),
    ("pipedrive", "deal", "{own}/deal/9?scroll=2", "9"),
    ("pipedrive", "deal", "{own}/deal/9/#notes", "9"),
    ("pipedrive", "contact", "{own}/person/9", "9"),
    ("pipedrive", "company", "{own}/organization/9", "9"),
    ("pipedrive", "deal", "{own}/person/9", ""),
    ("pipedrive", "deal", "{own}/deal/9/10", ""),
    ("pipedrive", "deal", "{own}/deals?id=9", ""),
    ("pipedrive", "deal", "https://another.pipedrive.com/deal/9", ""),
    ("pipedrive", "deal", "²", ""),
    ("salesforce", "contact", "003000000000001", "003000000000001AAA"),
    ("salesforce", "contact", "003000000000001AAA", "003000000000001AAA"),
    ("salesforce", "contact", "003000000000001AAB", ""),
    ("salesforce", "contact", "006000000000001AAA", ""),
    ("salesforce", "lead", "00Q000000000001", "00Q000000000001EAA"),
    ("salesforce", "contact", "https://acme.lightning.force.com/lightning/r/Contact/003000000000001AAA/view?x=1", "003000000000001AAA"),
    ("salesforce", "contact", "https://acme.my.salesforce.com/lightning/r/003000000000001AAA/view", "003000000000001AAA"),
    ("salesforce", "contact", "https://eu5.salesforce.com/003000000000001", "003000000000001AAA"),
    ("salesforce", "contact", "https://acme.lightning.force.com/lightning/r/Account/003000000000001AAA/view", ""),
    ("salesforce", "contact", "https://force.com.evil.example/003000000000001", ""),
    ("salesforce", "contact", "https://evilforce.com/003000000000001", ""),
    ("salesforce", "contact", "https://acme.my.salesforce.com/?id=003000000000001", ""),
    ("salesforce", "contact", "no idea", ""),
]  # fmt: skip


@pytest.mark.parametrize(("crm", "name", "text", "found"), READ, ids=lambda value: str(value)[:60])
def test_forms_of_address(
    connected: dict[str, Adapter], crm: str, name: str, text: str, found: str
) -> None:
    """The adapters read all link forms of the CRMs' own pages; only the path and the right object
    count.
    """
    adapter = connected[crm]
    own = adapter.url_for(ObjectName.DEAL, "1").removesuffix("/deal/1")
    assert adapter.record_id_in(ObjectName(name), text.replace("{own}", own)) == found


@pytest.mark.parametrize("asked", ["no idea", "1007", "003000000000001AAB", "00300000000000", ""])
def test_the_sandbox_refuses_a_query_for_what_is_no_id(asked: str) -> None:
    """The sandbox refuses such a query like the real Salesforce, in Id and in every reference column."""
    rows = {"003000000000001AAA": {"Id": "003000000000001AAA", "AccountId": "001000000000001AAA"}}
    tables, fields = {"Contact": rows}, {"Contact": {"AccountId", "Email"}}

    def run(where: str) -> int:
        query = f"SELECT Id FROM Contact WHERE {where}"
        return len(soql.run(query, tables, fields, lambda _, name: name == "AccountId"))

    for column in ("Id", "AccountId"):
        with pytest.raises(soql.NoId):
            run(f"{column} IN ('003000000000001', '{asked}')")
    assert run(f"Email = '{asked}'") == (asked == "")
    assert run("Id IN ('003000000000001')") == run("AccountId = '001000000000001AAA'") == 1


@pytest.mark.parametrize(
    ("addresses", "domains", "theirs"),
    [
        (["KIM@globex.example"], [], True),
        (["kim.private@gmail.com", "kim@globex.example"], [], True),
        (["ann@globex.example"], [], True),
        (["ann@sub.globex.example"], [], False),
        (["ann@not-globex.example"], ["globex.example.evil.example"], False),
        (["lou@lang.example"], ["lang.example", "globex.example"], True),
        ([None, "", "no address"], ["", "."], False),
    ],
)
def test_whose_a_record_is(addresses: list[str | None], domains: list[str], theirs: bool) -> None:
    """A record belongs to a person by the address, or by its whole domain or the company's."""
    assert Whose("kim@globex.example", "globex.example").owns(addresses, domains) is theirs


@given(st.lists(st.text(max_size=30)), st.lists(st.text(max_size=30)))
def test_who_gave_no_address_owns_nothing(addresses: list[str], domains: list[str]) -> None:
    """A person without an address owns no record."""
    assert not Whose().owns(["", "x@gmail.com", *addresses], ["", *domains])


LEAD = "adf21080-0e10-11eb-879b-05d71fb426ec"
"""An example id from https://developers.pipedrive.com/docs/api/v1/Leads#getLead"""


def test_a_lead_of_the_inbox_is_named_as_a_deal_is(connected: dict[str, Adapter]) -> None:
    """A Pipedrive deal that is still a lead is named by the lead's page, and no other object is."""
    adapter = connected["pipedrive"]
    address = adapter.url_for(ObjectName.DEAL, LEAD)
    assert address.endswith(f".pipedrive.com/leads/inbox/{LEAD}")
    for text in (LEAD, f" {LEAD}\n", address, f"{address}?notes=1#2"):
        assert adapter.record_id_in(ObjectName.DEAL, text) == LEAD
        assert adapter.record_id_in(ObjectName.CONTACT, text) == ""
        assert connected["hubspot"].record_id_in(ObjectName.DEAL, text) == ""
        assert connected["salesforce"].record_id_in(ObjectName.DEAL, text) == ""
    wrong = (
        LEAD[:-1],
        f"{LEAD}0",
        f"{address}/x",
        address.replace("/inbox/", "/archive/"),
        address.replace(".pipedrive.com", ".pipedrive.com.example"),
        address.replace("/leads/inbox/", "/deal/"),
    )
    for text in wrong:
        assert adapter.record_id_in(ObjectName.DEAL, text) == "", text
