"""Reads phone numbers in whatever spelling, and says whether what stands in a CRM is one number."""

from __future__ import annotations

import re
from collections.abc import Iterable

import phonenumbers
from phonenumbers import PhoneNumberFormat, PhoneNumberType

from app.domain.text import one_line

_LONGEST = 100
"""Signs of a number with its label; what is longer is a note and no number."""
_SHORTEST_TAIL = 4
_PLUS = re.compile("[+\uff0b]")


def read_number(text: str, country: str | None) -> phonenumbers.PhoneNumber | None:
    """Read a number as one of a country (ISO), unless its own code stands before it.

    None where it cannot be one. Words behind it (`mobile`) are no part of it, an extension is.
    """
    ending = re.search(r"\D+\Z", text)
    # Letters may stand for digits (1-800-FLOWERS): they are read where nothing else can be.
    for form in (text[: ending.start()] if ending else text, text):
        number = _read(form, country)
        if number and phonenumbers.is_possible_number(number):
            return number
    return None


def e164_of(number: phonenumbers.PhoneNumber) -> str:
    """A number in E.164, which knows no extension."""
    return phonenumbers.format_number(number, PhoneNumberFormat.E164)


def is_number(
    there: object, number: str, own: str | None = None, others: Iterable[str | None] = ()
) -> bool:
    """Whether what stands in a CRM is this number (E.164), however it is spelt.

    What stands there without a country code is read as a number of the country `own`, where the CRM
    says in which one that person lives. Where it does not, or it is no number there, as one of the
    number's own country, then of the `others` in their order: the first in which it is a valid number
    counts, else the first in which it is possible. What cannot be read, what may as well be a number
    of another country with its code, and what has an extension, is none.
    """
    text = one_line(there)
    if not text or len(text) > _LONGEST:
        return False
    read = read_number(text, own) if own else None
    if read is None:
        countries = [*_countries_of(number), *filter(None, others)]
        found = [
            (reading, country)
            for country in dict.fromkeys(countries)
            if (reading := read_number(text, country))
        ]
        readings = [reading for reading, country in found if not _two_ways(text, reading, country)]
        valid = filter(phonenumbers.is_valid_number, readings)
        read = next(valid, next(iter(readings), None))
    return bool(read and not read.extension and e164_of(read) == number)


def last_digits(number: str, most: int) -> str:
    """The last digits of a number (E.164) that stand in every spelling of it, `most` at most."""
    return _national(_parsed(number))[-max(most, _SHORTEST_TAIL) :]


def digit_forms(number: str, others: Iterable[str | None] = ()) -> tuple[str, ...]:
    """The digits that spellings of a number (E.164) have: with and without country code and zero.

    `others`: countries (ISO) out of which it may be dialled.
    """
    parsed = _parsed(number)
    plain, national = number.removeprefix("+"), _national(parsed)
    usual = _digits(phonenumbers.format_number(parsed, PhoneNumberFormat.NATIONAL))
    trunks = [f"{_trunk(country)}{national}" for country in _countries_of(number)]
    abroad = [f"{prefix}{plain}" for prefix in ("00", *map(_prefix_abroad, filter(None, others)))]
    return tuple(dict.fromkeys((national, *trunks, usual, plain, *abroad)))


def usual_spellings(number: str) -> tuple[str, ...]:
    """How a number (E.164) is written most: as it is, with blanks, and inside its country."""
    parsed = _parsed(number)
    forms = (PhoneNumberFormat.INTERNATIONAL, PhoneNumberFormat.NATIONAL)
    written = [phonenumbers.format_number(parsed, form) for form in forms]
    return tuple(dict.fromkeys((number, *written, *digit_forms(number))))


def _read(text: str, country: str | None) -> phonenumbers.PhoneNumber | None:
    number = _parse(text, country)
    if number and not _PLUS.search(text):
        number = _without_plus(text, number) or number
    if number and phonenumbers.is_valid_number(number):
        return number
    # 00 is what most countries dial before a country code (ITU-T E.123), and what people write whose
    # own country dials something else.
    abroad = _parse(f"+{_digits(text)[2:]}", None) if _digits(text).startswith("00") else None
    if abroad and phonenumbers.is_valid_number(abroad):
        return abroad
    possible = number and phonenumbers.is_possible_number(number)
    return number if possible else abroad


def _parse(text: str, country: str | None) -> phonenumbers.PhoneNumber | None:
    try:
        return phonenumbers.parse(text, country)
    except phonenumbers.NumberParseException:
        return None


def _without_plus(text: str, national: phonenumbers.PhoneNumber) -> phonenumbers.PhoneNumber | None:
    """The number where somebody typed its country code without the plus; None where it is national.

    Where both readings are possible it is national. German ones have no certain length, so that
    almost all are possible: there a mobile number of the own country is one.
    """
    number = _parse(f"+{_digits(text)}", None)
    if number is None or not phonenumbers.is_valid_number(number):
        return None
    if not phonenumbers.is_valid_number(national):
        return number
    types = [phonenumbers.number_type(reading) for reading in (number, national)]
    own = number.country_code == national.country_code
    return number if own and types[0] == PhoneNumberType.MOBILE != types[1] else None


def _two_ways(text: str, read: phonenumbers.PhoneNumber, country: str) -> bool:
    """Whether a text is as well a number of another country: 1 512 345 6781 is one of the USA, though
    in Germany 151 23456781 may be written with no zero before it."""
    if _PLUS.search(text):
        return False
    digits = _digits(text)
    abroad = _parse(f"+{digits}", None)
    if (
        abroad is None
        or not phonenumbers.is_valid_number(abroad)
        or e164_of(abroad) == e164_of(read)
    ):
        return False
    usual = _digits(phonenumbers.format_number(read, PhoneNumberFormat.NATIONAL))
    return digits not in (usual, f"{_trunk(country)}{_national(read)}")


def _countries_of(number: str) -> list[str]:
    """The country of a number (E.164), and the main one that has its code."""
    parsed = _parsed(number)
    exact = phonenumbers.region_code_for_number(parsed)
    main = phonenumbers.region_code_for_country_code(parsed.country_code or 0)
    return list(dict.fromkeys(country for country in (exact, main) if country))


def _parsed(number: str) -> phonenumbers.PhoneNumber:
    return phonenumbers.parse(number, None)


def _national(number: phonenumbers.PhoneNumber) -> str:
    return phonenumbers.national_significant_number(number)


def _trunk(country: str) -> str:
    """What is dialled before a number inside a country: mostly 0."""
    return phonenumbers.ndd_prefix_for_region(country, True) or ""


def _prefix_abroad(country: str) -> str:
    """What is dialled in a country before the code of another one: 011 in the USA."""
    metadata = phonenumbers.PhoneMetadata.metadata_for_region(country)
    prefix = metadata.international_prefix if metadata else None
    return prefix if prefix and prefix.isdecimal() else "00"


def _digits(text: str) -> str:
    """The digits of a text, of any script, as ASCII."""
    return "".join(str(int(sign)) for sign in text if sign.isdecimal())
