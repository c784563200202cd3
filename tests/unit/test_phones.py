"""A phone number matches itself in every spelling, and no other number."""

from __future__ import annotations

import phonenumbers
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from phonenumbers import PhoneNumberFormat, PhoneNumberType

from app.domain.countries import read_country
from app.domain.people import normalise_phone
from app.domain.phones import digit_forms, is_number, last_digits, usual_spellings

MOBILE = "+4915123456781"
ZONES = ("Europe/Berlin", "America/New_York", "Australia/Sydney", "America/Sao_Paulo", None)


def examples() -> list[tuple[str, str]]:
    """Return every country with a mobile and a landline number, in E.164."""
    kinds = (PhoneNumberType.MOBILE, PhoneNumberType.FIXED_LINE)
    found = [
        (country, phonenumbers.example_number_for_type(country, kind))
        for country in sorted(phonenumbers.SUPPORTED_REGIONS)
        for kind in kinds
    ]
    e164 = PhoneNumberFormat.E164
    return [(country, phonenumbers.format_number(one, e164)) for country, one in found if one]


EXAMPLES = examples()


@st.composite
def spelt(draw: st.DrawFn) -> tuple[str, str, str, bool]:
    """Draw a country, its number (E.164), the number in a spelling, and whether this has the
    country code.
    """
    country, number = draw(st.sampled_from(EXAMPLES))
    parsed = phonenumbers.parse(number)
    written = phonenumbers.format_number(parsed, PhoneNumberFormat.NATIONAL)
    digits = "".join(filter(str.isdigit, written))
    starts = {"+": number[1:], "00": number[1:], "": digits}
    start = draw(st.sampled_from(sorted(starts)))
    blank = st.sampled_from(["", "", " ", "-", ".", "/", " - ", "\u00a0", ") ", " ("])
    body = starts[start]
    text = start + body[0] + "".join(draw(blank) + digit for digit in body[1:])
    before = draw(st.sampled_from(["", "Tel.: ", "Mobile ", "tel:", "("]))
    behind = draw(st.sampled_from(["", " (mobile)", " privat", ".", " "]))
    return country, number, before + text + behind, bool(start)


@given(spelt(), st.lists(st.sampled_from(["DE", "US", "AU", "CH", None]), max_size=3))
def test_every_spelling_is_found(one: tuple[str, str, str, bool], others: list[str | None]) -> None:
    """A number is found in every spelling, with and without the code, whatever separates its digits."""
    country, number, text, _ = one
    assert is_number(text, number, country, others)
    assert is_number(text, number, None, others)


@given(spelt(), st.sampled_from(ZONES))
def test_every_spelling_is_one_person(one: tuple[str, str, str, bool], zone: str | None) -> None:
    """A number with the code is the same person in every spelling and every country."""
    _, number, text, with_code = one
    assume(with_code)
    assert normalise_phone(text, zone) == number


@given(spelt(), st.sampled_from(EXAMPLES), st.booleans())
def test_no_other_number_is_found(
    one: tuple[str, str, str, bool], other: tuple[str, str], known: bool
) -> None:
    """If the code or the country is known, a number never matches one of another country."""
    country, number, text, with_code = one
    assume(number != other[1] and (with_code or known))
    assert not is_number(text, other[1], country if known else None)


@given(spelt(), st.integers(0, 99_999))
def test_an_extension_is_no_such_number(one: tuple[str, str, str, bool], extension: int) -> None:
    """A switchboard's number does not match the extension behind it."""
    country, number, _, _ = one
    assert not is_number(f"{number} ext. {extension}", number, country)
    assert not is_number(f"{number} x{extension}", number)


@given(st.text(), st.sampled_from(EXAMPLES), st.sampled_from(["DE", "ZZ", "", None]))
def test_anything_may_stand_there(text: str, one: tuple[str, str], own: str | None) -> None:
    """Any text in a CRM's field is read without an error, and a text without digits gives no number."""
    found = is_number(text, one[1], own, [own])
    assert not found or sum(sign.isdecimal() for sign in text) >= 5


