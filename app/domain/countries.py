"""Reads a country from an address in a CRM: a code, or a name as people write it (CLDR)."""

from __future__ import annotations

from functools import lru_cache

from babel import Locale, UnknownLocaleError
from babel.core import get_global
from babel.languages import get_official_languages
from phonenumbers import SUPPORTED_REGIONS

from app.domain.text import one_line

_SPOKEN = ("en", "de")
"""Languages in which all country names are known, besides each country's own languages."""


def read_country(value: object) -> str | None:
    """Return the ISO code (two letters) of a country: DE for DE, DEU, Germany, Deutschland; or None."""
    name = (one_line(value) or "").casefold()
    return _names().get(name) if name else None


@lru_cache(maxsize=1)
def _names() -> dict[str, str]:
    """Return name of a country, folded -> its code. https://cldr.unicode.org, territories."""
    aliases = get_global("territory_aliases")
    names = {
        alias.casefold(): codes[0]
        for alias, codes in aliases.items()
        if len(codes) == 1 and alias.isalpha()
    }
    for country in sorted(SUPPORTED_REGIONS):
        for language in (*_SPOKEN, *get_official_languages(country, de_facto=True)):
            name = _territories(language).get(country)
            if name:
                names.setdefault(name.casefold(), country)
    return {**names, **{country.casefold(): country for country in SUPPORTED_REGIONS}}


def _territories(language: str) -> dict[str, str]:
    try:
        return dict(Locale.parse(language).territories)
    except (UnknownLocaleError, ValueError):
        return {}
