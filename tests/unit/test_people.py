"""E-mail, phone and company domain are normalised in one place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.people import company_domain, country_of, normalise_email, normalise_phone


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
    ],
)
def test_email(given_: object, email: str | None) -> None:
    """Lower case, stripped; what cannot be an address is none."""
    assert normalise_email(given_) == email


@pytest.mark.parametrize(
    ("given_", "zone", "language", "phone"),
    [
        ("+49 151 23456789", None, None, "+4915123456789"),
        ("0151 23456789", "Europe/Berlin", None, "+4915123456789"),
        ("0151 23456789", None, "de", "+4915123456789"),
        ("0664 1234567", None, "de-AT", "+436641234567"),
        ("0151 23456789", None, None, None),
        ("(415) 555-2671", "America/Los_Angeles", "en", "+14155552671"),
        ("call me", "Europe/Berlin", None, None),
        ("12", "Europe/Berlin", None, None),
    ],
)
def test_phone(given_: str, zone: str | None, language: str | None, phone: str | None) -> None:
    """E.164, the country from the time zone or the language where the number has none."""
    assert normalise_phone(given_, zone, language) == phone


def test_country() -> None:
    """The time zone says more than the language; English says nothing."""
    assert country_of("Europe/Paris", "de") == "FR"
    assert country_of(None, "en") is None
    assert country_of("Mars/Olympus", "sv") == "SE"


@pytest.mark.parametrize("email", ["a@gmail.com", "a@web.de", "a@t-online.de", "a@icloud.com"])
def test_free_mail_has_no_company(email: str) -> None:
    """A free-mail address says nothing of a company."""
    assert company_domain(email) is None


def test_company_domain() -> None:
    """Any other domain is the company's."""
    assert company_domain("a@globex.example") == "globex.example"
    assert company_domain(None) is None


@given(st.text())
def test_normalised_stays_normalised(text: str) -> None:
    """Normalising twice is normalising once."""
    email = normalise_email(text)
    assert normalise_email(email) == email
    phone = normalise_phone(text, "Europe/Berlin")
    assert normalise_phone(phone) == phone
