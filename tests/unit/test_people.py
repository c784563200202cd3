"""E-mail, phone and company domain are normalised in one place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.people import (
    company_domain,
    country_of,
    is_address,
    is_under,
    normalise_email,
    normalise_phone,
    read_email,
)
from config.companies import DOMAINS_FILE, no_company_domains


@pytest.mark.parametrize(
    ("given_", "email"),
    [
        (" Jane@Example.COM ", "jane@example.com"),
        ("jane+demo@x.example", "jane+demo@x.example"),
        ("jane", None),
        ("jane@localhost", None),
        ("a b@x.example", None),
        ("a@x..example", None),
        ("", None),
        (None, None),
        (["a@x.example"], None),
        ("Jane Holm <jane@x.example>", "jane@x.example"),
        ('"Holm, Jane" <Jane@x.example>;', "jane@x.example"),
        ("jane@x.example <mailto:jane@x.example>", "jane@x.example"),
        ("jane@x.example (Jane Holm)", "jane@x.example"),
        ("<jane@x.example>", "jane@x.example"),
        ("mailto:jane%2Bdemo@x.example?subject=hello", "jane+demo@x.example"),
        ("MAILTO:jane@x.example", "jane@x.example"),
        ("jane@x.example.", "jane@x.example"),
        ("'jane@x.example',", "jane@x.example"),
        ("„jane@x.example“", "jane@x.example"),
        ("\u00a0jane@x.example\u3000", "jane@x.example"),
        ("ｊａｎｅ＠ｘ．example", "jane@x.example"),
        ("jane@x。example", "jane@x.example"),
        ("o'brien@x.example", "o'brien@x.example"),
        ("Info@Käse-Müller.example", "info@xn--kse-mller-v2a2y.example"),
        ("info@Ka\u0308se-Mu\u0308ller.example", "info@xn--kse-mller-v2a2y.example"),
        ("info@XN--KSE-MLLER-V2A2Y.example", "info@xn--kse-mller-v2a2y.example"),
        ("a@straße.example", "a@xn--strae-oqa.example"),
        ("Jo\u0308rg@x.example", "jörg@x.example"),
        ("用户@例子.广告", "用户@xn--fsqu00a.xn--4rr70v"),
        ("mailto://jane@x.example", "jane@x.example"),
        ("ja\u00adne@x.exam\u00adple", "jane@x.example"),
        ("\u061cjane\u180e@x\ufe0f.exam\u034fple\U000e0020", "jane@x.example"),
        ("ja\u200dne@x.exam\u200cple", "jane@x.example"),
        ("<jane@x.example", "jane@x.example"),
        ("jane@x.example>", "jane@x.example"),
        ("Jane Holm <jane@x.example", "jane@x.example"),
        ("[jane@x.example", "jane@x.example"),
        ("jane@x.example)", "jane@x.example"),
        ("jane@x.example。", "jane@x.example"),
        ("jane@x.example．", "jane@x.example"),
        ("jane@x.example、", "jane@x.example"),
        ("jane@x.example!", "jane@x.example"),
        ("E-Mail: jane@x.example", "jane@x.example"),
        ("email:jane@x.example", "jane@x.example"),
        ("Correo electrónico： jane@x.example", "jane@x.example"),
        ("Mail: mailto:jane@x.example", "jane@x.example"),
        ("E-Mail: Jane Holm <jane@x.example>", "jane@x.example"),
        ("jane&#64;x.example", "jane@x.example"),
        ("&lt;jane&#x40;x&period;example&gt;&nbsp;", "jane@x.example"),
        ("R&D@x.example", "r&d@x.example"),
        ("https://jane@x.example", None),
        ("sip:jane@x.example", None),
        ("E-Mail: a@x.example, b@x.example", None),
        ("a@x.example, b@x.example", None),
        ("a@x.example <b@x.example>", None),
        ("Jane jane@x.example", None),
        ("jane@", None),
        ("@x.example", None),
        ("a@☃.example", None),
        ("=cmd|x!a0@x.example", None),
        ("(" * 90_000 + "a@x.example", None),
    ],
)
def test_email(given_: object, email: str | None) -> None:
    """An address is read from a pasted text, in lower case with its domain in ASCII; other text
    gives none.
    """
    assert normalise_email(given_) == email


@pytest.mark.parametrize(
    ("given_", "name"),
    [
        ("Jane Holm <jane@x.example>", "Jane Holm"),
        ('"Holm, Jane" <jane@x.example>', "Holm, Jane"),
        ("jane@x.example (Jane Holm)", "Jane Holm"),
        ("jane@x.example <jane@x.example>", None),
        ("Jane Holm &lt;jane@x.example&gt;", "Jane Holm"),
        ("E-Mail: Jane Holm <jane@x.example", "Jane Holm"),
        ("E-Mail: <jane@x.example>", None),
        ("<jane@x.example>", None),
        ("jane@x.example", None),
        ("Jane Holm <jane>", None),
    ],
)
def test_the_name_beside_an_address(given_: str, name: str | None) -> None:
    """The name that a mail program puts beside an address is read, and no other text."""
    assert read_email(given_)[1] == name


def test_is_address() -> None:
    """Only a text that is exactly one address counts as an address, which must not be cut."""
    assert is_address("jane@x.example")
    assert is_address("info@käse-müller.example")
    assert not is_address("Jane Holm <jane@x.example>")
    assert not is_address("write to jane@x.example.")


def test_below_a_domain() -> None:
    """A subdomain counts as the domain; a domain that only ends alike does not."""
    domains = {"relay.example", "x.test"}
    assert is_under("relay.example", domains)
    assert is_under("ida.relay.example", domains)
    assert not is_under("myrelay.example", domains)
    assert not is_under("example", domains)


def test_the_file_of_domains_is_good() -> None:
    """Each line of the file is a domain, appears once, and is not already in the package."""
    lines = DOMAINS_FILE.read_text(encoding="utf-8").splitlines()
    listed = [line for line in lines if line and not line.startswith("#")]
    assert len(listed) == len(set(listed)) == len(no_company_domains(""))
    for domain in set(listed) - {"duck.com"}:
        assert company_domain(f"a@{domain}"), domain
    assert {"extra.example", "xn--mller-kva.example"} <= no_company_domains(
        " @Extra.example, *.müller.example"
    )


@pytest.mark.parametrize(
    ("given_", "zone", "language", "phone"),
    [
        ("+49 151 23456789", None, None, "+4915123456789"),
        ("0151 23456789", "Europe/Berlin", None, "+4915123456789"),
        ("0151 23456789", None, "de", "+4915123456789"),
        ("0664 1234567", None, "de-AT", "+436641234567"),
        ("0151 23456789", None, None, None),
        ("(415) 555-2671", "America/Los_Angeles", "en", "+14155552671"),
        ("49 151 23456789", "Europe/Berlin", "de", "+4915123456789"),
        ("(49) 151/23456789", "Europe/Berlin", "de", "+4915123456789"),
        ("0049 151 23456789", "Europe/Berlin", "de", "+4915123456789"),
        ("49 30 901820", "Europe/Berlin", "de", "+4930901820"),
        ("43 664 1234567", "Europe/Vienna", "de", "+436641234567"),
        ("43 664 1234567", "Europe/Paris", "fr", "+436641234567"),
        ("49 151 23456789", "America/Los_Angeles", "en", "+4915123456789"),
        ("1 415 555 2671", "America/Los_Angeles", "en", "+14155552671"),
        # Also valid national numbers: 04931 is Norden, 0491 is Leer, 04179 is near Winsen, 393 an
        # Italian mobile.
        ("04931 123456", "Europe/Berlin", "de", "+494931123456"),
        ("4931 123456", "Europe/Berlin", "de", "+494931123456"),
        ("0491 51234567", "Europe/Berlin", "de", "+4949151234567"),
        ("491 51234567", "Europe/Berlin", "de", "+4949151234567"),
        ("41 79 123 45 67", "Europe/Berlin", "de", "+4941791234567"),
        ("393 123 4567", "Europe/Rome", "it", "+393931234567"),
        ("49 151 23456789", None, None, None),
        ("call me", "Europe/Berlin", None, None),
        ("12", "Europe/Berlin", None, None),
    ],
)
def test_phone(given_: str, zone: str | None, language: str | None, phone: str | None) -> None:
    """A phone number becomes E.164; a missing country code follows from the time zone or the language."""
    assert normalise_phone(given_, zone, language) == phone


def test_country() -> None:
    """The time zone decides before the language, and English gives no country."""
    assert country_of("Europe/Paris", "de") == "FR"
    assert country_of(None, "en") is None
    assert country_of("Mars/Olympus", "sv") == "SE"


@pytest.mark.parametrize("email", ["a@gmail.com", "a@web.de", "a@t-online.de", "a@icloud.com"])
def test_free_mail_has_no_company(email: str) -> None:
    """A free-mail address gives no company."""
    assert company_domain(email) is None


def test_company_domain() -> None:
    """Any other domain is the company's domain."""
    assert company_domain("a@globex.example") == "globex.example"
    assert company_domain(None) is None


parts = st.text(alphabet="aÄ@.<>()[] ,;:'\"mailto%40éß-＠。İǰ\u0308", max_size=24)


@given(st.text() | parts | parts.map(lambda local: f"{local}@x.example"))
def test_normalised_stays_normalised(text: str) -> None:
    """Normalising a second time changes nothing."""
    email = normalise_email(text)
    assert normalise_email(email) == email
    phone = normalise_phone(text, "Europe/Berlin")
    assert normalise_phone(phone) == phone
