"""Reads phone numbers in any spelling, and compares a CRM's value with a number."""

from __future__ import annotations

import re
from collections.abc import Iterable

import phonenumbers
from phonenumbers import PhoneNumberFormat, PhoneNumberType

from app.domain.text import one_line

_LONGEST = 100
"""Most signs of a number with its label; a longer text is a note."""
_SHORTEST_TAIL = 4
_PLUS = re.compile("[+\uff0b]")


def read_number(text: str, country: str | None) -> phonenumbers.PhoneNumber | None:
    """Read a number as one of a country (ISO), unless it has its own country code.

    None if it cannot be a number. Words behind it (`mobile`) are ignored, an extension is kept.
    """
    ending = re.search(r"\D+\Z", text)
    # Letters may stand for digits (1-800-FLOWERS): they count if the rest cannot be a number.
    for form in (text[: ending.start()] if ending else text, text):
        number = _read(form, country)
        if number and phonenumbers.is_possible_number(number):
            return number
    return None


def e164_of(number: phonenumbers.PhoneNumber) -> str:
    """Return a number in E.164, which has no extensions."""
    return phonenumbers.format_number(number, PhoneNumberFormat.E164)


def is_number(
    there: object, number: str, own: str | None = None, others: Iterable[str | None] = ()
) -> bool:
    """Whether a CRM's value is this number (E.164), in any spelling.

    A value without a country code is read as a number of the country `own`, if the CRM gives the
    person's country. Otherwise, or if it is no number there, it is read as a number of this
    number's own country, then of the `others` in order: the first in which it is valid counts, or
    else the first in which it is possible. A value does not match if it is unreadable, if it may
    also be a number of another country with its code, or if it has an extension.
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
    """Return the last digits of a number (E.164) that are in all its spellings, `most` at most."""
    return _national(_parsed(number))[-max(most, _SHORTEST_TAIL) :]


def digit_forms(number: str, others: Iterable[str | None] = ()) -> tuple[str, ...]:
    """Return the digits in the spellings of a number (E.164): with and without country code and zero.

    `others`: countries (ISO) from which people may dial it.
    """
    parsed = _parsed(number)
    plain, national = number.removeprefix("+"), _national(parsed)
    usual = _digits(phonenumbers.format_number(parsed, PhoneNumberFormat.NATIONAL))
    trunks = [f"{_trunk(country)}{national}" for country in _countries_of(number)]
    abroad = [f"{prefix}{plain}" for prefix in ("00", *map(_prefix_abroad, filter(None, others)))]
    return tuple(dict.fromkeys((national, *trunks, usual, plain, *abroad)))


def usual_spellings(number: str) -> tuple[str, ...]:
    """Return the most common spellings of a number (E.164): as it is, with blanks, and national."""
    parsed = _parsed(number)
    forms = (PhoneNumberFormat.INTERNATIONAL, PhoneNumberFormat.NATIONAL)
    written = [phonenumbers.format_number(parsed, form) for form in forms]
    return tuple(dict.fromkeys((number, *written, *digit_forms(number))))


def _read(text: str, country: str | None) -> phonenumbers.PhoneNumber | None:
    # Most countries dial 00 before a country code (ITU-T E.123). People also write it in countries
    # that dial something else, or the number of a telephone company after it (Brazil).
    abroad = _parse(f"+{_digits(text)[2:]}", None) if _digits(text).startswith("00") else None
    if abroad and phonenumbers.is_valid_number(abroad):
        return abroad
    number = _parse(text, country)
    if number and not _PLUS.search(text):
        number = _without_plus(text, number) or number
    if number and phonenumbers.is_valid_number(number):
        return number
    possible = number and phonenumbers.is_possible_number(number)
    return number if possible else abroad


def _parse(text: str, country: str | None) -> phonenumbers.PhoneNumber | None:
    try:
        return phonenumbers.parse(text, country)
    except phonenumbers.NumberParseException:
        return None


def _without_plus(text: str, national: phonenumbers.PhoneNumber) -> phonenumbers.PhoneNumber | None:
    """Read a number as one whose plus is missing before the country code; None if it is national.

    If both readings are possible, the number is national. German numbers have no fixed length, so
    nearly all are possible: in that case, a mobile number of the same country wins.
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
    """Whether a text may also be a number of another country: 1 512 345 6781 is one in the USA, but
    in Germany 151 23456781 may be written without a leading zero."""
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
    """Return the country of a number (E.164), and the main country with its code."""
    parsed = _parsed(number)
    exact = phonenumbers.region_code_for_number(parsed)
    main = phonenumbers.region_code_for_country_code(parsed.country_code or 0)
    return list(dict.fromkeys(country for country in (exact, main) if country))


def _parsed(number: str) -> phonenumbers.PhoneNumber:
    return phonenumbers.parse(number, None)


def _national(number: phonenumbers.PhoneNumber) -> str:
    return phonenumbers.national_significant_number(number)


def _trunk(country: str) -> str:
    """Return the prefix of a number inside a country: mostly 0."""
    return phonenumbers.ndd_prefix_for_region(country, True) or ""


def _prefix_abroad(country: str) -> str:
    """Return the prefix that a country dials before a foreign country code: 011 in the USA."""
    metadata = phonenumbers.PhoneMetadata.metadata_for_region(country)
    prefix = metadata.international_prefix if metadata else None
    return prefix if prefix and prefix.isdecimal() else "00"


def _digits(text: str) -> str:
    """Return the digits of a text, in any script, as ASCII."""
    return "".join(str(int(sign)) for sign in text if sign.isdecimal())