@given(spelt())
def test_what_is_looked_for_finds_it(one: tuple[str, str, str, bool]) -> None:
    """Each spelling contains the last digits in order, and its digits are among the searched forms."""
    _, number, text, _ = one
    digits = "".join(str(int(sign)) for sign in text if sign.isdecimal())
    assert last_digits(number, 4) in digits
    assert last_digits(number, 8).endswith(last_digits(number, 4))
    assert digits in digit_forms(number)
    assert usual_spellings(number)[0] == number
    assert len(usual_spellings(number)) <= 10 >= len(digit_forms(number, ["US", "AU"]))
    assert all(is_number(form, number, one[0]) for form in usual_spellings(number)[:3])


@pytest.mark.parametrize(
    "text",
    [
        "+4915123456781",
        "+49 151 23456781",
        "0151 23456781",
        "(0151) 2345-6781",
        "0049 151 23456781",
        "015123456781",
        "4915123456781",
        "+49 (0) 151 23456781",
        "0151 23456781 (mobil)",
        "\uff0b49 151 23456781",
        "٠١٥١ ٢٣٤٥٦٧٨١",
    ],
)
def test_spellings_of_a_german_number(text: str) -> None:
    """A German number is found in every usual spelling, in an account of any country."""
    assert is_number(text, MOBILE)
    assert is_number(text, MOBILE, None, ["US", "AT"])


@pytest.mark.parametrize(
    ("text", "own", "others"),
    [
        ("+43 151 23456781", None, ()),
        ("0043 151 23456781", "DE", ()),
        ("+1 512 345 6781", "DE", ()),
        ("1-512-345-6781", None, ("US",)),
        ("15123456781", None, ("DE",)),
        ("(512) 345-6781", None, ("US",)),
        ("0151 23456781", "AT", ("DE",)),
        ("0151 23456781 ext. 22", None, ()),
        ("+49 151 23456781;ext=22", None, ()),
        ("0151 23456781-0", None, ()),
        ("23456781", None, ()),
        ("0151 23456781 / 030 901820", None, ()),
        ("0151 23456781" + " " * 10 + "x" * 100, None, ()),
        ("call me", None, ()),
        ("", None, ()),
        (None, None, ()),
        (["0151 23456781"], None, ()),
    ],
)
def test_other_numbers(text: object, own: str | None, others: tuple[str, ...]) -> None:
    """Another country's number, an extension and an unreadable text match nobody."""
    assert not is_number(text, MOBILE, own, others)


def test_countries_in_their_order() -> None:
    """The person's country counts first if the number is valid there; the account's country gives
    the prefix for foreign numbers.
    """
    assert is_number("0151 23456781", MOBILE, "US", ["AT"]), "it is no number of the USA"
    assert is_number("15123456781", MOBILE, "DE"), "what he lacks is the zero"
    assert is_number("011 49 151 23456781", MOBILE, None, [None, "US"])
    assert not is_number("011 49 151 23456781", MOBILE, None, ["AT"])
    assert is_number("001 212 555 0123", "+12125550123", None, ["DE"])
    assert {"011" + MOBILE[1:], "00" + MOBILE[1:]} <= {*digit_forms(MOBILE, ["US", None, "ZZ"])}


@pytest.mark.parametrize(
    ("text", "country"),
    [
        ("DE", "DE"), ("de", "DE"), ("DEU", "DE"), ("Germany", "DE"), ("Deutschland", "DE"),
        (" Österreich ", "AT"), ("USA", "US"), ("UK", "GB"), ("United States", "US"),
        ("Suisse", "CH"), ("Schweiz", "CH"), ("España", "ES"), ("日本", "JP"),
        ("nowhere", None), ("", None), (None, None), (49, None), ("001", None),
    ],
)  # fmt: skip
def test_countries_by_name(text: object, country: str | None) -> None:
    """A country is read from its codes, and from its name in English, German and its own languages."""
    assert read_country(text) == country
